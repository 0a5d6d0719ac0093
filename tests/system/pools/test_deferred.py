"""`deferred`: when its ranks exchange words and register, and captures in which it must not grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.ipc.memory import SharedMemory
from harness.oracle.judge import judge
from harness.scenario.layouts.groups import GroupId
from harness.scenario.steps import Recreate
from harness.substrate.sim.communicator import SimCommunicator
from harness.substrate.sim.substrate import SimSubstrate
from harness.system.context import ProcessGroup, RankContext, RegistrationError, Segment
from harness.system.pools.deferred import Deferred, GrowthDuringCapture
from harness.trace.draw import Draw
from harness.trace.events import Entered, Placed, Registered, SegmentAllocated
from harness.world.world import World
from tests.tools.deferred_on_ranks import BLOCK
from tests.tools.designs import (
    APART,
    LARGE,
    LARGE_SEGMENT,
    PROGRAMS,
    RECREATED,
    SMALL_SEGMENT,
    UNEVEN,
    allocate,
    events,
    found,
    gather,
    registered,
    run,
)
from tests.tools.one_rank import Rank


@pytest.mark.parametrize("name", PROGRAMS)
def test_deferred_is_sound_in_all_of_these(ranks: World, name: str) -> None:
    assert found(ranks, "deferred", PROGRAMS[name]) == []


@pytest.mark.parametrize("name", UNEVEN)
def test_deferred_lays_uneven_sizes_at_equal_offsets(ranks: World, name: str) -> None:
    draw = run(ranks, *PROGRAMS[name])
    places = [offsets(*each) for each in zip(events(draw, SegmentAllocated), events(draw, Placed), strict=True)]
    assert places == [places[0]] * 4


def offsets(segments: list[SegmentAllocated], placed: list[Placed]) -> list[tuple[int, int]]:
    """For each buffer, which of the rank's segments it lies in, and where."""
    order = [segment.segment for segment in segments]
    base = {segment.segment: segment.address for segment in segments}
    return [(order.index(buffer.segment), buffer.address - base[buffer.segment]) for buffer in placed]


def growths(draw: Draw) -> list[int]:
    return [len(each) for each in events(draw, SegmentAllocated)]


def exchanges(draw: Draw) -> list[int]:
    return [sum(event.call == "exchange" for event in each) for each in events(draw, Entered)]


def test_deferred_exchanges_nothing_on_leaving_an_unchanged_pool(ranks: World) -> None:
    draw = run(ranks, *(allocate(name, "tp") for name in "abcdef"))
    assert (growths(draw), exchanges(draw)) == ([1] * 4, [1] * 4)


def test_deferred_exchanges_once_for_each_growth(ranks: World) -> None:
    steps = allocate("a", "tp"), allocate("b", "tp", LARGE), allocate("c", "tp"), allocate("d", "tp", LARGE)
    draw = run(ranks, *steps, allocate("e", "cp"), allocate("f", "cp"))
    assert (growths(draw), exchanges(draw)) == ([3] * 4, [3] * 4)


def test_deferred_exchanges_once_with_a_new_communicator(ranks: World) -> None:
    draw = run(ranks, *RECREATED)
    assert (growths(draw), exchanges(draw)) == ([1] * 4, [2] * 4)


def test_deferred_gives_segments_windows_of_the_new_communicator(ranks: World) -> None:
    draw = run(ranks, allocate("a", "tp"), allocate("b", "tp", LARGE), Recreate("tp"), allocate("c", "tp"))
    windows = [
        [(trace.comms()[event.comm].generation, event.size) for event in each] for trace, each in registered(draw)
    ]
    again = [(generation, size) for generation in (0, 1) for size in (SMALL_SEGMENT, LARGE_SEGMENT)]
    assert windows == [again] * 4


