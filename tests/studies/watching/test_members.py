"""Which process is which rank, and which communicator has which ranks and name."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.machine.observer.records import CommCreated, CommGone, Fact, Registered
from harness.studies.watching.members import members_of
from tests.tools.recorded import comm, process


def world(*made: list[Fact]) -> list[str]:
    return [team.label for team in members_of([process(facts, rank) for rank, facts in enumerate(made)]).whole]


def test_ranks_are_those_of_the_environment() -> None:
    found = members_of([process([comm(0, 0)], 1), process([comm(0, 1)], 0)])
    assert [each.pid for each in found.processes] == [100, 101]
    assert [team.group for team in found.whole] == [(1, 0)]


def test_without_an_environment_a_communicator_of_all_gives_the_ranks() -> None:
    found = members_of([process([comm(0, 1)], pid=5), process([comm(0, 0)], pid=9)])
    assert [each.pid for each in found.processes] == [9, 5]


def test_without_either_processes_are_numbered() -> None:
    processes = [process([comm(0, rank % 2, identity=7 + rank // 2)], pid=rank) for rank in range(4)]
    assert [team.group for team in members_of(processes).whole] == [(0, 1), (2, 3)]


def test_a_process_without_a_communicator_is_no_rank() -> None:
    found = members_of([process([], pid=1), process([comm(0, 0)], 0), process([comm(0, 1)], 1)])
    assert len(found.processes) == 2


def test_communicators_have_the_names_that_the_program_gave() -> None:
    assert world([comm(0, 0, name="tp")], [comm(0, 1, name="tp")]) == ["tp[0,1]"]


def test_disjoint_groups_are_one_family_and_others_are_not() -> None:
    made: list[list[Fact]] = [
        [comm(0, rank % 2, identity=10 + rank // 2), comm(1, rank, 4, identity=20)] for rank in range(4)
    ]
    assert world(*made) == ["comm[0,1]", "comm[2,3]", "comm-2[0,1,2,3]"]


def test_two_communicators_over_the_same_ranks_are_two_families() -> None:
    found = members_of([process([comm(0, rank), comm(1, rank)], rank) for rank in range(2)])
    assert [(team.label, team.number) for team in found.whole] == [("comm[0,1]", 0), ("comm-2[0,1]", 1)]


def test_one_that_is_made_after_another_has_gone_takes_its_place() -> None:
    facts = [comm(0, 0), CommGone(0, "destroy"), comm(1, 0)], [comm(0, 1), CommGone(0, "destroy"), comm(1, 1)]
    found = members_of([process(each, rank) for rank, each in enumerate(facts)])
    assert [(team.label, team.generation) for team in found.whole] == [("comm[0,1]", 0), ("comm[0,1]", 1)]


def test_finalizing_does_not_end_a_communicator() -> None:
    facts = [comm(0, 0), CommGone(0, "finalize"), comm(1, 0)], [comm(0, 1), CommGone(0, "finalize"), comm(1, 1)]
    assert world(*facts) == ["comm[0,1]", "comm-2[0,1]"]


@pytest.mark.parametrize(
    "created", [comm(1, 0, result=5), comm(1, 0, size=0), CommCreated(1, 0, 2, 0, "unknown")], ids=lambda each: each.how
)
def test_what_did_not_come_into_being_is_no_communicator(created: Fact) -> None:
    assert len(world([comm(0, 0), created], [comm(0, 1)])) == 1


def test_a_communicator_of_which_a_rank_was_not_recorded_is_not_judged() -> None:
    found = members_of([process([comm(0, 0), comm(1, 2, 3)], 0), process([comm(0, 1)], 1)])
    assert ([team.label for team in found.whole], [team.missing for team in found.teams]) == (
        ["comm[0,1]"],
        [(), (0, 1)],
    )


def test_windows_are_what_registrations_gave() -> None:
    null = Registered(0, 1, 2, 1, 0)
    found = members_of([process([comm(0, rank), comm(1, rank), null], rank) for rank in range(2)])
    assert [team.has_windows for team in found.whole] == [False, True]


def test_without_a_registration_a_group_over_hosts_has_no_windows() -> None:
    found = members_of([process([comm(0, rank)], rank, host=f"host{rank}") for rank in range(2)])
    assert [team.has_windows for team in found.whole] == [False]


def test_who_has_not_come_out_of_a_creation_is_named() -> None:
    waits = comm(0, 1, result=-1, site="/job/model.py:30 main")
    said = (
        r"no process made a communicator; rank 1 has not come out of the creation of a communicator of 2 ranks \(model"
    )
    with pytest.raises(UsageError, match=said):
        members_of([process([], 0), process([waits], 1, blocked=[waits])])


def test_of_many_the_first_are_named() -> None:
    waits = [comm(0, rank, 9, result=-1) for rank in range(9)]
    with pytest.raises(UsageError, match=r"; rank 3 has not come out [^;]*; and 5 more$"):
        members_of([process([each], rank, blocked=[each]) for rank, each in enumerate(waits)])


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([[]], "no process made a communicator"),
        ([[comm(0, 0)]], "some ranks were not recorded, such as rank 1 of one of 2"),
        ([[comm(0, 0), comm(1, 1, identity=1000)], []], "the process has several ranks of one communicator"),
        ([[comm(0, 0)], [comm(0, 0)]], "rank 0 of a communicator is in another file, too"),
    ],
)
def test_what_cannot_be_judged_is_said(made: list[list[Fact]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        members_of([process(facts, rank) for rank, facts in enumerate(made)])
