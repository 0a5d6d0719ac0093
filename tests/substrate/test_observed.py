"""What a policy does with NCCL by itself, as a script of facts: the events are those of the harness's own pools."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.errors import UsageError
from harness.machine.observer import facts
from harness.substrate.observed import NAME
from harness.trace import events as trace
from harness.trace.events import Event
from tests.tools.one_rank import Rank, memory, rank
from tests.tools.overheard import Heard, Waits

__all__ = ["memory", "rank"]

SIZE, AT, WINDOW = 2 << 20, 0x10000000, 0x77
OURS, ANOTHER = 4, 5
"""Numbers that the observer gave to communicators."""
POINTERS = {OURS: (3 << 20) | 1, ANOTHER: 0xBEEF}
ALLOCATED = facts.Allocated(address=AT, size=SIZE)
ENTERED = facts.RegisterEntered(comm=OURS, address=AT, size=SIZE, flags=1)
REGISTERED = facts.Registered(comm=OURS, address=AT, size=SIZE, flags=1, window=WINDOW)
DEREGISTERED = facts.Deregistered(comm=OURS, window=WINDOW)
FREED = facts.Freed(address=AT, is_held=False)


class Orders:
    """What is asked of the observer."""

    def __init__(self) -> None:
        self.refused: list[int | None] = []

    def address(self, comm: int) -> int | None:
        return POINTERS.get(comm)

    def refuse(self, address: int | None) -> None:
        self.refused.append(address)


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture
def heard(rank: Rank, orders: Orders) -> Heard:
    return Heard(rank, orders)


def waiting(heard: Heard) -> int:
    """The registrations for which the rank waits."""
    assert isinstance(heard.communicator, Waits)
    return heard.communicator.waiting


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_segments_life_is_written_as_that_of_a_pool_of_the_harness(heard: Heard) -> None:
    segment, ours, window = 1, 0, 2
    assert heard.hear(ALLOCATED, ENTERED, REGISTERED, DEREGISTERED, FREED) == [
        trace.SegmentAllocated(segment, NAME, AT, SIZE),
        trace.Entered("register", ours),
        trace.Registered(window, ours, segment, AT, SIZE, is_null=False),
        trace.Deregistered(window),
        trace.SegmentFreed(segment, ()),
    ]


def test_a_policys_own_registration_reads_as_one_through_the_harness(heard: Heard, rank: Rank) -> None:
    by_itself = [*heard.hear(ALLOCATED, ENTERED, REGISTERED)]
    rank.substrate.recorder.start(rank.events.append)
    again = Heard(rank, Orders())
    again.communicator.register(again.pool.allocated(AT, SIZE))
    assert again.events == by_itself


def test_a_live_window_is_found_by_address_with_its_handle(heard: Heard) -> None:
    heard.hear(ALLOCATED, ENTERED, REGISTERED)
    found = heard.communicator.find_window(AT + 5)
    assert found is not None
    assert (found.handle, found.size) == (("handle", WINDOW), SIZE)


def test_a_registration_is_written_before_it_waits_and_noted_as_long_as_it_does(heard: Heard) -> None:
    assert kinds(heard.hear(ALLOCATED, ENTERED)) == ["SegmentAllocated", "Entered"]
    before = waiting(heard)
    heard.hear(REGISTERED)
    assert (before, waiting(heard)) == (1, 0)


def test_registrations_in_a_group_of_calls_are_waited_for_as_one(heard: Heard) -> None:
    behind = facts.RegisterEntered(comm=OURS, address=AT + SIZE, size=SIZE, flags=1)
    heard.hear(ALLOCATED, facts.Allocated(address=AT + SIZE, size=SIZE), ENTERED, behind)
    assert waiting(heard) == 1
    heard.hear(facts.Registered(comm=OURS, address=AT + SIZE, size=SIZE, flags=1, window=WINDOW + 1), REGISTERED)
    assert (waiting(heard), len(heard.communicator.windows)) == (0, 2)


def test_a_part_of_a_segment_and_a_flag_are_kept(heard: Heard) -> None:
    part = facts.Registered(comm=OURS, address=AT + 4096, size=8192, flags=0, window=WINDOW)
    last = heard.hear(ALLOCATED, part)[-1]
    assert last == trace.Registered(2, 0, 1, AT + 4096, 8192, is_null=False, is_symmetric=False)


def test_a_window_of_zero_is_a_null_window(heard: Heard) -> None:
    null = facts.Registered(comm=OURS, address=AT, size=SIZE, flags=1, window=0)
    last = heard.hear(ALLOCATED, ENTERED, null)[-1]
    assert (last, heard.communicator.windows) == (trace.Registered(2, 0, 1, AT, SIZE, is_null=True), [])


def test_a_registration_that_fails_names_nccls_error(heard: Heard) -> None:
    failed = facts.RegisterFailed(comm=OURS, address=AT, size=SIZE, flags=1, result=5)
    last = heard.hear(ALLOCATED, ENTERED, failed)[-1]
    assert last == trace.RegistrationFailed(0, 1, "ncclInvalidUsage: from a registration of segment 1")
    assert waiting(heard) == 0


def test_a_segment_that_goes_under_a_window_is_written_with_it(heard: Heard) -> None:
    assert heard.hear(ALLOCATED, ENTERED, REGISTERED, FREED)[-1] == trace.SegmentFreed(1, (2,))


def test_a_denied_allocation_uses_the_step_up_and_one_for_want_of_memory_does_not(heard: Heard) -> None:
    heard.substrate.deny()
    real = facts.AllocationFailed(size=SIZE, result=1, denied=False)
    denied = facts.AllocationFailed(size=SIZE, result=1, denied=True)
    assert heard.hear(real, denied) == [trace.SegmentDenied(NAME, SIZE)]
    assert (heard.substrate.denial.is_due, heard.pool.refusals) == (False, 2)


def test_a_refused_segment_is_refused_at_every_registration_and_no_other_is(heard: Heard, orders: Orders) -> None:
    heard.substrate.refusal.is_due = True
    behind = facts.RegisterEntered(comm=OURS, address=AT + SIZE, size=SIZE, flags=1)
    events = heard.hear(ALLOCATED, facts.Allocated(address=AT + SIZE, size=SIZE), ENTERED, behind, ENTERED)
    assert orders.refused == [AT, None, AT]
    assert [event for event in events if isinstance(event, trace.Unregistrable)] == [trace.Unregistrable(1)]


def test_a_communicator_that_the_policy_destroys_is_gone_with_its_windows(heard: Heard) -> None:
    gone = facts.CommGone(comm=OURS, how="destroy")
    assert heard.hear(ALLOCATED, ENTERED, REGISTERED, gone)[-1] == trace.CommDestroyed(0)
    assert heard.communicator.windows == []


@pytest.mark.parametrize("how", ["finalize", "revoke"])
def test_a_communicator_lives_until_it_is_destroyed(heard: Heard, how: str) -> None:
    before = [*heard.hear(ALLOCATED, ENTERED, REGISTERED)]
    assert heard.hear(facts.CommGone(comm=OURS, how=how)) == before


def test_an_unknown_communicator_is_an_error_that_names_it(heard: Heard) -> None:
    heard.hear(ALLOCATED, facts.RegisterEntered(comm=ANOTHER, address=AT, size=SIZE, flags=1))
    with pytest.raises(UsageError, match="a communicator at 0xbeef, which is none of the draw's groups'"):
        heard.overheard.raise_pending()


def test_memory_of_no_segment_is_an_error_that_names_it(heard: Heard) -> None:
    heard.hear(ENTERED)
    with pytest.raises(UsageError, match=f"registered memory at {AT:#x}, which ncclMemAlloc did not give it"):
        heard.overheard.raise_pending()


def test_an_error_is_raised_once_and_the_first_one_counts(heard: Heard) -> None:
    heard.hear(ENTERED, facts.RegisterEntered(comm=ANOTHER, address=AT, size=SIZE, flags=1))
    with pytest.raises(UsageError, match="ncclMemAlloc did not give it"):
        heard.overheard.raise_pending()
    heard.overheard.raise_pending()


def test_what_is_from_before_the_draw_leaves_no_event(heard: Heard) -> None:
    assert heard.hear(FREED, DEREGISTERED, facts.CommGone(comm=OURS, how="destroy")) == []


def test_facts_of_no_pool_leave_no_event(heard: Heard) -> None:
    made = facts.CommCreated(comm=9, identity=1, size=2, rank=0, how="init")
    assert heard.hear(made, facts.Unobserved(path="/opt/libnccl.so.2")) == []
    heard.overheard.raise_pending()


def test_a_group_that_has_another_communicator_now_is_looked_up_again(heard: Heard, rank: Rank) -> None:
    heard.communicator.destroyed()
    heard.communicator = rank.communicator(slot=3)
    last = heard.hear(ALLOCATED, ENTERED)[-1]
    assert last == trace.Entered("register", heard.communicator.ident)
