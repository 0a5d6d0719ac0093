"""Drawn flows: where each applies, what its batches are like, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.bases import is_uneven
from harness.scenario.flows.catalogue import ENGINES, FLOWS, compile_flows, engines_of
from harness.scenario.flows.layer import Batch
from harness.scenario.flows.sglang import ENGINE, SglangLayer
from harness.scenario.operands import View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, InFlight, Step
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.flows import TOKENS, applies, check_world, flows
from tests.tools.dp_attention import LONE, PAIR, QUADS, ROW, SPLIT, TWICE, collectives, strangers, unreleased

TOKENS_OF = {"4x2": (6, 4, 1, 9), "split": (6, 4), "lone": (6, 4, 1, 9, 2, 2, 3, 5), "row": (6,), "twice": (6, 4)}


def steps(topology: Topology, *names: str, padded: bool = True, layers: int = 1) -> list[Step]:
    """Layers of these lines on the topology's tokens."""
    batch = Batch(TOKENS_OF[topology.name], padded)
    return [*compile_flows(names, SglangLayer(topology, "float32", "library"), [batch], layers)]


def test_a_draw_on_a_topology_without_attention_groups_is_refused_by_name() -> None:
    bare = Topology("bare", "explicit", families_given={"tp": ((0, 1),)})
    with pytest.raises(UsageError, match=r"topology 'bare' \(explicit\) has no attn_tp"):
        sample(flows(2, topologies=st.just(bare)), 1)


def test_a_draw_on_a_convention_without_flows_is_refused_with_those_that_have_some() -> None:
    torch = Topology("torch", "torchtitan", {"tp": 2})
    known = "sglang, vllm, megatron-core, tensorrt-llm"
    with pytest.raises(UsageError, match=f"'torch' has convention torchtitan; flow 'all' runs on {known}"):
        sample(flows(2, topologies=st.just(torch)), 1)


def test_a_flow_on_a_topology_of_another_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="'pair' has convention vllm; flow 'combine' runs on sglang"):
        sample(flows(2, flow="combine", topologies=st.just(PAIR)), 1)


def test_a_draw_of_an_unknown_flow_is_refused() -> None:
    with pytest.raises(UsageError, match="flow 'gather' is not one of all"):
        sample(flows(2, flow="gather"), 1)


def convention_of(name: str) -> str:
    return engines_of(name)[0].convention


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_no_flow_applies_to_one_rank(name: str) -> None:
    assert not applies(name, Topology("one", convention_of(name)))


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_no_flow_applies_where_every_pipeline_stage_is_one_rank(name: str) -> None:
    assert not applies(name, Topology("line", convention_of(name), {"pp": 4}))


REDUCED = "attn-reduce", "mlp-reduce"
"""Where attention is not data parallel."""


