"""What NCCL says of its calls, read from the plug-in; NCCL is played."""

from __future__ import annotations

import pytest

from harness.machine import profiler
from harness.substrate.nccl.calls import Calls
from tests.tools.nccl_events import COPY_ENGINE, Player, Started, legacy, symmetric


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setenv(profiler.VARIABLE, profiler.library())
    return Calls()


@pytest.fixture
def nccl() -> Player:
    return Player(profiler.library())


@pytest.mark.parametrize(
    ("event", "text", "is_symmetric"),
    [(symmetric(), "AllGather_ST", True), (legacy(b"ReduceScatter"), "ReduceScatter RING LL", False)],
    ids=["symmetric", "legacy"],
)
def test_a_call_is_told_with_its_kernel(
    calls: Calls, nccl: Player, event: Started, text: str, is_symmetric: bool
) -> None:
    before = calls.written
    nccl.tell(event)
    told = calls.last_since(before)
    assert told is not None
    assert (str(told), bool(told.is_symmetric)) == (text, is_symmetric)


def test_a_call_by_copy_engines_is_told_without_what_nccl_leaves_out(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(Started(type=COPY_ENGINE, function=b"AlltoAll", is_symmetric=True))
    told = calls.last_since(before)
    assert told is not None
    assert (str(told), told.is_by_copy_engine, told.is_symmetric) == ("AlltoAll by copy engines", 1, 0)


def test_of_several_calls_the_last_counts(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(symmetric())
    nccl.tell(legacy())
    assert str(calls.last_since(before)) == "AllGather RING LL"


def test_an_earlier_call_is_no_word_on_this_one(calls: Calls, nccl: Player) -> None:
    nccl.tell(symmetric())
    assert calls.last_since(calls.written) is None


def test_other_functions_and_events_are_left_out(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(legacy(b"Broadcast"))
    nccl.tell(Started(type=64, function=b"AllGather"))
    assert (calls.written, calls.last_since(before)) == (before + 1, None)


def test_calls_that_were_written_over_are_not_made_up(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(symmetric())
    for _ in range(64):
        nccl.tell(legacy(b"Broadcast"))
    assert calls.last_since(before) is None


def test_a_name_that_is_too_long_is_cut(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(symmetric(kernel=b"AllGather_" + b"X" * 50))
    assert str(calls.last_since(before)) == "AllGather_" + "X" * 21


def test_missing_names_are_empty(calls: Calls, nccl: Player) -> None:
    before = calls.written
    nccl.tell(Started(type=2, function=b"AllGather"))
    assert str(calls.last_since(before)) == "AllGather  "
