"""Rendezvous: nobody passes a meeting point before everyone has come, and a deadlock is told from slowness."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from harness.ipc.memory import AGREE, CALL, CLOSING, HOST, LEGACY, PAD, REGISTER, SharedMemory
from harness.ipc.rendezvous import Rendezvous, deadlocked
from harness.scenario.layouts.groups import Group

SLOT = 5
PAIR: Group = (0, 1)
TURNED: Group = (1, 0)
WAIT = 20.0


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(3)
    yield memory
    memory.close()


def beside(call: Callable[[], object]) -> threading.Thread:
    """Run a call on a thread of its own, as another rank does in its process."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.001)


def member(shared: SharedMemory, rank: int, group: Group = PAIR) -> Rendezvous:
    return Rendezvous(shared, SLOT, group, rank)


def is_noted(shared: SharedMemory, rank: int) -> bool:
    return bool(shared.waiting[rank, 0])


# meeting


def test_a_rank_passes_only_when_every_member_has_come(shared: SharedMemory) -> None:
    happened: list[str] = []

    def first() -> None:
        member(shared, 0).meet(HOST)
        happened.append("first passes")

    thread = beside(first)
    until(lambda: is_noted(shared, 0))
    time.sleep(0.05)
    happened.append("second comes")
    member(shared, 1).meet(HOST)
    thread.join(WAIT)
    assert happened == ["second comes", "first passes"]


def test_a_group_of_one_passes_at_once(shared: SharedMemory) -> None:
    thread = beside(lambda: member(shared, 2, (2,)).meet(HOST))
    thread.join(WAIT)
    assert not thread.is_alive()


def test_members_stay_in_step_over_many_meetings(shared: SharedMemory) -> None:
    rounds = [0, 0]
    ahead: list[int] = []

    def play(rank: int) -> None:
        mine = member(shared, rank)
        for number in range(1, 101):
            rounds[rank] = number
            mine.meet(HOST)
            ahead.append(number - rounds[1 - rank])
            mine.meet(HOST)

    thread = beside(lambda: play(0))
    play(1)
    thread.join(WAIT)
    assert ahead == [0] * 200


def test_a_meeting_in_one_field_releases_nobody_in_another(shared: SharedMemory) -> None:
    thread = beside(lambda: member(shared, 0).meet(HOST))
    until(lambda: is_noted(shared, 0))
    other = beside(lambda: member(shared, 1).meet(LEGACY))
    until(lambda: is_noted(shared, 1))
    thread.join(0.1)
    still = thread.is_alive(), other.is_alive()
    member(shared, 1).meet(HOST)  # so that both threads end with the test
    member(shared, 0).meet(LEGACY)
    assert still == (True, True)


def test_a_meeting_of_one_group_releases_nobody_in_another(shared: SharedMemory) -> None:
    thread = beside(lambda: member(shared, 0).meet(HOST))
    until(lambda: is_noted(shared, 0))
    Rendezvous(shared, SLOT + 1, (1,), 1).meet(HOST)
    thread.join(0.1)
    still = thread.is_alive()
    member(shared, 1).meet(HOST)
    assert still


@pytest.mark.parametrize("group", [PAIR, TURNED])
def test_exchange_gives_every_members_words_in_group_order(shared: SharedMemory, group: Group) -> None:
    found = {}

    def give(rank: int) -> None:
        found[rank] = member(shared, rank, group).exchange(AGREE, 100 + rank, -rank).tolist()

    thread = beside(lambda: give(0))
    give(1)
    thread.join(WAIT)
    words = [[100 + rank, -rank] for rank in group]
    assert found == {0: words, 1: words}


def test_exchange_hands_out_what_a_later_one_cannot_change(shared: SharedMemory) -> None:
    alone = member(shared, 2, (2,))
    first = alone.exchange(AGREE, 1)
    alone.exchange(AGREE, 2)
    assert first.tolist() == [[1]]


