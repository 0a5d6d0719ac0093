"""A recording: it holds together, or there is none."""

from __future__ import annotations

import msgspec
import pytest

from harness.errors import UsageError
from harness.scenario.topology import Topology
from harness.trace.draw import Fate
from harness.trace.events import Began
from harness.trace.recording import Recording
from harness.trace.trace import Trace

PAIR = Topology("watched", "explicit", families_given={"tp": ((0, 1),)}, shares={})
FATES = Fate(0, "finished"), Fate(1, "finished")
PLACES = "all_gather 1 (a.py:3 main)", "all_gather 2 (a.py:4 main)"


def recording(*steps: int) -> Recording:
    return Recording(PAIR, (Trace(0, tuple(map(Began, steps))), Trace(1)), FATES, PLACES, nccl=(2, 32, 3))


def test_a_recording_comes_back_as_it_was() -> None:
    assert msgspec.json.decode(msgspec.json.encode(recording(0, 1)), type=Recording) == recording(0, 1)


@pytest.mark.parametrize("steps", [(2,), (-1,), (0, 1, 0)])
def test_a_step_without_a_place_or_out_of_order_is_refused_with_its_rank(steps: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=f"step {steps[-1]} of rank 0 comes after"):
        recording(*steps)


@pytest.mark.parametrize(
    ("traces", "fates", "what"), [((Trace(0),), FATES, "traces"), ((Trace(0), Trace(1)), (), "fates")]
)
def test_a_rank_without_a_trace_or_a_fate_is_refused(
    traces: tuple[Trace, ...], fates: tuple[Fate, ...], what: str
) -> None:
    with pytest.raises(UsageError, match=f"one of its {what} for each"):
        Recording(PAIR, traces, fates, PLACES)


def test_hosts_of_some_ranks_alone_are_refused() -> None:
    with pytest.raises(UsageError, match="one of its hosts for each"):
        Recording(PAIR, (Trace(0), Trace(1)), FATES, PLACES, hosts=("a",))
