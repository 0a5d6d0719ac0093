"""Scenarios for both substrates: of every kind that both can run, and of no other."""

from __future__ import annotations

from itertools import islice

import pytest

from harness.scenario import topology
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Ballast
from harness.scenario.system import POOLS
from harness.scenario.topology import Topology
from harness.strategies.batches import distinct
from harness.strategies.common import common, is_common

PAIR = Topology("pair", "sglang", {"tp": 2})


@pytest.fixture(scope="module")
def drawn() -> list[Scenario]:
    return list(islice(distinct(common(8, pools=POOLS)), 200))


def test_every_drawn_scenario_runs_on_both_substrates(drawn: list[Scenario]) -> None:
    assert [scenario for scenario in drawn if not is_common(scenario)] == []


def test_every_pool_meets_both_kinds_of_sites(drawn: list[Scenario]) -> None:
    met = {(scenario.system.pool, scenario.system.sites) for scenario in drawn}
    assert met == {(pool, sites) for pool in POOLS for sites in ("explicit", "implicit")}


def test_every_convention_is_drawn(drawn: list[Scenario]) -> None:
    expected = {"sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan", "explicit"}
    assert {scenario.topology.convention for scenario in drawn} == expected


def test_flows_and_free_programs_are_drawn(drawn: list[Scenario]) -> None:
    kinds = {step.kind for scenario in drawn for step in scenario.steps}
    sites = {step.site for scenario in drawn for step in scenario.steps if isinstance(step, Allocate)}
    assert ("recreate" in kinds, sites) == (True, {"local", "global"})  # flows alone ask for global buffers


def test_library_and_kernel_are_mixed(drawn: list[Scenario]) -> None:
    assert {getattr(step, "via", None) for scenario in drawn for step in scenario.steps} >= {"library", "kernel"}


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(topology.find("qwen3-235b-two-nodes-tp8-dpa2"), (Allocate("a", "tp", 1),)),
        Scenario(PAIR, (Ballast("a", "tp", 0, 1),)),
        Scenario(PAIR, (Allocate("a", "tp", (1, 2)),)),
    ],
    ids=["two nodes", "one rank alone", "sizes that differ"],
)
def test_what_one_substrate_cannot_run_or_a_right_system_survive_is_not_common(scenario: Scenario) -> None:
    assert not is_common(scenario)
