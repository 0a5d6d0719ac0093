"""Buffers and canaries: what changed is found once, and a block is back when its buffer is released."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.rank.buffers import Buffer, Canary, LiveBuffers
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import FENCE, FRONT, GUARD, ITEMSIZE
from harness.substrate.bits import bits
from harness.trace.events import Dropped, Exhausted, Overwritten, Placed, Touched
from tests.tools.one_rank import Rank

ROOM = 100


def buffer(stream: int = 0) -> tuple[torch.Tensor, Buffer]:
    """A buffer of `ROOM` elements, and the memory it was made of."""
    whole = torch.zeros(ROOM + GUARD)
    return whole, Buffer("a", whole, ROOM, stream)


# canaries


def test_a_canary_that_is_whole_shows_no_damage() -> None:
    assert Canary("a", "guard", torch.zeros(8), 1).damage() is None


def test_damage_is_shown_where_it_begins_and_how_far_it_goes() -> None:
    region = torch.zeros(8, dtype=torch.int32)
    canary = Canary("a", "guard", region, 1)
    region[3] += 1
    region[6] += 1
    assert canary.damage() == Overwritten("a", "guard", 3, 2)


def test_damage_is_shown_once() -> None:
    region = torch.zeros(8, dtype=torch.int32)
    canary = Canary("a", "guard", region, 1)
    region[3] += 1
    canary.damage()
    assert canary.damage() is None


def test_damage_that_a_peer_repairs_meanwhile_is_shown_as_it_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    region = torch.zeros(8, dtype=torch.int32)
    canary = Canary("a", "guard", region, 1)
    whole, equal = region.clone(), torch.equal

    def repairing(one: torch.Tensor, other: torch.Tensor) -> bool:
        found = equal(one, other)
        region.copy_(whole)
        return found

    region[3] += 1
    monkeypatch.setattr(torch, "equal", repairing)
    assert canary.damage() == Overwritten("a", "guard", 3, 1)


def test_guards_lie_in_front_of_the_body_and_behind_it() -> None:
    whole, made = buffer()
    whole[FRONT - 1], whole[FRONT + ROOM] = 5.0, 5.0
    damage = [guard.damage() for guard in made.guards]
    assert damage == [Overwritten("a", "front", FRONT - 1, 1), Overwritten("a", "guard", 0, 1)]


def test_the_body_is_not_guarded() -> None:
    whole, made = buffer()
    whole[FRONT : FRONT + ROOM] = 5.0
    assert [guard.damage() for guard in made.guards] == [None, None]


@pytest.mark.parametrize(("name", "rank"), [("b", 0), ("a", 1)], ids=["of another buffer", "of another rank"])
def test_a_guard_that_is_copied_onto_another_shows(name: str, rank: int) -> None:
    (whole, made), other = buffer(), torch.zeros(ROOM + GUARD)
    Buffer(name, other, ROOM, rank=rank)
    for place in (slice(FRONT), slice(FRONT + ROOM, None)):
        whole[place] = other[place]
    assert None not in [guard.damage() for guard in made.guards]


def test_a_fence_that_is_copied_onto_the_other_shows() -> None:
    whole, made = buffer()
    before, after = made.fences(40, 60)
    whole[FRONT + 60 :][:FENCE] = whole[FRONT + 40 - FENCE :][:FENCE]
    assert before.damage() is None
    assert after.damage() is not None


def test_a_body_keeps_the_alignment_of_its_block() -> None:
    assert all(FRONT * width % 128 == 0 for width in ITEMSIZE.values())


def test_fences_lie_on_both_sides_of_a_view() -> None:
    whole, made = buffer()
    before, after = made.fences(40, 60)
    whole[FRONT + 39], whole[FRONT + 60] = 5.0, 5.0
    assert (before.damage(), after.damage()) == (
        Overwritten("a", "fence", FENCE - 1, 1),
        Overwritten("a", "fence", 0, 1),
    )


@pytest.mark.parametrize(("start", "end", "fences"), [(0, ROOM, 0), (0, 50, 1), (50, ROOM, 1), (1, ROOM - 1, 2)])
def test_there_is_no_fence_where_the_body_ends(start: int, end: int, fences: int) -> None:
    assert len(buffer()[1].fences(start, end)) == fences


def test_a_buffer_is_shared_once_another_stream_uses_it() -> None:
    _, made = buffer(stream=1)
    assert (made.use_on(1), made.is_shared) == (False, False)
    assert (made.use_on(2), made.is_shared) == (True, True)


# live buffers


def placed(alone: Rank, *names: str, is_watched: bool = False) -> LiveBuffers:
    buffers = LiveBuffers(alone.substrate, is_watched)
    for name in names:
        buffers.place(name, ROOM + GUARD, GroupId((0,)), allocation(alone))
    return buffers


def allocation(alone: Rank) -> Callable[[], torch.Tensor]:
    def make() -> torch.Tensor:
        with alone.pool().use():
            return torch.empty(ROOM + GUARD)

    return make


def seen(alone: Rank, kind: type) -> list[object]:
    return [event for event in alone.events if isinstance(event, kind)]


def test_a_buffer_is_recorded_with_its_segment_and_the_group_it_is_for(alone: Rank) -> None:
    buffers = placed(alone, "a")
    (segment,) = alone.pool().segments
    size = 4 * (ROOM + GUARD)
    assert seen(alone, Placed) == [
        Placed(
            "a",
            segment.ident,
            buffers["a"].body.data_ptr() - 4 * FRONT,
            size,
            GroupId((0,)),
            front=4 * FRONT,
            body=4 * ROOM,
        )
    ]


def test_memory_outside_every_pool_has_no_segment(alone: Rank) -> None:
    buffers = LiveBuffers(alone.substrate)
    buffers.place("a", ROOM + GUARD, GroupId(()), lambda: torch.empty(ROOM + GUARD))
    assert [event.segment for event in alone.events if isinstance(event, Placed)] == [-1]


def test_memory_that_was_refused_is_recorded_and_no_buffer(alone: Rank) -> None:
    def refuse() -> torch.Tensor:
        raise torch.OutOfMemoryError

    buffers = LiveBuffers(alone.substrate)
    buffers.place("a", ROOM + GUARD, GroupId((0,)), refuse)
    assert (alone.events[-1], [*buffers]) == (Exhausted("a", ROOM), [])


def test_a_release_shows_damage_before_the_buffer_goes(alone: Rank) -> None:
    buffers = placed(alone, "a")
    bits(torch.as_strided(buffers["a"].body, (ROOM + 1,), (1,)))[ROOM] += 1
    buffers.release("a")
    assert alone.events[-2:] == [Overwritten("a", "guard", 0, 1), Dropped("a")]


def test_mending_a_guard_is_no_change_of_the_programs(alone: Rank) -> None:
    buffers = placed(alone, "a", is_watched=True)
    memory = buffers.memory
    memory.before()
    memory.after("call")
    bits(torch.as_strided(buffers["a"].body, (ROOM + 1,), (1,)))[ROOM] += 1
    for _ in range(2):
        memory.before()
        memory.after("call")
        buffers.check()
    assert [type(event) for event in alone.events[1:]].count(Touched) == 1


def test_the_block_of_a_released_buffer_serves_the_next(alone: Rank) -> None:
    buffers = placed(alone, "a")
    address = buffers["a"].body.data_ptr()
    buffers.release("a")
    buffers.place("b", ROOM + GUARD, GroupId((0,)), allocation(alone))
    assert buffers["b"].body.data_ptr() == address


def test_a_buffer_that_could_not_be_allocated_is_released_without_a_trace(alone: Rank) -> None:
    placed(alone, "a").release("b")
    assert seen(alone, Dropped) == []


def test_what_is_left_is_released_in_the_order_of_allocation(alone: Rank) -> None:
    buffers = placed(alone, "b", "a", "c")
    buffers.release("a")
    buffers.release_all()
    assert (seen(alone, Dropped), len(buffers)) == ([Dropped("a"), Dropped("b"), Dropped("c")], 0)


def test_a_buffer_of_a_capture_has_no_guards(alone: Rank) -> None:
    """In a capture nothing runs, so no canary can be written."""
    with alone.substrate.device.capture():
        buffers = placed(alone, "a")
    assert buffers["a"].guards == []


def test_no_canary_is_looked_at_in_a_capture(alone: Rank) -> None:
    buffers = placed(alone, "a")
    bits(torch.as_strided(buffers["a"].body, (ROOM + 1,), (1,)))[ROOM] += 1
    with alone.substrate.device.capture():
        buffers.check()
    assert seen(alone, Overwritten) == []
    buffers.check()
    assert len(seen(alone, Overwritten)) == 1
