"""Deployments as engines run them, whole: eight ranks on eight GPUs, or some ranks on each of four or two.

Ranks are placed as engines place them, in rank order. The flows are those of `symm matrix`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from harness import judge
from harness.oracle.case import Case
from harness.scenario import topology as topologies_module
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.flows import Tokens, applies, flows
from harness.strategies.topologies import topologies
from harness.trace.draw import Draw
from harness.world.world import World
from tests.tools import many_gpus

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

RANKS = 8
DRAWS = 12
FOUND_WITHIN = 20
"""Draws in which a shared pool breaks; the simulation needs 3 to 7."""
ONE_POOL_FOR_ALL = {
    "snapshot once": System("snapshot-once"),
    "at allocation": System("shared-at-alloc"),
    "implicit sites": System("shared-at-exit", sites="implicit"),
}
SEVERAL_GROUPS = (
    "deepseek-r1-tp8-dpa4",
    "deepseek-v32-prefill-cp2-dpa2",
    "deepseek-v32-prefill-cp4-dpa2",
    "qwen3-235b-tp8-ep8-dpa2",
)
"""Deployments whose flows name other groups than all ranks, so that a pool may give one a buffer of another."""
DEPLOYMENTS = (*SEVERAL_GROUPS, "deepseek-r1-tp8-dpa8", "kimi-k2-tp8-dpa8", "llama-405b-tp8")
TOKENS: tuple[Tokens, ...] = ("engine", "padded", "uneven")
CELLS = [
    (name, tokens)
    for name in DEPLOYMENTS
    for tokens in TOKENS
    if tokens != "uneven" or applies("all", topologies_module.find(name), "uneven")
]
REFUSED = re.compile(r"NCCL refused forced SYMK_\w+ with ncclInvalidArgument")
ALL = Topology("all", "sglang", {"tp": RANKS})
HALVES = Topology("halves", "sglang", {"tp": RANKS, "attn_dp": 2})
OWNED = (Allocate("a", "tp", 16384), AllGather("tp", View("a"), 2048), ReduceScatter("tp", View("a"), 2048))
CROSS_GROUP = (Allocate("a", "tp", 64), Allocate("b", "attn_tp", 64), AllGather("attn_tp", View("b"), 16))


@pytest.fixture(scope="module", params=[8, 4, 2], ids="{}gpus".format)
def gpus(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The UUIDs of so many GPUs, which worlds stand on."""
    with many_gpus.first(request.param) as uuids:
        yield uuids


@pytest.fixture(scope="module")
def world(gpus: list[str]) -> Iterator[World]:
    with World(RANKS, "nccl", deadline=60) as running:
        yield running


def drawn(name: str, tokens: Tokens, system: System, count: int) -> list[Scenario]:
    only = topologies(RANKS, [topologies_module.find(name)])
    return sample(flows(RANKS, tokens=tokens, topologies=only, system=system, via="library"), count, seed=23)


def paths(draw: Draw) -> set[str]:
    return {use.ran.path for uses in Case(draw).calls.values() for use in uses if use.ran}


def test_consecutive_ranks_are_on_one_gpu(world: World, gpus: list[str]) -> None:
    found = world.call("tests.tools.many_gpus:gpu_of")
    each = RANKS // len(gpus)
    assert found == [found[rank - rank % each] for rank in range(RANKS)]
    assert len({*found}) == len(gpus)


@pytest.mark.parametrize(("name", "tokens"), CELLS)
def test_a_deployment_is_clean_with_the_right_pool(world: World, name: str, tokens: Tokens) -> None:
    draws = [world.run(scenario) for scenario in drawn(name, tokens, System("deferred"), DRAWS)]
    assert [judge(draw) for draw in draws] == [[]] * DRAWS
    assert "symmetric" in set().union(*map(paths, draws))


@pytest.mark.parametrize("system", ONE_POOL_FOR_ALL.values(), ids=ONE_POOL_FOR_ALL)
@pytest.mark.parametrize("name", SEVERAL_GROUPS)
def test_a_pool_that_groups_share_is_found_by_the_refusal_of_nccl(world: World, name: str, system: System) -> None:
    said: list[str] = []
    for scenario in drawn(name, "padded", system, FOUND_WITHIN):
        said += [found.explanation for found in judge(world.run(scenario)) if found.rule == "wrong-owner"]
        if any(map(REFUSED.search, said)):
            return
    pytest.fail(f"NCCL refused nothing in {FOUND_WITHIN} draws; wrong owners: {said}")


@pytest.fixture(scope="module", params=["forced", "calls", "profiler", "log"])
def of_path(gpus: list[str], request: pytest.FixtureRequest) -> Iterator[World]:
    with World(RANKS, "nccl", deadline=60, evidence=(request.param,)) as running:
        yield running


def test_every_kind_of_evidence_knows_the_path_of_all_ranks(of_path: World) -> None:
    draw = of_path.run(Scenario(ALL, OWNED))
    assert (judge(draw), len(paths(draw)), paths(draw) <= {"symmetric", "legacy"}) == ([], 1, True)


def test_every_kind_of_evidence_sees_the_legacy_path_of_a_buffer_of_another_group(of_path: World) -> None:
    draw = of_path.run(Scenario(HALVES, CROSS_GROUP, System("shared-at-alloc")))
    assert ([finding.rule for finding in judge(draw)], paths(draw)) == (["wrong-owner"], {"legacy"})


@pytest.mark.parametrize("kinds", [("check",), ("stamps", "differential"), ("digests",)], ids=" and ".join)
def test_other_evidence_is_silent_on_a_whole_deployment(gpus: list[str], kinds: tuple[str, ...]) -> None:
    with World(RANKS, "nccl", deadline=60, evidence=kinds) as running:
        draws = [running.run(each) for each in drawn("deepseek-v32-prefill-cp2-dpa2", "padded", System("deferred"), 4)]
    assert [judge(draw) for draw in draws] == [[]] * 4
