"""What `symm fuzz` was asked to draw: what goes together, and what is refused by the name of its option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.cli.request import Request
from harness.errors import MachineError, UsageError
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Capture, Deny, EndCapture, Prepare, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology, save
from harness.strategies.batches import sample
from harness.world.platform import NOT_SHOWN, Platform
from tests.tools.scenes import APART, PAIR, explicit
from tests.tools.scenes import scenario as scene


def ranks(has_kernels: bool = True, is_node_bound: bool = False) -> Any:
    description = {"kernels": has_kernels, "nccl_loaded": "2.28.9"}
    platform = Platform("fake", "", 1.0, 1.0, is_node_bound=is_node_bound)
    return SimpleNamespace(description=description, platform=platform)


def test_nothing_asked_for_is_the_default_system() -> None:
    assert Request(world=4).system == System()


def test_a_pool_and_sites_are_put_into_the_system() -> None:
    assert Request(world=4, pool="per-group", sites="implicit").system == System("per-group", sites="implicit")


def test_the_library_is_no_kernel_of_the_system() -> None:
    assert Request(world=4, collectives="library").system == System()


@pytest.mark.parametrize(
    ("collectives", "has_kernels", "via"),
    [(None, True, "mixed"), (None, False, "library"), ("triton", True, "kernel"), ("library", False, "library")],
)
def test_collectives_go_as_asked_or_as_the_ranks_can(collectives: str | None, has_kernels: bool, via: str) -> None:
    assert Request(world=4, collectives=collectives).via(ranks(has_kernels)) == via


def test_what_draws_can_reach_follows_from_what_is_asked_for() -> None:
    def names(**asked: Any) -> set[str]:
        return {state.name for state in Request(world=4, **asked).reachable(ranks())}

    every, simple = names(graphs=True), names(collectives="tests.system.test_splits:Simple")
    assert {"all_gather kernel kernel", "broadcast kernel kernel", "buffer: replay, replay"} <= every
    assert {"all_gather kernel kernel", "broadcast library legacy", "reduce library legacy"} <= simple
    assert not {"all_gather library legacy", "broadcast kernel kernel", "buffer: replay, replay"} & simple
    assert not [name for name in names(collectives="library") if "kernel" in name]


def test_a_kernel_on_ranks_without_peer_pointers_is_refused_with_the_version() -> None:
    with pytest.raises(MachineError, match=r"NCCL 2\.28\.9 gives kernels no peer pointers"):
        Request(world=4, collectives="triton").via(ranks(has_kernels=False))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tokens of free programs": ({"tokens": "uneven"}, "--tokens goes with --flow"),
    "an unknown hazard": ({"hazard": ("luck",)}, "'luck'"),
    "graphs with a hazard": ({"graphs": True, "hazard": ("deny",)}, "--graphs does not go with --hazard"),
    "a flow of one rank": ({"world": 1, "flow": "all"}, "at least 2 ranks"),
    "graphs of a flow": ({"flow": "all", "graphs": True}, "--graphs goes with free programs"),
    "streams of a flow": ({"flow": "all", "streams": 2}, "--streams goes with free programs"),
    "a hazard of a flow": ({"flow": "all", "hazard": ("deny",)}, "--hazard goes with free programs"),
    "more nodes than ranks": ({"nodes": 5}, "5 nodes"),
    "a topology that does not fit": ({"world": 2, "topology": ("qwen3-32b-tp4",)}, "'qwen3-32b-tp4'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_together_is_refused_by_its_option(what: str) -> None:
    options, named = REFUSED[what]
    with pytest.raises(UsageError, match=named):
        Request(**{"world": 4, **options})


def test_implicit_sites_on_topologies_that_have_no_group_for_them_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "holes.json"
    save(Topology("holes", "explicit", families_given={"tp": ((1, 2),)}), file)
    with pytest.raises(UsageError, match="'tp', and rank 0 of topology 'holes' is in no group of it"):
        Request(world=4, sites="implicit", topology=("qwen3-32b-tp4", str(file)))


def test_topologies_asked_for_are_the_only_ones_drawn() -> None:
    drawn = sample(Request(world=4, topology=("qwen3-32b-tp4",)).strategy(ranks()), 10)
    assert {scenario.topology.name for scenario in drawn} == {"qwen3-32b-tp4"}


def test_layouts_are_placed_on_the_nodes_asked_for() -> None:
    drawn = sample(Request(world=4, nodes=4, topology=("qwen3-32b-tp4",)).strategy(ranks()), 5)
    assert {len(set(scenario.topology.node_of)) for scenario in drawn} == {4}


@pytest.mark.parametrize("is_node_bound", [False, True])
def test_layouts_are_placed_in_the_nvlink_domains_asked_for(is_node_bound: bool) -> None:
    request = Request(world=4, nvlink_domain=2, topology=("qwen3-32b-tp4",))
    drawn = sample(request.strategy(ranks(is_node_bound=is_node_bound)), 5)
    assert {scenario.topology.place[:2] for scenario in drawn} == {((0, 0, 0, 0), (0, 0, 1, 1))}


def test_a_domain_that_ends_inside_a_node_is_refused() -> None:
    with pytest.raises(UsageError, match="an NVLink domain of 3 GPUs ends inside a node of 2"):
        Request(world=4, nodes=2, nvlink_domain=3)


@pytest.mark.parametrize(
    ("options", "is_node_bound", "is_said"),
    [
        ({"nodes": 2, "nvlink_domain": 4}, True, True),
        ({"nodes": 2, "nvlink_domain": 4}, False, False),
        ({"nodes": 2, "nvlink_domain": 2}, True, False),
        ({"nodes": 2}, True, False),
    ],
)
def test_what_ranks_on_nccl_do_not_show_of_a_domain_over_nodes_is_said(
    options: dict[str, Any], is_node_bound: bool, is_said: bool
) -> None:
    said = Request(world=4, **options).not_shown(ranks(is_node_bound=is_node_bound))
    assert said == NOT_SHOWN * is_said


def test_ranks_that_are_bound_to_their_node_get_layouts_of_one() -> None:
    drawn = sample(Request(world=4).strategy(ranks(is_node_bound=True)), 10)
    assert {len(set(scenario.topology.node_of)) for scenario in drawn} == {1}


def test_a_flow_draws_flows() -> None:
    drawn = sample(Request(world=4, flow="all", sites="implicit").strategy(ranks()), 5)
    assert {scenario.system.sites for scenario in drawn} == {"implicit"}


def of_corpus(request: Request, on: Any, scenario: Scenario) -> Scenario | None:
    return request.adapted(scenario, on)


def started(name: str, refuses: Sequence[Step] = ()) -> Any:
    """Ranks whose hosts refuse a program."""

    def check_hosts(scenario: Scenario) -> None:
        if scenario.steps == refuses:
            raise UsageError("the two are on different hosts")

    platform = Platform(name, "", 1.0, 1.0, is_node_bound=name == "nccl")
    return SimpleNamespace(description={"kernels": True}, platform=platform, size=4, check_hosts=check_hosts)


ON_SIM, ON_NCCL = started("sim"), started("nccl")
GATHERED = (Allocate("a", "tp", 64), AllGather("tp", View("a"), 8))


def test_a_scenario_of_a_corpus_gets_the_system_under_test() -> None:
    kept = scene(*GATHERED, pool="per-group", kernels="cuda")
    adapted = of_corpus(Request(world=4, pool="shared-at-exit"), ON_SIM, kept)
    assert adapted is not None
    assert (adapted.system, adapted.steps) == (System("shared-at-exit"), kept.steps)


OTHERS: dict[str, tuple[dict[str, Any], Any, Scenario]] = {
    "hazard": ({}, ON_SIM, scene(Deny(0), *GATHERED)),
    "streams": ({}, ON_SIM, scene(Allocate("a", "tp", 64, stream=1))),
    "graphs": (
        {},
        ON_SIM,
        scene(Prepare("g"), *GATHERED, Capture("g"), AllGather("tp", View("a"), 8), EndCapture("g")),
    ),
    "kernels": (
        {"collectives": "library"},
        ON_SIM,
        scene(GATHERED[0], AllGather("tp", View("a"), 8, via="kernel")),
    ),
    "topology": ({"topology": ("qwen3-32b-tp4",)}, ON_SIM, scene(*GATHERED)),
    "ranks": ({}, ON_SIM, scene(*GATHERED, topology=explicit(tp=((0, 1, 2, 3, 4),)))),
    "addresses": ({}, ON_NCCL, Scenario(PAIR, GATHERED, falling=(0,))),
    "same order": ({"same_order": True}, ON_SIM, Scenario(PAIR, GATHERED, falling=(0,))),
    "nodes": ({}, ON_NCCL, scene(*GATHERED, topology=APART)),
    "hosts": ({}, started("sim", refuses=GATHERED), scene(*GATHERED)),
    "implicit": ({"sites": "implicit"}, ON_SIM, scene(Allocate("a", "cp", 64), topology=explicit(cp=((0, 1),)))),
}
ASKED: dict[str, dict[str, Any]] = {
    "hazard": {"hazard": ["deny"]},
    "streams": {"streams": 2},
    "graphs": {"graphs": True},
    "kernels": {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_scenario_that_the_request_does_not_draw_is_left_out(what: str) -> None:
    options, on, kept = OTHERS[what]
    assert of_corpus(Request(world=4, **options), on, kept) is None


@pytest.mark.parametrize("what", ASKED)
def test_it_is_tried_where_it_is_asked_for(what: str) -> None:
    _, on, kept = OTHERS[what]
    assert of_corpus(Request(world=4, **ASKED[what]), on, kept) is not None


@pytest.mark.parametrize("named", [(), ("qwen3-32b-tp4",)])
def test_ranks_that_are_bound_to_their_node_try_what_is_placed_as_it_would_be_drawn(named: tuple[str, ...]) -> None:
    request = Request(world=4, nodes=2, topology=named)
    for drawn in sample(request.strategy(ON_NCCL), 10):
        assert of_corpus(request, ON_NCCL, msgspec.structs.replace(drawn, falling=())) is not None
    assert of_corpus(request, ON_NCCL, scene(*GATHERED, topology=APART)) is None