@pytest.mark.parametrize(
    ("topology", "idle"),
    [
        (QUADS, {"cp-prefill", *REDUCED}),
        (SPLIT, {*REDUCED}),
        (LONE, {"attn-tp-gather", "cp-prefill", *REDUCED}),
        (ROW, {"attn-tp-gather", "attn-reduce"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_flows_that_have_nothing_to_communicate_do_not_apply(topology: Topology, idle: set[str]) -> None:
    assert {name for name in ENGINE.flows if not applies(name, topology)} == idle


@pytest.mark.parametrize("tokens", TOKENS)
def test_drawn_flows_name_the_right_groups_and_give_everything_back(tokens: str) -> None:
    drawn = sample(flows(8, tokens=tokens), 48)  # type: ignore[arg-type]
    assert [(strangers(scenario), unreleased(scenario.steps)) for scenario in drawn] == [([], set())] * 48


def test_a_stranger_would_be_seen() -> None:
    steps = Allocate("a", "attn_tp", 64), AllGather("tp", View("a"), 1)
    assert strangers(Scenario(QUADS, steps)) == [steps[1]]


def widest(scenario: Scenario) -> int:
    """Ranks of the largest group that a scenario's collectives run on."""
    used = [scenario.topology.families[step.family] for step in collectives(scenario.steps)]
    return max((len(group) for partition in used for group in partition), default=0)


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_a_drawn_flow_communicates(name: str) -> None:
    assert min(widest(scenario) for scenario in sample(flows(8, flow=name), 24)) > 1


def test_flows_of_every_engine_are_drawn_and_sglangs_most_often() -> None:
    met = Counter(scenario.topology.convention for scenario in sample(flows(8), 240))
    assert (met.keys(), met.most_common(1)[0][0]) == (ENGINES.keys(), "sglang")


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_drawn_on_the_convention_of_its_engine(name: str) -> None:
    assert {scenario.topology.convention for scenario in sample(flows(8, flow=name), 12)} == {convention_of(name)}


def test_all_flows_of_a_topology_are_those_of_its_engine() -> None:
    vllm = Topology("vllm", "vllm", {"dp": 2, "tp": 2, "dcp": 2})
    families = {step.family for scenario in sample(flows(4, topologies=st.just(vllm)), 60) for step in scenario.steps}
    assert families == {"dp", "tp", "ep", "dcp", None}


PLAIN_SIZES = (
    *("megatron-fsdp-gather", "megatron-fsdp-scatter", "megatron-expert-gather", "megatron-expert-scatter"),
    *(*REDUCED, "trtllm-moe-reduce"),
)


@pytest.mark.parametrize("name", PLAIN_SIZES)
def test_lines_whose_sizes_never_differ_are_refused_with_uneven_tokens(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"flow '{name}' with uneven tokens has nothing to communicate in a world of 8"
    ):
        check_world(name, "uneven", 8)


@pytest.mark.parametrize("name", sorted(FLOWS.keys() - {*PLAIN_SIZES}))
def test_every_other_line_is_drawn_with_sizes_that_differ(name: str) -> None:
    drawn = [counts(scenario) for scenario in sample(flows(8, flow=name, tokens="uneven"), 12)]
    assert all(max(map(len, each)) > 1 for each in drawn)


def counts(scenario: Scenario) -> list[set[int]]:
    """For each collective, the counts of the ranks."""
    ranks = range(scenario.world)
    return [{at(step.count, rank) for rank in ranks} for step in collectives(scenario.steps)]


@pytest.mark.parametrize("topology", [QUADS, SPLIT, LONE, TWICE], ids=lambda topology: topology.name)
def test_uneven_batches_differ_between_ranks_and_the_last_one_does_not(topology: Topology) -> None:
    drawn = [counts(scenario) for scenario in sample(flows(8, tokens="uneven", topologies=st.just(topology)), 36)]
    first, last = [min(map(len, each[:1])) for each in drawn], [len(each[-1]) for each in drawn]
    assert (min(first) > 1, {*last}) == (True, {1})


def test_uneven_tokens_take_two_dp_ranks() -> None:
    assert (applies("all", ROW), applies("all", ROW, "uneven")) == (True, False)


def test_uneven_flows_are_drawn_on_layouts_where_sizes_differ() -> None:
    drawn = sample(flows(8, tokens="uneven"), 48)
    assert all(max(map(len, counts(scenario))) > 1 for scenario in drawn)


def test_a_world_without_room_for_uneven_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="'cp-prefill' with uneven tokens has nothing to communicate in a world of 3"):
        check_world("cp-prefill", "uneven", 3)


def test_flows_of_an_engine_ask_sites_for_something_in_every_draw() -> None:
    drawn = sample(flows(8), 60)
    assert all(any(getattr(step, "role", "") == "window" for step in scenario.steps) for scenario in drawn)


def test_padded_batches_are_even_and_take_windows() -> None:
    drawn = sample(flows(8, tokens="padded"), 48)
    assert {len(each) for scenario in drawn for each in counts(scenario)} == {1}
    assert all(any(getattr(step, "role", "") == "window" for step in scenario.steps) for scenario in drawn)


def test_the_engines_batches_never_put_uneven_calls_on_windows() -> None:
    drawn = sample(flows(8, tokens="engine"), 96)
    uneven = plain_ones = 0
    for scenario in drawn:
        for step in collectives(scenario.steps):
            differ = any(is_uneven(step, group.ranks) for group in scenario.acting(step))
            uneven += differ
            plain_ones += differ and scenario.allocations[step.whole.buffer].role == "plain"
    assert uneven == plain_ones > 0


def test_the_same_seed_draws_the_same_flows() -> None:
    assert sample(flows(8), 36, seed=3) == sample(flows(8), 36, seed=3)


def test_another_seed_draws_other_flows() -> None:
    assert sample(flows(8), 36, seed=3) != sample(flows(8), 36, seed=4)


def test_a_third_of_the_flows_waits_for_no_call_but_none_in_steady_state() -> None:
    def flying(steady: bool) -> int:
        drawn = sample(flows(8, steady=steady), 90, seed=3)
        return sum(each.steps[0] == InFlight() and each.steps[-1] == InFlight(begins=False) for each in drawn)

    assert 20 < flying(steady=False) < 40
    assert flying(steady=True) == 0
