"""Small topologies, and the way from a scenario to what the oracle says about it."""

from __future__ import annotations

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.bases import CollectiveStep
from harness.scenario.layouts.groups import Groups
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.trace.events import Ran
from harness.world.world import World

SOUND = System("tests.tools.planted:Sound", "tests.tools.planted:SoundKernels")


def explicit(placement: Placement | None = None, **families: Groups) -> Topology:
    return Topology("scene", "explicit", placement=placement, families_given=families)


PAIR = explicit(tp=((0, 1),))
TURNED = explicit(tp=((0, 1),), cp=((1, 0),))
"""Two communicators over the same two ranks, in opposite rank order."""
APART = explicit(Placement(nodes=2, gpus_per_node=1), tp=((0, 1),))
"""Two ranks on two nodes: their communicator supports no windows."""
SQUARE = explicit(tp=((0, 1, 2, 3),), cp=((0, 2), (1, 3)))
CROSSED = explicit(tp=((0, 1), (2, 3)), cp=((0, 2), (1, 3)))


def scenario(
    *steps: Step, topology: Topology = PAIR, pool: str = SOUND.pool, kernels: str = SOUND.collectives
) -> Scenario:
    """A scenario on the sound system, or with `pool` or `kernels` in place of its parts."""
    names = (name if ":" in name or name.islower() else f"tests.tools.planted:{name}" for name in (pool, kernels))
    return Scenario(topology, steps, System(*names))


def findings(ranks: World, played: Scenario) -> list[Finding]:
    """What the oracle says about one draw, causes before consequences.

    Where it says nothing, every rank must have run every collective that it takes part in: silence means something.
    """
    draw = ranks.run(played)
    found = judge(draw)
    calls = [(index, step) for index, step in enumerate(played.steps) if isinstance(step, CollectiveStep)]
    mine = [[at for at, step in calls if played.group_of(step, rank)] for rank in range(played.world)]
    ran = [[step for step, event in trace.steps() if isinstance(event, Ran)] for trace in draw.traces]
    assert found or ran == mine, "a silent draw did not run its collectives"
    return found


def rules(found: list[Finding]) -> list[str]:
    """The rules broken, each once, in the order of the findings."""
    return list(dict.fromkeys(finding.rule for finding in found))


def first(found: list[Finding], rule: str) -> Finding:
    """The first finding of a rule."""
    return next(finding for finding in found if finding.rule == rule)


def unsaid(finding: Finding, *claims: str) -> list[str]:
    """The claims that an explanation does not make, where it should make all of them in this order."""
    text, missing = str(finding), []
    for claim in claims:
        before, found, after = text.partition(claim)
        text = after if found else before
        missing += [] if found else [claim]
    return missing
