"""The simulation's pools: what an operator creates lies in the pool in use, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
import torch

from harness.ipc.memory import ARENA_BYTES
from harness.substrate.pool import Pool
from harness.substrate.sim.device import tensor_at
from harness.substrate.sim.memory import Arena
from harness.trace.events import SegmentDenied
from tests.tools.one_rank import Rank

K, M = 1 << 10, 1 << 20
OUTSIDE = torch.arange(6.0).view(2, 3)

Make = Callable[[], torch.Tensor]

FACTORIES: dict[str, Make] = {
    "empty": lambda: torch.empty(5).fill_(1),
    "empty_like": lambda: torch.empty_like(OUTSIDE).fill_(1),
    "zeros": lambda: torch.zeros(2, 3),
    "zeros_like": lambda: torch.zeros_like(OUTSIDE),
    "ones": lambda: torch.ones(3, dtype=torch.bool),
    "full": lambda: torch.full((3,), 7),
    "randn": lambda: torch.randn(3, generator=torch.Generator().manual_seed(1)),
    "arange": lambda: torch.arange(5),
    "scalar_tensor": lambda: torch.scalar_tensor(3.0),
    "new_empty": lambda: OUTSIDE.new_empty(4).fill_(1),
    "new_zeros": lambda: OUTSIDE.new_zeros(4),
    "clone": OUTSIDE.clone,
    "contiguous": lambda: OUTSIDE.t().contiguous(),
    "cat": lambda: torch.cat([OUTSIDE, OUTSIDE]),
    "stack": lambda: torch.stack([OUTSIDE, OUTSIDE]),
    "sum of two": lambda: OUTSIDE + OUTSIDE,
    "product": lambda: OUTSIDE @ OUTSIDE.t(),
    "copy of another dtype": lambda: OUTSIDE.to(torch.bfloat16),
    "one of several results": lambda: OUTSIDE.max(dim=1).indices,
}
"""Ways to create a tensor, each with the same values every time."""
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2]


def lies_in(pool: Pool, tensor: torch.Tensor) -> bool:
    return any(tensor.untyped_storage().data_ptr() in segment for segment in pool.segments)


def made_in(pool: Pool, make: Make) -> torch.Tensor:
    with pool.use():
        return make()


# what is routed


@pytest.mark.parametrize("name", FACTORIES)
def test_created_tensor_lies_in_the_pool_in_use(name: str, rank: Rank) -> None:
    assert lies_in(rank.pool(), made_in(rank.pool(), FACTORIES[name]))


@pytest.mark.parametrize("name", FACTORIES)
def test_created_tensor_is_the_one_that_torch_makes_without_a_pool(name: str, rank: Rank) -> None:
    inside, outside = made_in(rank.pool(), FACTORIES[name]), FACTORIES[name]()
    assert inside.dtype == outside.dtype
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("name", FACTORIES)
def test_tensor_created_outside_lies_in_no_pool(name: str, rank: Rank) -> None:
    made_in(rank.pool(), FACTORIES[name])
    assert not lies_in(rank.pool(), FACTORIES[name]())


def test_tensor_of_given_values_lies_in_the_pool_in_use(rank: Rank) -> None:
    assert lies_in(rank.pool(), made_in(rank.pool(), lambda: torch.tensor([1.0, 2.0])))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensor_of_every_dtype_lies_in_the_pool_in_use(dtype: torch.dtype, rank: Rank) -> None:
    tensor = made_in(rank.pool(), lambda: torch.empty(7, dtype=dtype))
    assert (tensor.dtype, lies_in(rank.pool(), tensor)) == (dtype, True)


@pytest.mark.parametrize("size", [(0,), (3, 0)])
def test_tensor_without_elements_takes_no_memory(size: tuple[int, ...], rank: Rank) -> None:
    assert made_in(rank.pool(), lambda: torch.empty(size)).shape == size
    assert rank.events == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty_strided((2, 3), (1, 2)),
        lambda: OUTSIDE.t().clone(),
        lambda: torch.empty(1, 2, 3, 4, memory_format=torch.channels_last),
    ],
    ids=["empty_strided", "clone", "channels_last"],
)
def test_created_tensor_has_the_strides_it_has_without_a_pool(make: Make, rank: Rank) -> None:
    assert made_in(rank.pool(), make).stride() == make().stride()


@pytest.mark.parametrize(
    "view",
    [
        lambda tensor: tensor.view(6),
        lambda tensor: tensor[1:],
        lambda tensor: tensor.t(),
        lambda tensor: tensor.expand(4, 2, 3),
        lambda tensor: tensor.view(torch.int32),
        lambda tensor: tensor.add_(1),
        lambda tensor: torch.add(tensor, 1, out=tensor),
    ],
    ids=["view", "slice", "transpose", "expand", "other dtype", "in place", "out"],
)
def test_view_of_memory_outside_stays_outside(view: Callable[[torch.Tensor], torch.Tensor], rank: Rank) -> None:
    outside = torch.zeros(2, 3)
    seen = made_in(rank.pool(), lambda: view(outside))
    assert seen.untyped_storage().data_ptr() == outside.untyped_storage().data_ptr()


def test_view_of_memory_in_the_pool_takes_no_more_of_it(rank: Rank) -> None:
    tensor = made_in(rank.pool(), lambda: torch.empty(6))
    with rank.pool().use():
        view = tensor.view(2, 3)[1]
        following = torch.empty(6)
    assert (view.data_ptr(), following.data_ptr()) == (tensor.data_ptr() + 12, tensor.data_ptr() + 512)


# whose allocations are routed, and where to


def test_another_thread_is_not_routed(rank: Rank) -> None:
    made: list[torch.Tensor] = []
    with rank.pool().use():
        thread = Thread(target=lambda: made.append(torch.empty(5)))
        thread.start()
        thread.join()
    assert not lies_in(rank.pool(), made[0])


def test_inner_pool_is_used_where_two_are_nested(rank: Rank) -> None:
    outer, inner = rank.pool("outer"), rank.pool("inner")
    with outer.use(), inner.use():
        tensor = torch.empty(5)
    assert (lies_in(inner, tensor), lies_in(outer, tensor)) == (True, False)


def test_outer_pool_is_left_alone_where_two_are_nested(rank: Rank) -> None:
    outer, inner = rank.pool("outer"), rank.pool("inner")
    with outer.use(), inner.use():
        torch.zeros(5)
    assert outer.segments == []


def test_outer_pool_is_used_again_after_the_inner_one(rank: Rank) -> None:
    outer, inner = rank.pool("outer"), rank.pool("inner")
    with outer.use():
        with inner.use():
            torch.empty(5)
        tensor = torch.empty(5)
    assert (lies_in(inner, tensor), lies_in(outer, tensor)) == (False, True)


def test_pool_may_be_used_inside_itself(rank: Rank) -> None:
    with rank.pool().use():
        first = made_in(rank.pool(), lambda: torch.empty(5))
        second = torch.empty(5)
    assert second.data_ptr() == first.data_ptr() + 512


def test_pool_is_out_of_use_after_an_exception(rank: Rank) -> None:
    with pytest.raises(RuntimeError, match="in use"), rank.pool().use():
        raise RuntimeError("raised while the pool was in use")
    assert not lies_in(rank.pool(), torch.empty(5))


def test_pools_share_no_segment(rank: Rank) -> None:
    one, other = (made_in(rank.pool(name), lambda: torch.empty(5)) for name in ("one", "other"))
    assert (lies_in(rank.pool("one"), other), lies_in(rank.pool("other"), one)) == (False, False)


def test_block_freed_on_one_stream_is_not_given_to_another(rank: Rank) -> None:
    address = made_in(rank.pool(), lambda: torch.empty(5)).data_ptr()
    with rank.substrate.device.stream(1):
        other = made_in(rank.pool(), lambda: torch.empty(5))
    same = made_in(rank.pool(), lambda: torch.empty(5))
    assert (other.data_ptr() != address, same.data_ptr()) == (True, address)


# when memory returns


def test_block_returns_when_its_tensor_dies(rank: Rank) -> None:
    address = made_in(rank.pool(), lambda: torch.empty(5)).data_ptr()
    assert made_in(rank.pool(), lambda: torch.empty(5)).data_ptr() == address


@pytest.mark.parametrize(
    "view",
    [lambda tensor: tensor[2:3], lambda tensor: tensor.view(torch.int16), lambda tensor: tensor.numpy()],
    ids=["slice", "other dtype", "numpy"],
)
def test_block_is_held_until_its_last_view_dies(view: Callable[[torch.Tensor], object], rank: Rank) -> None:
    tensor = made_in(rank.pool(), lambda: torch.empty(5))
    address = tensor.data_ptr()
    held = view(tensor)
    del tensor
    while_held = made_in(rank.pool(), lambda: torch.empty(5)).data_ptr()
    del held
    afterwards = made_in(rank.pool(), lambda: torch.empty(5)).data_ptr()
    assert (while_held, afterwards) == (address + 512, address)


def test_trim_frees_the_segments_of_a_pool_in_which_nothing_is_in_use(rank: Rank) -> None:
    made_in(rank.pool(), lambda: torch.empty(5))
    rank.pool().trim()
    assert rank.pool().segments == []


def test_trim_keeps_every_segment_of_a_pool_in_which_one_block_is_in_use(rank: Rank) -> None:
    small = made_in(rank.pool(), lambda: torch.empty(5))
    made_in(rank.pool(), lambda: torch.empty(4 * M))
    rank.pool().trim()
    assert [segment.size for segment in rank.pool().segments] == [2 * M, 16 * M]
    assert lies_in(rank.pool(), small)


def test_close_frees_every_segment_but_those_in_use(rank: Rank) -> None:
    small = made_in(rank.pool(), lambda: torch.empty(5))
    made_in(rank.pool(), lambda: torch.empty(4 * M))
    rank.pool().close()
    assert [segment.size for segment in rank.pool().segments] == [2 * M]
    assert lies_in(rank.pool(), small)


# when memory runs out


def test_request_beyond_the_arena_runs_out_of_memory(rank: Rank) -> None:
    with pytest.raises(torch.OutOfMemoryError, match=f"no room for a segment of {ARENA_BYTES + 2 * M}"):
        made_in(rank.pool(), lambda: torch.empty(ARENA_BYTES + 1, dtype=torch.uint8))


def test_request_as_large_as_the_arena_is_served(rank: Rank) -> None:
    made_in(rank.pool(), lambda: torch.empty(ARENA_BYTES, dtype=torch.uint8))
    assert rank.pool().segments[0].size == ARENA_BYTES


def test_pool_out_of_memory_serves_again_once_something_is_freed(rank: Rank) -> None:
    half = made_in(rank.pool(), lambda: torch.empty(ARENA_BYTES // 2, dtype=torch.uint8))
    with pytest.raises(torch.OutOfMemoryError):
        made_in(rank.pool(), lambda: torch.empty(ARENA_BYTES // 2 + 1, dtype=torch.uint8))
    del half
    rank.pool().trim()
    made_in(rank.pool(), lambda: torch.empty(ARENA_BYTES // 2 + 1, dtype=torch.uint8))
    assert [segment.size for segment in rank.pool().segments] == [ARENA_BYTES // 2 + 2 * M]


def test_denied_segment_runs_out_of_memory_and_is_recorded(rank: Rank) -> None:
    rank.substrate.denial.is_due = True
    with pytest.raises(torch.OutOfMemoryError, match="pool 'tp' was refused a segment of 2097152 bytes"):
        made_in(rank.pool("tp"), lambda: torch.empty(5))
    assert rank.events == [SegmentDenied("tp", 2 * M)]


@pytest.mark.parametrize("name", FACTORIES)
def test_allocation_after_a_denied_one_works(name: str, rank: Rank) -> None:
    rank.substrate.denial.is_due = True
    with pytest.raises(torch.OutOfMemoryError):
        made_in(rank.pool(), FACTORIES[name])
    assert lies_in(rank.pool(), made_in(rank.pool(), FACTORIES[name]))


def test_denial_waits_for_the_next_segment(rank: Rank) -> None:
    first = made_in(rank.pool(), lambda: torch.empty(5))
    rank.substrate.denial.is_due = True
    second = made_in(rank.pool(), lambda: torch.empty(5))
    assert second.data_ptr() == first.data_ptr() + 512
    with pytest.raises(torch.OutOfMemoryError):
        made_in(rank.pool(), lambda: torch.empty(4 * M))


# the arena below


def test_arena_gives_a_freed_address_first(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    first, second = arena.take(2 * M), arena.take(2 * M)
    arena.give_back(first)
    assert (arena.take(2 * M), arena.take(2 * M)) == (first, second + 2 * M)


def test_arena_passes_over_a_gap_that_is_too_small(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    first, second = arena.take(2 * M), arena.take(2 * M)
    arena.give_back(first)
    assert (arena.take(4 * M), arena.take(2 * M)) == (second + 2 * M, first)


@pytest.mark.parametrize("is_falling", [False, True])
def test_arena_gives_a_freed_address_to_the_next_piece_of_that_size_whatever_fits_elsewhere(
    rank: Rank, is_falling: bool
) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0), is_falling)
    pieces = {size: arena.take(size) for size in (20 * M, 2 * M, 4 * M)}
    for address in pieces.values():
        arena.give_back(address)
    assert {size: arena.take(size) for size in (2 * M, 4 * M, 20 * M)} == pieces


def test_arena_forgets_a_freed_piece_of_which_a_part_is_taken(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    first, second = arena.take(4 * M), arena.take(2 * M)
    arena.give_back(first)
    assert arena.take(2 * M) == first
    assert arena.take(4 * M) == second + 2 * M


@pytest.mark.parametrize(("is_falling", "order"), [(False, [0, 1, 2]), (True, [2, 1, 0])])
def test_addresses_rise_or_fall_from_piece_to_piece(rank: Rank, is_falling: bool, order: list[int]) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0), is_falling)
    taken = [arena.take(2 * M) for _ in range(3)]
    assert sorted(range(3), key=lambda index: taken[index]) == order


def test_arena_joins_gaps_side_by_side(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    first, second, _ = (arena.take(2 * M) for _ in range(3))
    arena.give_back(second)
    arena.give_back(first)
    assert arena.take(4 * M) == first


def test_the_arena_knows_how_far_a_piece_reaches(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    address = arena.take(2 * M)
    assert [arena.behind(address + at) for at in (0, 512, 2 * M)] == [2 * M, 2 * M - 512, 0]


def test_pages_of_a_freed_segment_read_as_zero(rank: Rank) -> None:
    arena = Arena(rank.memory, rank.memory.arena(0))
    address = arena.take(2 * M)
    tensor_at(address, 8, torch.int32).fill_(7)
    arena.give_back(address)
    assert tensor_at(arena.take(2 * M), 8, torch.int32).tolist() == [0] * 8
