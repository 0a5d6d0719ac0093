"""Programs that are refused, and those beside them that are not."""

from __future__ import annotations

import pytest

from harness.scenario.scenario import Scenario
from harness.scenario.steps import ProgramError, Step
from harness.scenario.topology import Topology

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})


def refusal(*steps: Step, topology: Topology = QUAD) -> str:
    """The sentence with which a program is refused; the last step must be the offender."""
    with pytest.raises(ProgramError) as error:
        Scenario(topology, steps)
    opening = f"step {len(steps) - 1} ({steps[-1].kind}): "
    assert str(error.value).startswith(opening)
    return str(error.value).removeprefix(opening)


def accepted(*steps: Step, topology: Topology = QUAD) -> bool:
    return bool(Scenario(topology, steps).steps)
