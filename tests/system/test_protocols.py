"""The protocols of `examples` are right, run by themselves, and each planted fault of them is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.campaign.campaign import Campaign
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.strategies.schedules import scheduled
from harness.world.world import World
from tests.system.test_unusual import by_kernel
from tests.tools.scenes import PAIR, scenario

PLANTED = "tests.tools.planted.protocols"
RIGHT = [
    *(f"examples.protocols:{name}" for name in ("SwappedFlags", "Packets", "Copies")),
    *(f"{PLANTED}:{name}" for name in ("LooksWhole", "ClearsMeanwhile")),
]
FAULTS = {
    "GoesOnEarly": ("race",),
    "OneHalf": ("hang", "wrong-data"),
    "SkipsItself": ("wrong-data",),
    **dict.fromkeys(
        (
            *("LooksByVolatileLoads", "LooksPlainly", "LooksAtHalves"),
            *("StoresPlainly", "SendsWithinAGpu", "FlagsBesideData"),
        ),
        ("race",),
    ),
}
CALLS = tuple(
    step
    for dtype in ("float32", "bfloat16", "int64", "float8_e5m2")
    for step in (
        Allocate(dtype, "tp", 4100, dtype),  # type: ignore[arg-type]
        *(AllGather("tp", View(dtype), count, via="kernel") for count in (1, 1025, 2047)),
    )
)


@pytest.mark.parametrize("name", RIGHT)
def test_a_protocol_makes_the_gathers_of_every_type(name: str, ranks: World) -> None:
    draw = ranks.run(scenario(*CALLS, topology=PAIR, pool="deferred", kernels=name))
    assert judge(draw) == []
    assert by_kernel(draw) == {"all_gather": 2 * 12}


@pytest.mark.parametrize("name", RIGHT)
def test_a_protocol_is_right_in_draws_with_and_without_schedules(name: str, ranks: World, tmp_path: Path) -> None:
    drawn = scenarios(4, system=System("deferred", name), via="kernel", falling=False)
    tally = Campaign(ranks, drawn | scheduled(drawn), tmp_path).run(20)
    assert (tally.draws, tally.found) == (20, {})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_protocol_is_found(fault: str, seed: int, ranks: World) -> None:
    system = System("deferred", f"{PLANTED}:{fault}")
    drawn = scheduled(scenarios(4, system=system, via="kernel", falling=False))
    verdicts = (judge(ranks.run(each)) for each in sample(drawn, 40, seed=seed))
    assert next(filter(None, verdicts))[0].rule in FAULTS[fault]