@pytest.mark.parametrize("other", [HOST, REGISTER])
def test_an_exchange_is_met_by_no_other_rendezvous(shared: SharedMemory, other: int) -> None:
    found: list[list[list[int]]] = []
    thread = beside(lambda: found.append(member(shared, 0).exchange(AGREE, 7).tolist()))
    late = beside(lambda: member(shared, 1).meet(other))
    thread.join(0.2)
    assert (found, thread.is_alive(), late.is_alive()) == ([], True, True)
    member(shared, 1).exchange(AGREE, 8)
    member(shared, 0).meet(other)
    thread.join(WAIT)
    assert found == [[[7], [8]]]


def test_exchanges_in_a_row_never_mix(shared: SharedMemory) -> None:
    rounds = range(300)
    found: dict[int, list[list[list[int]]]] = {0: [], 1: []}

    def give(rank: int) -> None:
        mine = member(shared, rank)
        found[rank] += [mine.exchange(AGREE, number).tolist() for number in rounds]

    thread = beside(lambda: give(0))
    give(1)
    thread.join(WAIT)
    expected = [[[number], [number]] for number in rounds]
    assert found == {0: expected, 1: expected}


def test_epochs_grow_by_one_on_each_rank_by_itself(shared: SharedMemory) -> None:
    zero, one = member(shared, 0), member(shared, 1)
    assert [zero.next_epoch(), zero.next_epoch(), one.next_epoch()] == [1, 2, 1]


def test_epochs_of_plug_ins_and_of_the_kernel_barrier_are_counted_apart(shared: SharedMemory) -> None:
    zero = member(shared, 0)
    assert [zero.next_barrier(), zero.next_epoch(), zero.next_barrier()] == [1, 1, 2]


def test_a_member_that_restarts_counts_its_epochs_from_one_and_its_peer_goes_on(shared: SharedMemory) -> None:
    zero, one = member(shared, 0), member(shared, 1)
    for each in (zero, one):
        each.next_epoch(), each.next_barrier()
    zero.restart()
    assert [zero.next_epoch(), zero.next_barrier(), one.next_epoch(), one.next_barrier()] == [1, 1, 2, 2]


def test_a_waiting_rank_has_written_down_for_what(shared: SharedMemory) -> None:
    thread = beside(lambda: member(shared, 0).meet(CLOSING))
    until(lambda: is_noted(shared, 0))
    noted = shared.waiting[0, :3].tolist()
    member(shared, 1).meet(CLOSING)
    thread.join(WAIT)
    assert noted == [SLOT + 1, CLOSING, 1]


def test_a_rank_that_passed_waits_for_nothing(shared: SharedMemory) -> None:
    thread = beside(lambda: member(shared, 0).meet(HOST))
    until(lambda: is_noted(shared, 0))
    member(shared, 1).meet(HOST)
    thread.join(WAIT)
    assert not is_noted(shared, 0)


# deadlock: `note` and the counters stand for ranks that wait


def waits(shared: SharedMemory, rank: int, field: int, target: int = 1) -> None:
    """Put a rank where `meet` leaves one that waits: it has come itself, and noted what it waits for."""
    if field != PAD:
        shared.counters[SLOT, PAIR.index(rank), field] = target
    member(shared, rank).note(field, target)


def is_deadlock(shared: SharedMemory, *ranks: int) -> bool:
    return deadlocked(shared, {SLOT: PAIR}, [*ranks])


def test_ranks_that_wait_in_different_fields_are_deadlocked(shared: SharedMemory) -> None:
    waits(shared, 0, HOST)
    waits(shared, 1, LEGACY)
    assert is_deadlock(shared, 0, 1)


def test_a_rank_that_waits_for_one_that_has_ended_is_deadlocked(shared: SharedMemory) -> None:
    waits(shared, 0, HOST)
    assert is_deadlock(shared, 0)


def test_a_call_of_a_library_that_waits_for_a_rank_which_has_ended_is_deadlocked(shared: SharedMemory) -> None:
    with member(shared, 0).within(REGISTER):
        assert is_deadlock(shared, 0)
    assert not is_deadlock(shared, 0)


def test_no_deadlock_in_a_call_of_a_library_that_every_member_makes(shared: SharedMemory) -> None:
    with member(shared, 0).within(REGISTER), member(shared, 1).within(REGISTER):
        assert not is_deadlock(shared, 0, 1)


