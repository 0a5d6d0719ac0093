"""Sends and all-to-alls of a recording, of which one side alone is registered: nobody looked at the data."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.trace.events import (
    Called,
    CommCreated,
    CommDestroyed,
    Event,
    LocallyRegistered,
    Operand,
    PointToPoint,
    Ran,
    Registered,
)
from tests.tools.recordings import CP, LEGACY, TP, Step, allocated, comm, recording, registered, within

LARGE, STAGED = 16400, 16384
OUTSIDE = Operand("ordinary memory", 7 << 40, LARGE)
SETUP = Step("the start", (comm(TP), comm(CP), allocated(3), *registered(TP, 3)))


def sized(operand: Operand, size: int = LARGE) -> Operand:
    return msgspec.structs.replace(operand, size=size)


INSIDE = sized(within(3))


def end(operand: Operand, sender: int = 0, number: int = 0, comm: int = TP) -> Event:
    return PointToPoint(comm, operand, sender, 1 - sender, number)


def found(first: Event, second: Event, *before: Event, hosts: tuple[str, ...] = ()) -> list[Finding]:
    """What rank 0 did at its step and rank 1, after other events, at another."""
    ranks = (SETUP, Step("send 1 (a.py:1 f)", (first,))), (SETUP, Step("recv 1 (b.py:2 g)", (*before, second)))
    return judge(msgspec.structs.replace(recording(*ranks), hosts=hosts))


def test_both_ends_of_a_send_are_named() -> None:
    (finding,) = found(end(INSIDE), end(OUTSIDE))
    assert str(finding) == (
        "half-registered: send 1 (a.py:1 f) on tp[0,1], which meets recv 1 (b.py:2 g): rank 0 sends 16400 bytes of "
        "segment 3 + 4096 to ordinary memory of rank 1. tp[0,1] finds the memory of rank 0 in a window, and that of "
        "rank 1 in none. NCCL wants both sides registered, or neither. It may move more than 16384 bytes past its own "
        "buffers, and then loses them, writes over the source, or hangs. The data was not looked at, so whether it "
        "did is not known."
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (end(INSIDE), end(INSIDE)),
        (end(OUTSIDE), end(OUTSIDE)),
        (end(sized(INSIDE, STAGED)), end(sized(OUTSIDE, STAGED))),
        (end(INSIDE), end(OUTSIDE, number=1)),
        (end(INSIDE), end(OUTSIDE, sender=1)),
        (end(INSIDE), end(OUTSIDE, comm=CP)),
        (end(INSIDE, comm=CP), end(OUTSIDE, comm=CP)),
    ],
    ids=["inside", "outside", "staged", "other numbers", "other ways", "two communicators", "another's window"],
)
def test_other_sends_are_right(first: Event, second: Event) -> None:
    assert found(first, second) == []


@pytest.mark.parametrize(("hosts", "times"), [((), 1), (("a", "a"), 1), (("a", "b"), 0)])
def test_ranks_have_to_be_on_one_host_if_that_is_known(hosts: tuple[str, ...], times: int) -> None:
    assert len(found(end(INSIDE), end(OUTSIDE), hosts=hosts)) == times


@pytest.mark.parametrize(("start", "times"), [(OUTSIDE.address + LARGE - 1, 0), (OUTSIDE.address + LARGE, 1)])
def test_memory_that_is_registered_without_a_window_is_not_outside(start: int, times: int) -> None:
    assert len(found(end(INSIDE), end(OUTSIDE), LocallyRegistered(TP, start, 4096))) == times


def test_a_null_window_may_have_registered_its_memory() -> None:
    null = Registered(77, TP, -1, OUTSIDE.address, LARGE, True)
    assert [each.rule for each in found(end(INSIDE), end(OUTSIDE), null)] != ["half-registered"]


def test_windows_of_a_communicator_that_is_gone_register_nothing_with_the_next() -> None:
    again = CommDestroyed(TP), CommCreated(2, (0, 1), 1, True, 0)
    new = Step("again", (*again, *registered(2, 3, window=90)))
    ranks = [
        (SETUP, new, Step("send 1", (end(INSIDE, comm=2),))),
        (SETUP, Step("again", again), Step("recv 1", (end(INSIDE, comm=2),))),
    ]
    assert "half-registered" in [each.rule for each in judge(recording(*ranks))]


def all_to_all(
    source: Operand, output: Operand, ran: Ran | None = LEGACY, sent: tuple[int, ...] | None = (8200, 8200)
) -> Step:
    source, output = sized(source, 2 * LARGE), sized(output, 2 * LARGE)
    facts = "all_to_all", "bfloat16", None, 8200, "library", "tp", ()
    made = Called(TP, source, output, *facts, claims=False, sent=sent)  # type: ignore[arg-type]
    return Step("all_to_all 1 (a.py:1 f)", (made, *([] if ran is None else [ran])))


FURTHER = within(3, 1 << 20)


def test_an_all_to_all_needs_no_loss_to_be_named() -> None:
    (finding,) = judge(recording((SETUP, all_to_all(INSIDE, FURTHER)), (SETUP, all_to_all(INSIDE, OUTSIDE))))
    assert "finds the memory of rank 0 in a window over both of its operands, and on rank 1 over one" in str(finding)


@pytest.mark.parametrize(
    "ranks",
    [
        (all_to_all(INSIDE, FURTHER), all_to_all(FURTHER, INSIDE)),
        (all_to_all(INSIDE, OUTSIDE), all_to_all(OUTSIDE, INSIDE)),
        (all_to_all(INSIDE, FURTHER, sent=None), all_to_all(INSIDE, OUTSIDE, sent=None)),
        (all_to_all(INSIDE, FURTHER, Ran("copy engine", "NCCL's word")), all_to_all(INSIDE, OUTSIDE)),
    ],
    ids=["both operands of each", "one operand of each", "captured", "by copy engines"],
)
def test_other_all_to_alls_are_right(ranks: tuple[Step, ...]) -> None:
    assert judge(recording(*((SETUP, step) for step in ranks))) == []
