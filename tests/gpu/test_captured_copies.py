"""A captured call by copy engines, asked of NCCL itself: the defect in docs/findings.md, and what the harness makes of
it."""

from __future__ import annotations

import pytest

from harness import judge
from harness.machine import nccl
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    Recreate,
    Release,
    Replay,
    Straggle,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.events import Ran
from harness.world.world import World
from tests.tools.captured_copies import BEFORE, REPLAYS
from tests.tools.operands import ask

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

BAD, LAST_SEEN_BAD = "1", (2, 32, 3)
"""How many calls before the captured one, and in which NCCL."""


def test_nccl_waits_for_peers_in_it_unless_exactly_one_such_call_was_made_before() -> None:
    seen = [line for rank in ask(2, module="tests.tools.captured_copies") for line in rank[1:]]
    assert len(seen) == 2 * len(BEFORE) * REPLAYS
    assert {path for *_, path in seen} == {"AllGather by copy engines"}
    wrong = {before for before, _, said, _ in seen if said != "right"}
    assert wrong == {BAD} if (nccl.version() or ()) <= LAST_SEEN_BAD else wrong <= {BAD}


def test_in_drawn_programs_it_waits_for_a_rank_that_is_late() -> None:
    if (nccl.version() or ()) < (2, 31):
        pytest.skip("NCCL before 2.31 takes no copy engines for one call")
    call = AllGather("tp", View("a"), 32, via="copy-engine")
    graph = (Prepare("g"), Allocate("a", "tp", 64), call, Release("a"), Capture("g"), Allocate("b", "tp", 64))
    captured = (AllGather("tp", View("b"), 32, via="copy-engine"), EndCapture("g"))
    late = (Straggle(1, 200), Replay("g"))
    topology = Topology(name="tp2", convention="sglang", degrees={"tp": 2})
    steps = (Recreate("tp"), *graph, *captured, *late, *late)
    with World(2, "nccl", deadline=60) as world:
        draw = world.run(Scenario(topology=topology, system=System("deferred"), steps=steps))
    assert [str(finding) for finding in judge(draw)] == []
    assert {event.path for trace in draw.traces for event in trace.events if isinstance(event, Ran)} == {"copy engine"}
