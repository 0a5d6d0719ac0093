"""The caching allocator against PyTorch's rules, as sequences of requests with the places they must give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from harness.substrate.sim.allocator import Block, CachingAllocator

K, M = 1 << 10, 1 << 20
FAR = 1 << 30


@dataclass
class Memory:
    """Where segments come from: at the addresses given, or one far behind the other. Notes what came and went."""

    addresses: list[int] = field(default_factory=list)
    grown: list[int] = field(default_factory=list)
    segments: dict[int, int] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)

    def grow(self, size: int) -> int:
        address = self.addresses.pop(0) if self.addresses else (1 + len(self.grown)) * FAR
        self.grown.append(size)
        self.segments[address] = size
        return address

    def shrink(self, address: int) -> None:
        del self.segments[address]
        self.returned.append(address)


def allocator(memory: Memory, order: str = "address") -> CachingAllocator:
    return CachingAllocator(memory.grow, memory.shrink, order)


def places(*sizes: int) -> list[tuple[int, int]]:
    """(segment, offset) of blocks allocated one after the other and kept, segments numbered from 1."""
    pool = allocator(Memory())
    return [divmod(pool.allocate(size).address, FAR) for size in sizes]


# rounding


@pytest.mark.parametrize(
    ("requested", "given"),
    [(1, 512), (511, 512), (512, 512), (513, 1024), (1024, 1024), (1025, 1536), (M - 1, M), (M, M), (M + 1, M + 512)],
)
def test_size_is_rounded_up_to_512_bytes(requested: int, given: int) -> None:
    assert allocator(Memory()).allocate(requested).size == given


# segments


@pytest.mark.parametrize(
    ("requested", "segment"),
    [
        (1, 2 * M),
        (512, 2 * M),
        (M - 511, 2 * M),
        (M, 2 * M),
        (M + 1, 20 * M),
        (2 * M, 20 * M),
        (10 * M - 513, 20 * M),
        (10 * M - 512, 20 * M),
        (10 * M - 511, 10 * M),
        (10 * M, 10 * M),
        (10 * M + 1, 12 * M),
        (12 * M, 12 * M),
        (12 * M + 1, 14 * M),
        (20 * M, 20 * M),
        (33 * M, 34 * M),
    ],
)
def test_segment_for_a_first_request_has_the_size_of_its_class(requested: int, segment: int) -> None:
    memory = Memory()
    allocator(memory).allocate(requested)
    assert memory.grown == [segment]


def test_small_blocks_fill_a_segment_from_its_start_and_then_the_next() -> None:
    assert places(M, 512 * K, 512 * K, 512) == [(1, 0), (1, M), (1, M + 512 * K), (2, 0)]


def test_large_blocks_fill_a_segment_from_its_start_and_then_the_next() -> None:
    assert places(8 * M, 8 * M, 4 * M, 2 * M) == [(1, 0), (1, 8 * M), (1, 16 * M), (2, 0)]


def test_small_and_large_blocks_never_share_a_segment() -> None:
    assert places(2 * M, M, 2 * M, M) == [(1, 0), (2, 0), (1, 2 * M), (2, M)]


# splitting


def test_small_block_is_split_off_where_512_bytes_remain() -> None:
    assert places(M, M - 512, 512) == [(1, 0), (1, M), (1, 2 * M - 512)]


def test_large_block_is_split_off_where_more_than_a_mebibyte_remains() -> None:
    memory = Memory()
    block = allocator(memory).allocate(9 * M)
    assert (block.size, block.next is not None and block.next.size) == (9 * M, 11 * M)


@pytest.mark.parametrize(("requested", "given"), [(11 * M, 12 * M), (11 * M - 512, 11 * M - 512)])
def test_rest_of_a_mebibyte_stays_with_a_large_block_and_a_larger_one_does_not(requested: int, given: int) -> None:
    assert allocator(Memory()).allocate(requested).size == given


def test_whole_segment_is_one_block_where_nothing_remains() -> None:
    block = allocator(Memory()).allocate(12 * M)
    assert (block.size, block.prev, block.next) == (12 * M, None, None)


# best fit


def holes(*sizes: int, stream: int = 0) -> tuple[CachingAllocator, dict[int, Block]]:
    """A small pool in which free holes of these sizes lie between blocks in use; the rest of the segment is used up."""
    pool = allocator(Memory())
    kept = []
    for size in sizes:
        kept.append(pool.allocate(size, stream))
        pool.allocate(512, stream)
    last = 2 * M - sum(sizes) - 512 * len(sizes)
    while last:
        last -= pool.allocate(min(last, M), stream).size
    for block in kept:
        pool.release(block)
    return pool, {block.size: block for block in kept}


def test_smallest_block_that_fits_is_taken() -> None:
    pool, free = holes(8 * K, 2 * K, 4 * K)
    assert pool.allocate(1536).address == free[2 * K].address


def test_block_of_the_very_size_is_taken_before_a_larger_one_at_a_lower_address() -> None:
    pool, free = holes(8 * K, 4 * K)
    assert pool.allocate(4 * K).address == free[4 * K].address


def test_rest_of_a_split_hole_is_free_for_the_next() -> None:
    pool, free = holes(8 * K)
    start = free[8 * K].address
    assert [pool.allocate(3 * K).address, pool.allocate(5 * K).address] == [start, start + 3 * K]


def test_pool_grows_where_no_hole_is_large_enough() -> None:
    pool, _ = holes(2 * K, 4 * K)
    assert pool.allocate(5 * K).address == 2 * FAR


def test_of_equal_holes_in_one_segment_the_lowest_is_taken() -> None:
    pool = allocator(Memory())
    first, _, third, _ = (pool.allocate(4 * K) for _ in range(4))
    pool.release(third)
    pool.release(first)
    assert pool.allocate(4 * K).address == first.address


# merging


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_free_neighbours_merge_in_whatever_order_they_are_released(order: tuple[int, ...]) -> None:
    pool = allocator(Memory())
    blocks = [pool.allocate(4 * K) for _ in range(3)]
    fence = pool.allocate(512)
    start = blocks[0].address
    for index in order:
        pool.release(blocks[index])
    assert pool.allocate(12 * K).address == start
    assert fence.address == start + 12 * K


def test_neighbour_in_use_is_not_merged_with() -> None:
    pool = allocator(Memory())
    first, _, third = (pool.allocate(4 * K) for _ in range(3))
    pool.release(first)
    pool.release(third)
    assert pool.allocate(8 * K).address == third.address


def test_released_block_merges_with_the_rest_of_its_segment() -> None:
    pool = allocator(Memory())
    pool.release(pool.allocate(8 * M))
    assert pool.allocate(20 * M - 512).address == FAR


def test_segments_side_by_side_do_not_merge() -> None:
    memory = Memory([FAR, FAR + 2 * M])
    pool = allocator(memory)
    for block in [pool.allocate(M) for _ in range(4)]:
        pool.release(block)
    pool.allocate(4 * M)
    assert memory.grown == [2 * M, 2 * M, 20 * M]


# streams


@pytest.mark.parametrize(("freed", "other"), [(1, 2), (2, 1)])
def test_block_freed_on_one_stream_is_not_given_to_another(freed: int, other: int) -> None:
    pool = allocator(Memory())
    pool.release(pool.allocate(4 * K, stream=freed))
    assert [pool.allocate(4 * K, stream=stream).address for stream in (other, freed)] == [2 * FAR, FAR]


def test_rest_of_a_segment_stays_with_its_stream() -> None:
    pool = allocator(Memory())
    assert [pool.allocate(4 * K, stream).address for stream in (1, 2, 1, 2)] == [
        FAR,
        2 * FAR,
        FAR + 4 * K,
        2 * FAR + 4 * K,
    ]


# the order of equal blocks


@pytest.mark.parametrize(("order", "taken"), [("address", 0), ("counter", 1)])
def test_of_equal_blocks_the_lower_or_the_older_one_is_taken(order: str, taken: int) -> None:
    """Two whole segments, the second of which lies below the first; index 1 is the older."""
    low, high = FAR, 2 * FAR
    pool = allocator(Memory([high, low]), order)
    for block in [pool.allocate(12 * M), pool.allocate(12 * M)]:
        pool.release(block)
    assert pool.allocate(12 * M).address == [low, high][taken]


def test_smaller_block_is_taken_before_an_older_one() -> None:
    pool = allocator(Memory(), "counter")
    older, younger = pool.allocate(14 * M), pool.allocate(12 * M)
    pool.release(older)
    pool.release(younger)
    assert pool.allocate(12 * M).address == younger.address


# trimming


def test_trim_returns_free_segments_of_both_classes() -> None:
    memory = Memory()
    pool = allocator(memory)
    for block in [pool.allocate(M), pool.allocate(4 * M), pool.allocate(21 * M)]:
        pool.release(block)
    pool.trim()
    assert (sorted(memory.returned), memory.segments) == ([FAR, 2 * FAR, 3 * FAR], {})


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_trim_keeps_a_segment_in_which_one_block_is_in_use(kept: int) -> None:
    memory = Memory()
    pool = allocator(memory)
    blocks = [pool.allocate(512 * K) for _ in range(3)]
    for index, block in enumerate(blocks):
        if index != kept:
            pool.release(block)
    pool.trim()
    assert memory.returned == []


def test_trimmed_segment_is_not_handed_out_again() -> None:
    memory = Memory()
    pool = allocator(memory)
    pool.release(pool.allocate(M))
    pool.trim()
    assert pool.allocate(M).address == 2 * FAR


def test_blocks_in_use_are_counted() -> None:
    pool = allocator(Memory())
    blocks = [pool.allocate(K) for _ in range(3)]
    pool.release(blocks[1])
    assert pool.in_use == 2


def test_failed_growth_leaves_the_pool_as_it_was() -> None:
    def refuse(size: int) -> int:
        raise MemoryError(size)

    memory = Memory()
    pool = allocator(memory)
    block = pool.allocate(M)
    pool._grow = refuse
    with pytest.raises(MemoryError):
        pool.allocate(4 * M)
    assert (pool.in_use, pool.allocate(M).address) == (1, block.address + M)


# every sequence of requests


@dataclass
class Slice:
    address: int
    size: int
    stream: int
    small: bool
    free: bool = True


class Model:
    """The rules read naively: every segment is a list of slices, and every request looks at all of them."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.segments: list[list[Slice]] = []

    def allocate(self, size: int, stream: int) -> Slice:
        size = -(-size // 512) * 512
        small = size <= M
        fitting = [
            (found.size, found.address, segment, found)
            for segment in self.segments
            for found in segment
            if found.free and (found.stream, found.small) == (stream, small) and found.size >= size
        ]
        if not fitting:
            whole = 2 * M if small else 20 * M if size < 10 * M else -(-size // (2 * M)) * 2 * M
            segment = [Slice(self.memory.grow(whole), whole, stream, small)]
            self.segments.append(segment)
            found = segment[0]
        else:
            segment, found = min(fitting, key=lambda entry: entry[:2])[2:]
        found.free = False
        rest = found.size - size
        if rest >= 512 if small else rest > M:
            found.size = size
            segment.insert(segment.index(found) + 1, Slice(found.address + size, rest, stream, small))
        return found

    def release(self, taken: Slice) -> None:
        segment = next(segment for segment in self.segments if taken in segment)
        taken.free = True
        joined: list[Slice] = []
        for part in segment:
            if joined and joined[-1].free and part.free:
                joined[-1].size += part.size
            else:
                joined.append(part)
        segment[:] = joined

    def trim(self) -> None:
        self.segments = [segment for segment in self.segments if len(segment) > 1 or not segment[0].free]


SIZES = st.one_of(
    st.integers(1, 8 * K),
    st.sampled_from([512, 513, M - 512, M, M + 1, 2 * M, 4 * M, 9 * M, 10 * M - 512, 10 * M, 11 * M, 12 * M, 20 * M]),
)


class Requests(RuleBasedStateMachine):
    """Any requests on any streams, asked of the allocator and of the model."""

    blocks: Bundle[tuple[Block, Slice]] = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.model = Memory(), Model()
        self.pool = allocator(self.memory)
        self.live: list[Block] = []

    @rule(target=blocks, size=SIZES, stream=st.integers(0, 1))
    def allocate(self, size: int, stream: int) -> tuple[Block, Slice]:
        block, wanted = self.pool.allocate(size, stream), self.model.allocate(size, stream)
        self.live.append(block)
        assert (block.address, block.size) == (wanted.address, wanted.size)
        return block, wanted

    @rule(taken=consumes(blocks))
    def release(self, taken: tuple[Block, Slice]) -> None:
        self.live.remove(taken[0])
        self.pool.release(taken[0])
        self.model.release(taken[1])

    @rule()
    def trim(self) -> None:
        self.pool.trim()
        self.model.trim()
        assert {*self.memory.segments} == {segment[0].address for segment in self.model.segments}

    @invariant()
    def live_blocks_do_not_overlap(self) -> None:
        ordered = sorted(self.live, key=lambda block: block.address)
        assert all(a.address + a.size <= b.address for a, b in pairwise(ordered))

    @invariant()
    def blocks_of_a_segment_fill_it(self) -> None:
        for block in self.live:
            parts = list(chain(block))
            assert [part.address for part in parts[1:]] == [part.address + part.size for part in parts[:-1]]
            assert self.memory.segments[parts[0].address] == sum(part.size for part in parts)

    @invariant()
    def no_two_free_blocks_are_neighbours(self) -> None:
        for block in self.live:
            parts = list(chain(block))
            assert not any(one.is_free and other.is_free for one, other in pairwise(parts))

    def teardown(self) -> None:
        for block in self.live:
            self.pool.release(block)
        self.pool.trim()
        assert (self.memory.segments, self.pool.in_use) == ({}, 0)


def chain(block: Block) -> Iterator[Block]:
    """Every block of a block's segment, in order."""
    while block.prev is not None:
        block = block.prev
    found: Block | None = block
    while found is not None:
        yield found
        found = found.next


def test_any_sequence_of_requests_is_placed_by_the_rules_and_merges_back_to_whole_segments() -> None:
    run_state_machine_as_test(Requests, settings=settings(deadline=None, max_examples=60, stateful_step_count=40))


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(SIZES, max_size=12), again=st.lists(SIZES, max_size=6))
def test_pool_that_is_free_again_and_need_not_grow_places_requests_as_it_did_before(
    sizes: list[int], again: list[int]
) -> None:
    """A pass that grows leaves a new segment behind, into which best fit may send an earlier request."""
    memory = Memory()
    pool = allocator(memory)
    for block in [pool.allocate(size) for size in (*sizes, *again)]:
        pool.release(block)
    held = dict(memory.segments)
    first = [pool.allocate(size) for size in again]
    assume(memory.segments == held)
    where = [block.address for block in first]
    for block in first:
        pool.release(block)
    assert [pool.allocate(size).address for size in again] == where
