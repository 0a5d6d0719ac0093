"""A rank's answers where a draw breaks: the device's word is a crash, the system's own mistake is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.errors import UsageError
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Options
from harness.rank import server
from harness.rank.server import Server
from harness.system.boundary import SystemRaised
from harness.trace.events import Raised


class Faulty:
    """A substrate on which every `ValueError` is the device's word."""

    def fault(self, error: BaseException | None) -> str:
        return f"deviceError ({error})" if isinstance(error, ValueError) else ""


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(server, "make_substrate", lambda options, shared: Faulty())
    shared = SharedMemory.create(1)
    yield Server(Options(rank=0, processes=1, substrate="sim", gpu=None, environment={}, parent=0), shared)
    shared.close()


def answer(rank: Server, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[object, ...]:
    def fail(message: object) -> None:
        raise error

    monkeypatch.setattr(rank, "_carry_out", fail)
    return rank.answer(("run",))


def by_the_system(cause: Exception) -> SystemRaised:
    error = SystemRaised("pool", cause)
    error.__cause__ = cause
    return error


def test_a_fault_is_answered_in_its_own_words(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(rank, monkeypatch, ValueError("lost")) == ("broken", "failed with deviceError (lost)")


def test_a_fault_inside_the_system_is_answered_in_its_own_words(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    said = answer(rank, monkeypatch, by_the_system(ValueError("lost")))
    assert said == ("broken", "failed with deviceError (lost)")


def test_a_mistake_of_the_system_is_answered_as_its_own(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(rank, monkeypatch, by_the_system(TypeError("what?")))[:3] == ("raised", "pool", "TypeError: what?")


def test_what_the_system_raised_is_a_fact(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(rank, monkeypatch, by_the_system(TypeError("what?")))
    assert rank._journal.read() == (Raised("pool", "TypeError: what?"),)


def test_a_wrong_request_is_refused(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(rank, monkeypatch, UsageError("no such pool")) == ("refused", "no such pool")


def test_any_other_failure_is_the_machines(rank: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(rank, monkeypatch, KeyError("slot"))[:2] == ("failed", "KeyError: 'slot'")
