"""A trace for Perfetto: a process a rank, spans that lie in the draw, and arrows from registration to use."""

from __future__ import annotations

import json

import msgspec
import pytest

from harness.report.pages import perfetto
from harness.report.pages.account import Life
from harness.trace.trace import TEARDOWN
from tests.report.pages.conftest import Accounts


def test_each_rank_is_a_process_with_its_steps(accounts: Accounts) -> None:
    events = perfetto.trace(accounts["wrong-owner"])["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {rank: f"rank {rank}: ran to the end" for rank in range(4)}
    steps = [event["name"] for event in events if event.get("cat") == "step" and event["pid"] == 0]
    assert steps == ["0 allocate", "1 allocate", "2 all_gather ✗"]


def test_an_arrow_leads_from_a_registration_to_the_call_that_finds_it(accounts: Accounts) -> None:
    events = perfetto.trace(accounts["offset-mismatch"])["traceEvents"]
    arrows = [event for event in events if event.get("cat") == "use"]
    starts = {event["id"]: event for event in arrows if event["ph"] == "s"}
    ends = {event["id"]: event for event in arrows if event["ph"] == "f"}
    assert len(starts) == 2
    assert starts.keys() == ends.keys()
    for ident, start in starts.items():
        assert start["ts"] < ends[ident]["ts"]
        assert any(
            span["ph"] == "X" and span["cat"] == "window" and span["tid"] == start["tid"] and span["ts"] <= start["ts"]
            for span in events
            if span["pid"] == start["pid"] and span["ph"] == "X"
        )


def test_no_call_without_a_window_has_an_arrow(accounts: Accounts) -> None:
    events = perfetto.trace(accounts["wrong-owner"])["traceEvents"]
    assert not [event for event in events if event.get("cat") == "use"]


def test_spans_of_one_thread_never_overlap_and_none_is_negative(accounts: Accounts) -> None:
    for account in accounts.values():
        spans = [event for event in perfetto.trace(account)["traceEvents"] if event["ph"] == "X"]
        json.dumps(spans)
        assert all(span["ts"] >= 0 and span["dur"] > 0 for span in spans)
        for span in spans:
            same = [each for each in spans if (each["pid"], each["tid"]) == (span["pid"], span["tid"])]
            assert sum(each["ts"] <= span["ts"] < each["ts"] + each["dur"] for each in same) == 1


@pytest.mark.parametrize(("born", "died"), [(-1, 0), (-1, None), (TEARDOWN, TEARDOWN + 1), (TEARDOWN + 1, None)])
def test_a_life_outside_of_the_steps_lasts_a_step_at_least(accounts: Accounts, born: int, died: int | None) -> None:
    account = accounts["wrong-owner"]
    lane = msgspec.structs.replace(account.lanes[0], lives=(Life("segment", "0", "pool", born, died),), uses=())
    events = perfetto.trace(msgspec.structs.replace(account, lanes=(lane,)))["traceEvents"]
    (span,) = (event for event in events if event.get("cat") == "segment")
    assert span["ts"] >= 0
    assert span["dur"] >= perfetto.STEP - 1
    assert span["ts"] + span["dur"] < (len(account.program) + 1) * perfetto.STEP


def test_each_life_has_a_thread_of_its_own_however_many_there_are(accounts: Accounts) -> None:
    account = accounts["wrong-owner"]
    lives = tuple(
        Life(kind, str(name), "", 0, None) for kind in ("segment", "window", "buffer") for name in range(1000)
    )
    lane = msgspec.structs.replace(account.lanes[0], lives=lives, uses=())
    events = perfetto.trace(msgspec.structs.replace(account, lanes=(lane,)))["traceEvents"]
    threads = {event["tid"] for event in events if event["ph"] == "X" and event["cat"] != "step"}
    assert len(threads) == len(lives)
    assert 0 not in threads
