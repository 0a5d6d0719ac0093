"""A call right behind a kernel that lets it start early: NCCL 2.28 to 2.30.6 does not wait for it (nccl 1924)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness import judge
from harness.machine import gpus, nccl
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Capture, EndCapture, Prepare, Release, Replay
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.early_kernels import CASES, CHUNKS, KINDS, MIXING, SETTINGS
from tests.tools.operands import ask

FIRST_WITHOUT, FIRST_WITH = (2, 28), (2, 30, 7)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    pytest.mark.skipif(len(gpus.inventory()) < 2, reason="a kernel starts early beside none of another process"),
]


def waits() -> bool:
    return not FIRST_WITHOUT <= (nccl.version() or ()) < FIRST_WITH


def answers(setting: str) -> list[Sequence[str]]:
    """What all ranks saw."""
    seen = ask(2, module="tests.tools.early_kernels", variables={MIXING: setting})
    assert len(seen) == 2
    return [line for rank in seen for line in rank[1:]]


def wrong(seen: list[Sequence[str]], mode: str, *cases: str) -> int:
    """Rounds that were wrong in these cases, of any call, size and rank."""
    return sum(int(number) for line in seen if line[0] == mode and line[1] in cases for number in line[5:])


def test_captured_calls_wait_from_2_30_7_on() -> None:
    seen = answers("0")
    assert len([line for line in seen if line[0] == "graph" and line[1] in CASES]) == 2 * len(CASES) * len(KINDS) * len(
        CHUNKS
    )
    assert wrong(seen, "graph", "witness")
    assert bool(wrong(seen, "graph", *CASES)) is not waits()


def test_events_of_nccl_hide_the_lost_wait() -> None:
    assert SETTINGS[0] == "1"
    seen = answers("1")
    assert wrong(seen, "graph", "witness")
    assert not wrong(seen, "graph", *CASES)


def test_a_program_finds_the_lost_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before the captured calls at steps 6 and 8 a kernel feeds them, before that at step 10 one poisons."""
    monkeypatch.setenv(MIXING, "0")
    warm = (Prepare("g"), Allocate("a", "tp", 64), AllGather("tp", View("a"), 32), Release("a"), Capture("g"))
    in_place = (Allocate("b", "tp", 64), AllGather("tp", View("b"), 32))
    fed = (Allocate("c", "tp", 32), AllGather("tp", View("b"), 32, View("c")))
    poisoned = (Allocate("d", "tp", 64), AllGather("tp", View("d"), 32, View("c")))
    steps = (*warm, *in_place, *fed, *poisoned, EndCapture("g"), *[Replay("g")] * 4)
    topology = Topology(name="tp2", convention="sglang", degrees={"tp": 2})
    with World(2, "nccl", deadline=60) as world:
        found = judge(world.run(Scenario(topology=topology, system=System("deferred"), steps=steps)))
    assert {finding.rule for finding in found} == (set() if waits() else {"wrong-data"})
