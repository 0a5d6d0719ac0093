"""The bookkeeping of a communicator: which window a look-up finds, what is recorded, which calls are eligible."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.substrate.communicator import RegistrationError, eligible
from harness.substrate.segment import Segment, Window
from harness.substrate.sim.communicator import SimCommunicator
from harness.trace.events import (
    CommCreated,
    CommDestroyed,
    Deregistered,
    Entered,
    Registered,
    RegistrationFailed,
    Returned,
)
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


# parts of segments, flags, and what fails


@pytest.fixture
def segment() -> Segment:
    return Segment(7, "pool", BASE, 3 * 4096)


def test_a_part_of_a_segment_is_registered_and_recorded_as_such(rank: Rank, segment: Segment) -> None:
    comm = rank.communicator()
    part = comm.register(segment, offset=4096, nbytes=4096)
    assert part is not None
    assert (part.address, part.size, part.segment) == (BASE + 4096, 4096, segment)
    assert rank.events[-1] == Registered(part.ident, comm.ident, 7, BASE + 4096, 4096, False)
    assert [found(comm, at) for at in (4095, 4096, 8191, 8192)] == [None, part, part, None]


def test_a_part_reaches_to_the_end_of_its_segment_unless_bytes_are_given(rank: Rank, segment: Segment) -> None:
    part = rank.communicator().register(segment, offset=4096)
    assert part is not None
    assert (part.address, part.size) == (BASE + 4096, 2 * 4096)


def test_a_window_without_the_flag_is_recorded_and_hides_others_all_the_same(rank: Rank, segment: Segment) -> None:
    comm = rank.communicator()
    whole, plain = comm.register(segment), comm.register(segment, offset=4096, symmetric=False)
    assert (whole is not None and whole.is_symmetric, plain is not None and plain.is_symmetric) == (True, False)
    assert rank.events[-1] == Registered(2, comm.ident, 7, BASE + 4096, 8192, False, False)
    assert found(comm, 4096) is plain


FAILS = {
    "no bytes": ({"nbytes": 0}, "0 bytes of segment 7 from byte 0 on are no range"),
    "negative bytes": ({"nbytes": -4096}, "-4096 bytes of segment 7 from byte 0 on are no range"),
    "behind, to the end": ({"offset": 4 * 4096}, "-4096 bytes of segment 7 from byte 16384 on are no range"),
    "in front": ({"offset": -4096}, "byte -4096 is not in segment 7 of 12288"),
    "behind": ({"offset": 3 * 4096, "nbytes": 1}, "byte 12288 is not in segment 7 of 12288"),
    "off a page": ({"offset": 512}, "byte 512 of segment 7 is no multiple of 4096"),
}


@pytest.mark.parametrize(("part", "text"), FAILS.values(), ids=FAILS)
def test_a_range_that_nccl_refuses_fails_with_its_error_and_is_recorded(
    rank: Rank, segment: Segment, part: dict[str, int], text: str
) -> None:
    comm, error = rank.communicator(), f"ncclInvalidArgument: {text}"
    for attempt in (comm.check, comm.register):
        with pytest.raises(RegistrationError, match=rf"^{error}$"):
            attempt(segment, **part)
    assert rank.events[1:] == [Entered("register", comm.ident), RegistrationFailed(comm.ident, 7, error)]
    assert (comm.windows, segment.windows) == ([], [])


@pytest.mark.parametrize("wrong", [{"symmetric": 1}, {"symmetric": None}, {"nbytes": 4096.0}], ids=str)
def test_what_no_range_or_flag_can_be_is_a_type_error_and_no_call(rank: Rank, segment: Segment, wrong: Any) -> None:
    comm = rank.communicator()
    with pytest.raises(TypeError):
        comm.register(segment, **wrong)
    assert rank.events == [CommCreated(comm.ident, (0,), 0, True)]


def test_a_range_that_fits_passes_and_nothing_is_recorded_of_the_look(rank: Rank, segment: Segment) -> None:
    comm = rank.communicator()
    comm.check(segment, offset=4096, nbytes=1)
    assert rank.events == [CommCreated(comm.ident, (0,), 0, True)]


def test_without_window_support_only_an_empty_range_fails(rank: Rank, segment: Segment) -> None:
    """NCCL looks at nothing else before it returns its null window."""
    comm = rank.communicator(windows=False)
    comm.refusal.is_due = True
    assert comm.register(segment, offset=512) is None
    with pytest.raises(RegistrationError, match="0 bytes"):
        comm.register(segment, nbytes=0)


def test_a_refused_segment_fails_with_every_communicator_and_others_do_not(rank: Rank, segment: Segment) -> None:
    comm, other = rank.communicator(), rank.communicator(slot=1)
    other.refusal = comm.refusal
    comm.refusal.is_due = True
    for attempt in (comm.check, comm.register, other.register):
        with pytest.raises(RegistrationError, match=r"^ncclUnhandledCudaError: the memory of segment 7 was refused$"):
            attempt(segment)
    assert comm.register(Segment(8, "pool", BASE, 4096)) is not None


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
        ("all_reduce", torch.bfloat16, "sum", 2, True),
        ("all_reduce", torch.bfloat16, "avg", 2, False),
        ("all_reduce", torch.float64, "sum", 2, False),
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
