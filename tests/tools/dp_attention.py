"""Topologies with DP attention, and what their programs of flows do."""

from __future__ import annotations

from collections.abc import Iterable

from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Collective, Release, Step
from harness.scenario.topology import Topology

QUADS = Topology("4x2", "sglang", {"tp": 8, "attn_dp": 4})
"""Four DP ranks of attention TP 2."""
SPLIT = Topology("split", "sglang", {"tp": 8, "attn_dp": 2, "attn_cp": 2})
"""Two DP ranks of attention TP 2 and CP 2."""
LONE = Topology("lone", "sglang", {"tp": 8, "attn_dp": 8})
"""Eight DP ranks, each on its own."""
ROW = Topology("row", "sglang", {"tp": 4, "attn_cp": 4})
"""One DP rank, all of it context parallel."""
TWICE = Topology("twice", "sglang", {"tp": 4, "pp": 2, "attn_dp": 2})
"""Two pipeline stages of two DP ranks."""
PAIR = Topology("pair", "vllm", {"tp": 2})
"""Without attention groups."""


def collectives(program: Iterable[Step]) -> list[Collective]:
    return [step for step in program if isinstance(step, Collective)]


def unreleased(program: Iterable[Step]) -> set[str]:
    """The buffers that a program allocates and does not release."""
    program = [*program]
    made = [step.buffer for step in program if isinstance(step, Allocate)]
    gone = [step.buffer for step in program if isinstance(step, Release)]
    assert len({*made}) == len(made)
    assert len({*gone}) == len(gone)
    return {*made} - {*gone}


def strangers(scenario: Scenario) -> list[Collective]:
    """Collectives of more than one rank that reach peers through a window of other groups than their own."""
    families = scenario.topology.families
    asked = scenario.allocations
    return [
        step
        for step in collectives(scenario.steps)
        if any(len(group) > 1 for group in families[step.family])
        and asked[step.whole.buffer].role == "window"
        and families[asked[step.whole.buffer].family] != families[step.family]
    ]
