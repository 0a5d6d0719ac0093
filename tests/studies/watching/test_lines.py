"""Which calls of a process are new: those that nothing equal has come before since anything changed."""

from __future__ import annotations

from harness.machine.observer.records import Allocated, Fact, GroupEnded, GroupStarted
from harness.studies.watching.lines import line
from tests.tools.recorded import comm, gather, process

A, B = gather(0), gather(0, count=8)
SEND = gather(0, function="Send")


def new(*done: Fact) -> list[int]:
    return [*map(int, line(process([comm(0, 0), *done])).new_calls(0))]


def test_the_first_of_equal_calls_is_new() -> None:
    assert new(A, A, B, A, B) == [0, 2]


def test_after_a_change_equal_calls_are_new_again() -> None:
    assert new(A, A, Allocated(1, 2), A, A) == [0, 2]


def test_groups_of_calls_change_nothing() -> None:
    assert new(A, GroupStarted(), A, GroupEnded()) == [0]


def test_calls_that_are_no_collectives_have_no_number() -> None:
    assert new(SEND, A, SEND, B) == [0, 1]


def test_calls_of_another_communicator_have_numbers_of_their_own() -> None:
    seen = line(process([comm(0, 0), comm(1, 0), A, gather(1), A, B]))
    assert ([*seen.places(0)], [*seen.places(1)]) == ([2, 4, 5], [3])


def test_a_communicator_without_calls_has_none() -> None:
    assert new() == []
