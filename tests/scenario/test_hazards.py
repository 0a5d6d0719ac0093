"""Hazards: what one rank does alone, and sizes that differ inside a group."""

from __future__ import annotations

import pytest

from harness.scenario.hazards import hazards
from harness.scenario.steps import (
    Allocate,
    Ballast,
    Deny,
    Recreate,
    Refuse,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ((Allocate("a", "tp", 64), Trim(), Recreate("tp"), Straggle(0, 1)), set()),
        ((Ballast("a", "tp", 0, 512),), {"ballast"}),
        ((Deny(0), Ballast("a", "tp", 0, 512)), {"ballast", "deny"}),
        ((Refuse(0),), {"refuse"}),
        ((Allocate("a", "tp", (64, 64, 64, 65)),), {"uneven"}),
        ((Allocate("a", "attn_tp", (64, 64, 65, 65)),), set()),
        ((Allocate("a", "tp", (64, 64, 64, 65), role="plain"),), set()),
    ],
    ids=["harmless", "ballast", "deny", "refuse", "uneven in a group", "between groups", "in ordinary memory"],
)
def test_hazards_of_a_program_are_what_one_rank_does_alone(steps: tuple[Step, ...], found: set[str]) -> None:
    assert hazards(steps, QUAD) == found
