"""Which calls of a process are new: those that nothing equal has come before since anything changed. And which
registrations were made in a capture: those of the thread that captured."""

from __future__ import annotations

import msgspec
import pytest

from harness.machine.observer.records import (
    Allocated,
    CaptureBegan,
    CaptureEnded,
    Fact,
    GroupEnded,
    GroupStarted,
    RegisterEntered,
)
from harness.studies.watching.lines import line
from tests.tools.recorded import comm, gather, process

A, B = gather(0), gather(0, count=8)
SEND = gather(0, function="Send")
BEGAN = CaptureBegan(81, 1, "global", "/torch/cuda/graphs.py:9 __enter__\n/job/train.py:40 step")
ENDED, REGISTER = CaptureEnded(81, 1), RegisterEntered(0, 0, 8, 1, "", 1)
FIRST, SECOND = "capture 1 (train.py:40 step)", "capture 2 (train.py:40 step)"


def new(*done: Fact) -> list[int]:
    return [*map(int, line(process([comm(0, 0), *done])).new_calls(0))]


def test_the_first_of_equal_calls_is_new() -> None:
    assert new(A, A, B, A, B) == [0, 2]


def test_after_a_change_equal_calls_are_new_again() -> None:
    assert new(A, A, Allocated(1, 2), A, A) == [0, 2]


def test_groups_of_calls_change_nothing() -> None:
    assert new(A, GroupStarted(), A, GroupEnded()) == [0]


def test_captures_change_nothing() -> None:
    assert new(A, BEGAN, A, ENDED, A) == [0]


def test_a_captured_call_is_another_one() -> None:
    assert new(A, BEGAN, gather(0, captured=True), ENDED, A) == [0, 1]


@pytest.mark.parametrize(
    ("done", "captures"),
    [
        ((REGISTER, BEGAN, ENDED, REGISTER), {}),
        ((BEGAN, REGISTER, ENDED), {1: FIRST}),
        ((BEGAN, ENDED, BEGAN, REGISTER, REGISTER, ENDED), {3: SECOND, 4: SECOND}),
        ((BEGAN, RegisterEntered(0, 0, 8, 1, "", 2), ENDED), {}),
        ((BEGAN, CaptureEnded(82, 1), REGISTER), {2: FIRST}),
        ((BEGAN, CaptureEnded(81, 2), REGISTER), {}),
        ((BEGAN, BEGAN, ENDED, REGISTER), {}),
        ((CaptureBegan(82, 2), BEGAN, CaptureEnded(82, 2), REGISTER), {3: SECOND}),
        ((CaptureBegan(82, 1), REGISTER), {1: "capture 1"}),
    ],
    ids=[
        *("before and after it", "in it", "in a later one", "by another thread", "beside the end of another stream's"),
        *("after its end by another thread", "after one whose end was not seen", "beside another thread's"),
        "in one without a stack",
    ],
)
def test_a_registration_is_in_the_open_capture_of_its_thread(done: tuple[Fact, ...], captures: dict[int, str]) -> None:
    facts = list(dict.fromkeys(done))
    seen = process([]), tuple(facts), tuple(map(facts.index, done))
    assert line(msgspec.structs.replace(seen[0], facts=seen[1], order=seen[2])).captures == captures


def test_calls_that_are_no_collectives_have_no_number() -> None:
    assert new(SEND, A, SEND, B) == [0, 1]


def test_calls_of_another_communicator_have_numbers_of_their_own() -> None:
    seen = line(process([comm(0, 0), comm(1, 0), A, gather(1), A, B]))
    assert ([*seen.places(0)], [*seen.places(1)]) == ([2, 4, 5], [3])


def test_a_communicator_without_calls_has_none() -> None:
    assert new() == []


OTHER = RegisterEntered(0, 0x1000, 8, 1, "", 2)
"""Of another thread than the capturing one."""


@pytest.mark.parametrize(
    ("after", "capture"),
    [
        ([gather(0, receive=0x1004, captured=True)], FIRST),
        ([gather(0, receive=0x9000, send=0x8000), gather(0, receive=0x1004, captured=True)], FIRST),
        ([gather(0, receive=0x1004), gather(0, receive=0x1004, captured=True)], ""),
        ([gather(0, receive=0x9000, send=0x8000, captured=True)], ""),
        ([ENDED, gather(0, receive=0x1004, captured=True)], ""),
        ([], ""),
    ],
    ids=["captured", "captured later", "run first", "elsewhere", "after its end", "never"],
)
def test_another_thread_registers_in_a_capture_what_a_captured_call_uses(after: list[Fact], capture: str) -> None:
    found = line(process([comm(0, 0), BEGAN, OTHER, *after])).captures
    assert [*found.values()] == ([capture] if capture else [])