def test_deferred_registers_nothing_where_the_communicator_supports_no_windows(ranks: World) -> None:
    draw = run(ranks, allocate("a", "tp"), gather("a", "tp"), topology=APART)
    assert (judge(draw), events(draw, Registered), exchanges(draw)) == ([], [[]] * 4, [1] * 4)


# deferred: capture


@pytest.fixture(scope="module")
def captured(ranks: World) -> list[dict[str, Any]]:
    return ranks.call("tests.tools.deferred_on_ranks:grow_in_capture")


def test_deferred_refuses_to_grow_during_capture(captured: list[dict[str, Any]]) -> None:
    text = "the pool of tp[0,1,2,3] had to grow while a graph was captured; let it grow once before the"
    assert [rank["error"].startswith(text) for rank in captured] == [True] * 4


def test_deferred_enters_no_collective_where_it_grew_during_capture(captured: list[dict[str, Any]]) -> None:
    assert [rank["captured"] for rank in captured] == [[]] * 4


def test_deferred_registers_what_grew_during_capture_at_the_next_use_outside(captured: list[dict[str, Any]]) -> None:
    assert [rank["eager"] for rank in captured] == [["exchange", "register"]] * 4


def test_deferred_serves_a_capture_from_a_pool_that_has_grown_before(captured: list[dict[str, Any]]) -> None:
    assert [(rank["again"], rank["owned"]) for rank in captured] == [([], [True, True])] * 4


# deferred: on one rank in this process


class Windowless(SimCommunicator):
    """Says that it supports windows, and gives none."""

    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        return None


class OutOfSpace(SimCommunicator):
    """Has no room for another window, as its peers have none."""

    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        raise RegistrationError("ncclInternalError: no suitable space")


@pytest.fixture
def alone() -> Iterator[Rank]:
    memory = SharedMemory.create(1)
    rank = Rank(SimSubstrate(0, memory), memory)
    rank.substrate.begin([(GroupId((0,)),)], [0], {GroupId((0,)): 0})
    yield rank
    memory.close()


def test_deferred_takes_no_null_window_from_a_communicator_that_supports_windows(alone: Rank) -> None:
    alone.substrate.communicators[GroupId((0,))] = alone.communicator(kind=Windowless)
    policy = Deferred(RankContext(alone.substrate, 1))
    with (
        pytest.raises(RuntimeError, match="gave a null window"),
        policy.use(ProcessGroup(alone.substrate, "tp", GroupId((0,)))),
    ):
        torch.empty(BLOCK)


def test_deferred_gives_the_pool_up_where_windows_run_out_of_address_space(alone: Rank) -> None:
    """On every rank alike, as all have used the space alike; so there is nothing to agree on."""
    group = ProcessGroup(alone.substrate, "tp", GroupId((0,)))
    policy = Deferred(RankContext(alone.substrate, 1))
    whole = alone.substrate.communicators[group.id]
    alone.substrate.communicators[group.id] = alone.communicator(kind=OutOfSpace)
    with pytest.raises(torch.OutOfMemoryError, match=r"tp\[0\] is given up: ncclInternalError"), policy.use(group):
        torch.empty(BLOCK)
    alone.substrate.communicators[group.id] = whole
    with policy.use(group):
        kept = torch.empty(BLOCK)
    segment = alone.substrate.locate(kept.data_ptr())
    assert segment is not None
    assert (segment.pool, len(segment.windows)) == ("0#1", 1)


def test_deferred_enters_no_collective_where_it_is_refused_memory_during_capture(alone: Rank) -> None:
    policy = Deferred(RankContext(alone.substrate, 1))
    alone.substrate.recorder.start(alone.events.append)
    alone.substrate.denial.is_due = True
    everyone = ProcessGroup(alone.substrate, "tp", GroupId((0,)))
    with (
        alone.substrate.device.capture(),
        pytest.raises((torch.OutOfMemoryError, GrowthDuringCapture)),
        policy.use(everyone),
    ):
        torch.empty(BLOCK)
    assert [event.call for event in alone.events if isinstance(event, Entered)] == []
