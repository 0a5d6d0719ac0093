"""Flows of every engine on ranks of the simulation: right sites are silent, and one with a wrong group is found."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness.oracle.judge import judge
from harness.scenario.flows.catalogue import FLOWS, compile_flows, engines_of, layer_of
from harness.scenario.flows.layer import Batch
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World

LAYOUTS = {
    "sglang": {"tp": 4, "attn_dp": 2},
    "vllm": {"dp": 2, "tp": 2, "dcp": 2},
    "megatron-core": {"tp": 2, "dp": 2, "ep": 2, "etp": 2},
    "tensorrt-llm": {"tp": 4, "moe_ep": 2},
}
WRONG = {"sglang": "pp", "vllm": "pcp", "megatron-core": "cp", "tensorrt-llm": "moe_ep"}
"""A family that no line of the engine names here."""
OTHERS = {
    "cp-prefill": {"tp": 4, "attn_cp": 2},
    "attn-reduce": {"tp": 4, "attn_cp": 2},
    "mlp-reduce": {"tp": 4},
    "megatron-fsdp-gather": {"tp": 2, "dp": 2},
}
BATCHES = {
    "padded": [Batch((3, 6, 1, 2), is_padded=True)],
    "padded, one idle": [Batch((3, 0, 1, 2), is_padded=True)],
    "uneven": [Batch((3, 6, 1, 2), is_padded=False), Batch((3, 6, 1, 2), is_padded=True)],
    "uneven, one idle": [Batch((3, 0, 1, 2), is_padded=False), Batch((0, 6, 1, 2), is_padded=True)],
}


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


def topology_of(name: str) -> Topology:
    convention = engines_of(name)[0].convention
    return Topology("small", convention, OTHERS.get(name, LAYOUTS[convention]))


def program(name: str, batches: list[Batch]) -> tuple[Step, ...]:
    layer = layer_of(topology_of(name), name)
    fitting = [Batch(batch.tokens[: layer.sources], batch.is_padded) for batch in batches]
    return compile_flows([name], layer, fitting, 2)


def rules(world: World, name: str, steps: tuple[Step, ...], pool: str = "deferred") -> list[str]:
    return [finding.rule for finding in judge(world.run(Scenario(topology_of(name), steps, System(pool))))]


@pytest.mark.parametrize("tokens", BATCHES)
@pytest.mark.parametrize("name", FLOWS)
def test_a_right_system_is_silent(ranks: World, name: str, tokens: str) -> None:
    assert rules(ranks, name, program(name, BATCHES[tokens])) == []


@pytest.mark.parametrize("name", FLOWS)
def test_a_site_that_names_a_wrong_group_is_found(ranks: World, name: str) -> None:
    convention = topology_of(name).convention
    steps = tuple(
        msgspec.structs.replace(step, family=WRONG[convention])
        if isinstance(step, Allocate) and step.role == "window"
        else step
        for step in program(name, BATCHES["padded"])
    )
    assert {*rules(ranks, name, steps)} & {"wrong-owner", "unregistered"}
