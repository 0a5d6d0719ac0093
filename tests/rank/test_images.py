"""Images of memory: a change is recorded once, with its place, and what a call may write is left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.rank.images import FRESH, Image, Memory, Span, _apart, _same, _within
from harness.substrate.device import Copy
from harness.substrate.sim.device import tensor_at
from harness.trace.events import Touched
from tests.tools.one_rank import Rank

BYTES = 4096
AT = 1 << 20
"""Bytes from the start of a segment at which no buffer lies."""


def on_device(values: list[int]) -> Copy:
    return torch.tensor(values, dtype=torch.uint8)


KINDS = pytest.mark.parametrize("copy", [bytes, on_device], ids=["host", "device"])
SPANS = st.tuples(st.integers(0, 20), st.integers(1, 20))


# images


@KINDS
def test_memory_between_pieces_reads_as_zeros(copy: Callable[[list[int]], Copy]) -> None:
    image = Image([(100, copy([1, 2])), (104, copy([3]))])
    assert list(image.read(99, copy([9] * 7))) == [0, 1, 2, 0, 0, 3, 0]


@KINDS
def test_a_part_of_a_piece_is_read(copy: Callable[[list[int]], Copy]) -> None:
    image = Image([(100, copy([1, 2, 3]))])
    assert list(image.read(101, copy([0, 0]))) == [2, 3]


@KINDS
def test_what_an_image_has_within_a_span_is_cut_to_it(copy: Callable[[list[int]], Copy]) -> None:
    image = Image([(100, copy([1, 2, 3])), (110, copy([4]))])
    assert [(at, list(part)) for at, part in _within(image.pieces, (102, 10))] == [(102, [3]), (110, [4])]


@given(SPANS, st.lists(SPANS, max_size=3))
def test_what_is_spared_is_cut_out_of_a_span(whole: Span, spared: list[Span]) -> None:
    left = {at for first, end in _apart(whole, spared) for at in range(first, end)}
    assert left == {*range(whole[0], sum(whole))}.difference(*(range(at, at + size) for at, size in spared))


# memory of a rank


@pytest.fixture
def watched(alone: Rank) -> Memory:
    return Memory(alone.substrate, is_watched=True)


def hold(alone: Rank, memory: Memory, name: str, is_pooled: bool = True) -> torch.Tensor:
    with alone.pool().use():
        pooled = torch.empty(BYTES, dtype=torch.uint8)
    buffer = pooled if is_pooled else torch.zeros(BYTES, dtype=torch.uint8)
    memory.hold(name, buffer)
    alone.events.clear()
    return buffer


def seen(alone: Rank) -> list[tuple[str, str, int]]:
    """When, in which buffer, and how many bytes changed."""
    return [(event.when, event.buffer, event.changed) for event in alone.events if isinstance(event, Touched)]


@pytest.mark.parametrize("is_pooled", [True, False], ids=["of a pool", "of ordinary memory"])
def test_a_change_in_a_live_buffer_is_recorded_with_its_place(alone: Rank, watched: Memory, is_pooled: bool) -> None:
    buffer = hold(alone, watched, "a", is_pooled)
    watched.before()
    buffer[17:20] = 1
    watched.after("call")
    start, ident = buffer.data_ptr() + 17, alone.pool().segments[0].ident if is_pooled else -1
    shown = f"{FRESH:02x}" * 3, "010101"
    assert alone.events == [Touched("call", "a", ident, start, start + 3, 3, *shown)]


def test_a_change_in_free_memory_of_a_segment_is_recorded(alone: Rank, watched: Memory) -> None:
    hold(alone, watched, "a")
    (segment,) = alone.pool().segments
    watched.before()
    tensor_at(segment.address + AT, 3, torch.uint8).fill_(7)
    watched.after("replay")
    at = segment.address + AT
    assert alone.events == [Touched("replay", "", segment.ident, at, at + 3, 3, "000000", "070707")]


def test_memory_that_changes_and_changes_back_is_recorded_both_times(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    for value in (1, FRESH):
        watched.before()
        buffer[5] = value
        watched.after("call")
    assert seen(alone) == [("call", "a", 1)] * 2


def test_changes_in_two_buffers_are_recorded_apart(alone: Rank, watched: Memory) -> None:
    first, second = hold(alone, watched, "a"), hold(alone, watched, "b")
    watched.before()
    first[-1:], second[:1] = 1, 1
    watched.after("call")
    assert seen(alone) == [("call", "a", 1), ("call", "b", 1)]


def test_operands_may_change(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    watched.before()
    buffer[8:16] = 1
    watched.after("call", buffer[8:16])
    assert alone.events == []


def test_a_byte_beside_an_operand_may_not(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    watched.before()
    buffer[7:17] = 1
    watched.after("call", buffer[8:16])
    assert seen(alone) == [("call", "a", 2)]


def test_a_change_is_recorded_once(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    for value in (1, 1):
        watched.before()
        buffer[3] = value
        watched.after("call")
    watched.look_back()
    assert seen(alone) == [("call", "a", 1)]


@pytest.mark.parametrize("is_pooled", [True, False], ids=["of a pool", "of ordinary memory"])
@pytest.mark.parametrize("looks", ["before", "look_back"])
def test_a_change_between_two_looks_is_recorded(alone: Rank, watched: Memory, is_pooled: bool, looks: str) -> None:
    buffer = hold(alone, watched, "a", is_pooled)
    watched.before()
    watched.after("call")
    buffer[3] = 1
    getattr(watched, looks)()
    assert seen(alone) == [("between", "a", 1)]


def test_what_is_written_for_the_next_call_is_no_change(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    watched.before()
    watched.after("call")
    buffer[8:16] = 1
    watched.before(buffer[8:16])
    assert alone.events == []


def test_a_look_back_at_one_buffer_leaves_the_others(alone: Rank, watched: Memory) -> None:
    buffers = [hold(alone, watched, name) for name in "ab"]
    watched.before()
    watched.after("call")
    for buffer in buffers:
        buffer[3] = 1
    watched.look_back("b")
    assert seen(alone) == [("between", "b", 1)]


def test_a_buffer_that_went_or_was_changed_rightly_is_not_looked_back_at(alone: Rank, watched: Memory) -> None:
    gone, changed = hold(alone, watched, "a"), hold(alone, watched, "b")
    watched.before()
    watched.after("call")
    watched.drop("a")
    watched.forget()
    gone[3], changed[3] = 1, 1
    watched.look_back()
    assert alone.events == []


def test_a_buffer_is_filled_before_its_first_use_and_after_its_last(alone: Rank, watched: Memory) -> None:
    buffer = hold(alone, watched, "a")
    first = set(buffer.tolist())
    buffer.zero_()
    watched.drop("a")
    assert (first, set(buffer.tolist())) == ({FRESH}, {FRESH})


def test_nothing_is_written_or_looked_at_in_a_capture(alone: Rank, watched: Memory) -> None:
    kept = hold(alone, watched, "a")
    watched.before()
    watched.after("call")
    kept[3] = 1
    with alone.substrate.device.capture():
        buffer = hold(alone, watched, "b")
        watched.look_back()
    assert (alone.events, set(buffer.tolist())) == ([], {0})


def test_memory_that_is_not_watched_may_change(alone: Rank) -> None:
    memory = Memory(alone.substrate, is_watched=False)
    buffer = hold(alone, memory, "a")
    memory.before()
    buffer[3] = 1
    memory.after("call")
    memory.look_back()
    assert alone.events == []


@pytest.mark.parametrize("size", [5, 8, 21])
@pytest.mark.parametrize("at", [0, 4, 8])
def test_bytes_are_compared_wherever_they_begin(at: int, size: int) -> None:
    one = torch.arange(64, dtype=torch.uint8)
    other = one.clone()
    assert _same(one[at:][:size], other[at:][:size])
    other[at + size - 1] += 1
    assert not _same(one[at:][:size], other[at:][:size])


# pages that nobody had written, and memory of others

LARGE = 1 << 20


def large(alone: Rank, memory: Memory) -> torch.Tensor:
    """A buffer of which only the ends are filled."""
    with alone.pool().use():
        buffer = torch.empty(LARGE, dtype=torch.uint8)
    memory.hold("a", buffer)
    alone.events.clear()
    return buffer


def test_an_operand_in_a_page_that_is_written_for_the_first_time_is_no_change(alone: Rank, watched: Memory) -> None:
    operand = large(alone, watched)[300_000:][:5000]
    watched.before()
    operand.fill_(1)
    watched.after("replay", operand)
    assert seen(alone) == []


def test_a_store_into_a_page_that_nobody_had_written_is_seen(alone: Rank, watched: Memory) -> None:
    buffer = large(alone, watched)
    watched.before()
    watched.after("call")
    buffer[700_000] = 1
    watched.look_back()
    watched.before()
    buffer[500_000] = 1
    watched.after("call")
    assert seen(alone) == [("between", "a", 1), ("call", "a", 1)]


def test_what_is_written_before_a_call_into_a_new_page_is_no_change(alone: Rank, watched: Memory) -> None:
    buffer = large(alone, watched)
    watched.before()
    watched.after("call")
    written = buffer[300_000:][:10]
    written.fill_(1)
    watched.before(written)
    watched.after("call")
    assert seen(alone) == []


def test_a_plug_in_may_write_its_own_workspace_and_not_what_nobody_holds(alone: Rank, watched: Memory) -> None:
    hold(alone, watched, "a")
    with alone.pool().use():
        workspace, free = (torch.empty(BYTES, dtype=torch.uint8) for _ in range(2))
    view = tensor_at(free.data_ptr(), BYTES, torch.uint8)
    del free
    watched.before()
    workspace.fill_(3)
    view[7] = 3
    watched.after("call")
    assert seen(alone) == [("call", "", 1)]
