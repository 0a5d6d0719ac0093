"""Accounts of four findings: a wrong owner, another offset on each rank, wrong data, and a hang."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.campaign import seeds
from harness.campaign.seeds import SCHEMA, Seed
from harness.report.pages import telling
from harness.report.pages.account import Account, Outcome
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.world.world import World
from tests.tools.draws import PAIR

PLANTED = "harness.system.planted"
GATHER = (Allocate("b", "tp", 8), AllGather("tp", View("b"), 4))
BY_KERNEL = (Allocate("b", "tp", 8), AllGather("tp", View("b"), 4, via="kernel"))
OUTCOMES = (
    Outcome("pool mine", ("wrong-owner",), is_own=True),
    Outcome("pool other", (), first_step=1, difference="step 1, rank 0, registration: nothing in the seed, tp here"),
)
Accounts = dict[str, Account]


def seed(*steps: object, pool: str = "deferred", kernels: str = "triton") -> Seed:
    """A seed without findings, on planted parts."""
    system = System(pool if pool.islower() else f"{PLANTED}.pools:{pool}", f"{PLANTED}.kernels:{kernels}")
    return Seed(SCHEMA, Scenario(PAIR, steps, system), (), {"torch": "2.13"})  # type: ignore[arg-type]


SEEDS: dict[str, Callable[[], Seed]] = {
    "wrong-owner": lambda: seeds.find("wrong-owner-found-on-sim"),
    "offset-mismatch": lambda: seed(*GATHER, pool="ScratchOnOddRanks"),
    "wrong-data": lambda: seed(*BY_KERNEL, kernels="MissesTail"),
    "registration-skew": lambda: seeds.find("hang-of-uneven-tokens"),
}


@pytest.fixture(scope="session")
def accounts(simulation: World) -> Accounts:
    """By rule."""
    found = {}
    for rule, make in SEEDS.items():
        draw = simulation.run(make().scenario, hurried=True)
        found[rule] = telling.of_draw(f"{rule}.json", make(), draw, "a run", OUTCOMES)
    return found
