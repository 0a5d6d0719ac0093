"""The bookkeeping of a communicator: which window a look-up finds, what is recorded, which calls are eligible."""

from __future__ import annotations

import pytest
import torch

from harness.substrate.communicator import eligible
from harness.substrate.segment import Segment, Window
from harness.substrate.sim.communicator import SimCommunicator
from harness.trace.events import CommCreated, CommDestroyed, Deregistered, Entered, Registered, Returned
from tests.tools.one_rank import Rank

BASE = 1 << 20


def window(comm: SimCommunicator, start: int, end: int) -> Window:
    """A window over [BASE + start, BASE + end)."""
    made = comm.register(Segment(0, "pool", BASE + start, end - start))
    assert made is not None
    return made


def found(comm: SimCommunicator, offset: int) -> Window | None:
    return comm.find_window(BASE + offset)


@pytest.mark.parametrize(("offset", "inside"), [(-1, False), (0, True), (4095, True), (4096, False)])
def test_window_is_found_from_its_base_up_to_its_end(offset: int, inside: bool, rank: Rank) -> None:
    comm = rank.communicator()
    whole = window(comm, 0, 4096)
    assert found(comm, offset) is (whole if inside else None)


@pytest.mark.parametrize("reverse", [False, True], ids=["outer first", "inner first"])
def test_of_two_windows_over_an_address_the_one_with_the_higher_base_is_found(reverse: bool, rank: Rank) -> None:
    comm = rank.communicator()
    spans = [(0, 8192), (1024, 2048)]
    windows = {span: window(comm, *span) for span in (spans[::-1] if reverse else spans)}
    assert [found(comm, offset) for offset in (1023, 1024, 2047)] == [windows[spans[i]] for i in (0, 1, 1)]


def test_inner_window_hides_the_outer_one_behind_its_own_end(rank: Rank) -> None:
    comm = rank.communicator()
    window(comm, 0, 8192)
    window(comm, 1024, 2048)
    assert found(comm, 2048) is None


def test_hidden_window_is_found_again_once_the_inner_one_is_closed(rank: Rank) -> None:
    comm = rank.communicator()
    outer, inner = window(comm, 0, 8192), window(comm, 1024, 2048)
    inner.close()
    assert (found(comm, 1024), found(comm, 2048)) == (outer, outer)


def test_of_two_windows_that_overlap_the_higher_one_is_found_from_its_base_on(rank: Rank) -> None:
    comm = rank.communicator()
    low, high = window(comm, 0, 2048), window(comm, 1024, 4096)
    assert [found(comm, offset) for offset in (1023, 1024, 2048, 4095)] == [low, high, high, high]


def test_window_of_another_communicator_is_not_found(rank: Rank) -> None:
    window(rank.communicator(), 0, 4096)
    assert found(rank.communicator(slot=1), 0) is None


def test_closed_window_is_not_found(rank: Rank) -> None:
    comm = rank.communicator()
    window(comm, 0, 4096).close()
    assert found(comm, 0) is None


def test_window_dies_with_its_communicator(rank: Rank) -> None:
    comm = rank.communicator()
    whole = window(comm, 0, 4096)
    comm.destroyed()
    assert (found(comm, 0), whole.is_valid, whole.segment.windows) == (None, False, [])
    assert rank.events[-1] == CommDestroyed(comm.ident)


def test_window_of_another_communicator_outlives_it(rank: Rank) -> None:
    comm, other = rank.communicator(), rank.communicator(slot=1)
    segment = Segment(0, "pool", BASE, 4096)
    comm.register(segment)
    second = other.register(segment)
    comm.destroyed()
    assert segment.windows == [second]
    assert found(other, 0) is second


def test_registration_without_support_succeeds_with_a_null_window(rank: Rank) -> None:
    comm = rank.communicator(windows=False)
    assert comm.register(Segment(7, "pool", BASE, 4096)) is None
    assert rank.events[-1] == Registered(1, comm.ident, 7, BASE, 4096, True)
    assert found(comm, 0) is None


def test_life_of_a_window_is_recorded(rank: Rank) -> None:
    comm = rank.communicator()
    whole = window(comm, 0, 4096)
    whole.close()
    whole.close()
    assert rank.events == [
        CommCreated(0, (0,), 0, True),
        Entered("register", 0),
        Registered(1, 0, 0, BASE, 4096, False),
        Deregistered(1),
    ]


@pytest.mark.parametrize(
    ("kind", "dtype", "op", "size", "expected"),
    [
        ("all_gather", torch.float32, None, 2, True),
        ("all_gather", torch.int32, None, 2, True),
        ("all_gather", torch.float8_e5m2, None, 2, True),
        ("all_gather", torch.float32, None, 1, False),
        ("reduce_scatter", torch.bfloat16, "sum", 2, True),
        ("reduce_scatter", torch.float16, "avg", 2, True),
        ("reduce_scatter", torch.float8_e4m3fn, "sum", 2, True),
        ("reduce_scatter", torch.float32, "max", 2, False),
        ("reduce_scatter", torch.int32, "sum", 2, False),
        ("reduce_scatter", torch.float32, "sum", 1, False),
    ],
)
def test_eligible_calls_are_those_that_nccl_has_symmetric_kernels_for(
    kind: str, dtype: torch.dtype, op: str | None, size: int, expected: bool
) -> None:
    assert eligible(kind, dtype, op, size) is expected


# collective calls, on one rank


def test_words_of_all_ranks_are_exchanged_and_the_return_is_recorded(rank: Rank) -> None:
    comm = rank.communicator()
    rank.events.clear()
    assert comm.exchange(-7) == [-7]
    assert rank.events == [Entered("exchange", comm.ident), Returned("exchange", comm.ident)]