def test_ranks_in_the_same_call_of_a_library_that_one_made_more_often_are_deadlocked(shared: SharedMemory) -> None:
    with member(shared, 0).within(REGISTER):
        pass
    with member(shared, 0).within(REGISTER), member(shared, 1).within(REGISTER):
        assert not is_deadlock(shared, 1)
        assert is_deadlock(shared, 0)


def test_a_call_of_a_library_that_raised_is_not_counted(shared: SharedMemory) -> None:
    with pytest.raises(RuntimeError), member(shared, 1).within(REGISTER):
        raise RuntimeError
    with member(shared, 0).within(REGISTER):
        assert is_deadlock(shared, 0)
        assert not is_noted(shared, 1)


def test_a_rank_that_met_others_inside_a_call_of_a_library_still_waits_for_that_call(shared: SharedMemory) -> None:
    with member(shared, 0).within(CALL):
        thread = beside(lambda: member(shared, 0).meet(AGREE))
        until(lambda: int(shared.waiting[0, 1]) == AGREE)
        member(shared, 1).meet(AGREE)
        thread.join(WAIT)
        assert is_deadlock(shared, 0)
        assert tuple(shared.waiting[0, :3]) == (SLOT + 1, CALL, 1)
    assert not is_noted(shared, 0)


def test_no_deadlock_while_one_rank_works(shared: SharedMemory) -> None:
    waits(shared, 0, HOST)
    assert not is_deadlock(shared, 0, 1)


def test_no_deadlock_when_what_a_rank_waits_for_has_come(shared: SharedMemory) -> None:
    waits(shared, 0, HOST)
    waits(shared, 1, HOST)
    assert not is_deadlock(shared, 0, 1)


def test_no_deadlock_in_a_group_that_the_draw_does_not_know(shared: SharedMemory) -> None:
    waits(shared, 0, HOST)
    assert not deadlocked(shared, {SLOT + 1: PAIR}, [0])


def test_no_deadlock_among_no_ranks(shared: SharedMemory) -> None:
    assert not is_deadlock(shared)


def test_a_kernel_that_waits_for_a_rank_which_has_ended_is_deadlocked(shared: SharedMemory) -> None:
    waits(shared, 0, PAD)
    shared.barriers[SLOT, 0, 0] = 1  # its own signal
    assert is_deadlock(shared, 0)


def test_a_kernel_that_waits_for_a_rank_in_another_meeting_is_deadlocked(shared: SharedMemory) -> None:
    waits(shared, 0, PAD)
    waits(shared, 1, HOST)
    assert is_deadlock(shared, 0, 1)


def test_no_deadlock_while_the_late_rank_is_about_to_leave_the_barrier_before(shared: SharedMemory) -> None:
    waits(shared, 0, PAD, target=2)
    waits(shared, 1, PAD, target=1)
    shared.barriers[SLOT, :2, :2] = [[2, 1], [2, 1]]
    assert not is_deadlock(shared, 0, 1)


def test_a_kernel_that_waits_for_a_rank_stuck_in_the_barrier_before_is_deadlocked(shared: SharedMemory) -> None:
    """Rank 2 has ended without its signal to rank 1, for which rank 0 waits in the next barrier."""
    group = (0, 1, 2)
    for rank, epoch in ((0, 2), (1, 1)):
        member(shared, rank, group).note(PAD, epoch)
    shared.barriers[SLOT, :2] = [[2, 1, 2], [2, 1, 0]]
    assert deadlocked(shared, {SLOT: group}, [0, 1])


def test_no_deadlock_while_the_late_rank_is_in_the_same_barrier_kernel(shared: SharedMemory) -> None:
    waits(shared, 0, PAD)
    waits(shared, 1, PAD)
    assert not is_deadlock(shared, 0, 1)


def test_no_deadlock_when_every_signal_has_come(shared: SharedMemory) -> None:
    waits(shared, 0, PAD)
    shared.barriers[SLOT, 0, :2] = 1
    assert not is_deadlock(shared, 0)
