"""Names that are nearly right are answered by the one that was meant, wherever a name is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.campaign import seeds
from harness.errors import UsageError, did_you_mean, not_one_of
from harness.machine.evidence import check_names
from harness.scenario import topology
from harness.scenario.flows.catalogue import check_flow
from harness.scenario.layouts.conventions import build_families
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.studies.bench.asked import ops_of
from harness.studies.faults.catalogue import select
from harness.system.check import check_system
from harness.world.platform import choose

NEARLY: dict[str, tuple[Callable[[], object], str]] = {
    "a pool": (lambda: check_system("per-grop", None), "per-group"),
    "collectives": (lambda: check_system(None, "tritn"), "triton"),
    "a class of a module": (lambda: check_system("examples.pool:PoolPerFamly", None), "PoolPerFamily"),
    "a topology": (lambda: topology.find("qwen3-32b-tp3"), "qwen3-32b-tp4"),
    "a part of a topology's name": (lambda: topology.find("405b"), "llama-405b-tp8"),
    "a seed": (lambda: seeds.find("wrong-owner-found-on-ncl"), "wrong-owner-found-on-nccl"),
    "a flow": (lambda: check_flow("vllm-tp-reduse"), "vllm-tp-reduce"),
    "evidence": (lambda: check_names(["profilr"]), "profiler"),
    "a fault's number": (lambda: select(["f14"]), "F14"),
    "a fault's name": (lambda: select(["stale-windw"]), "stale-window"),
    "an operation": (lambda: ops_of(["all-gather"]), "all_gather"),
    "a substrate": (lambda: choose("ncl", 2), "nccl"),
    "a convention": (lambda: build_families("sgland", {}), "sglang"),
    "a degree": (lambda: build_families("sglang", {"attn_cpp": 2}), "attn_cp"),
    "a family": (
        lambda: Scenario(topology.Topology("two", "sglang", {"tp": 2}), (Allocate("a", "atn_tp", 1),)),
        "attn_tp",
    ),
}


@pytest.mark.parametrize("name", NEARLY)
def test_a_name_that_is_nearly_right_is_answered_by_the_one_that_was_meant(name: str) -> None:
    ask, meant = NEARLY[name]
    with pytest.raises(UsageError, match=f"; did you mean {meant}"):
        ask()


def test_a_name_that_is_near_to_none_is_answered_by_those_there_are() -> None:
    assert (
        str(not_one_of("pool", "puddle", ("deferred", "per-group")))
        == "pool 'puddle' is not one of deferred, per-group"
    )


def test_a_part_of_several_names_means_none_of_them() -> None:
    assert did_you_mean("qwe", ("qwen-tp2-long-name", "qwen-tp4-long-name")) == ""


def test_capitals_do_not_matter() -> None:
    assert did_you_mean("POOLPERFAMILY", ("PoolPerFamily", "Other")) == "; did you mean PoolPerFamily?"


def test_the_end_of_a_topologys_name_stands_for_it() -> None:
    assert topology.find("tp4-dp2").name == topology.find("gpt-oss-120b-vllm-tp4-dp2").name


def test_the_end_of_several_names_is_refused_with_all_of_them() -> None:
    with pytest.raises(UsageError, match=r"several names: .*qwen3-32b-tp4"):
        topology.find("tp4")
