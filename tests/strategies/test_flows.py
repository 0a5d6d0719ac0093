"""Layer flows: what each line asks for, on which groups its collectives run, and that every layout has a program."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.flows import FLOWS, check_flow, compile_flows
from harness.scenario.layers import KERNEL_COUNT, Batch, Layer, engine_batch
from harness.scenario.operands import Elements, View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, ReduceScatter, Release, Step
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.flows import TOKENS, applies, check_world, flows
from harness.strategies.topologies import topologies

QUADS = Topology("4x2", "sglang", {"tp": 8, "attn_dp": 4})
"""Four DP ranks of attention TP 2."""
SPLIT = Topology("split", "sglang", {"tp": 8, "attn_dp": 2, "attn_cp": 2})
"""Two DP ranks of attention TP 2 and CP 2."""
LONE = Topology("lone", "sglang", {"tp": 8, "attn_dp": 8})
"""Eight DP ranks, each on its own."""
ROW = Topology("row", "sglang", {"tp": 4, "attn_cp": 4})
"""One DP rank, all of it context parallel."""
TWICE = Topology("twice", "sglang", {"tp": 4, "pp": 2, "attn_dp": 2})
"""Two pipeline stages of two DP ranks."""
VLLM = Topology("pair", "vllm", {"tp": 2})
TOKENS_OF = {"4x2": (6, 4, 1, 9), "split": (6, 4), "lone": (6, 4, 1, 9, 2, 2, 3, 5), "row": (6,), "twice": (6, 4)}

Local = tuple[str, str, Elements]


def steps(topology: Topology, *names: str, padded: bool = True, layers: int = 1) -> list[Step]:
    """Layers of these lines on the topology's tokens."""
    batch = Batch(TOKENS_OF[topology.name], padded)
    return [*compile_flows(names, Layer(topology, "float32", "library"), [batch], layers)]


def taken(topology: Topology, name: str, padded: bool = True) -> list[Step]:
    """The steps of one line, without those at its end that give everything back."""
    return [step for step in steps(topology, name, padded=padded) if not isinstance(step, Release)]


def local(buffer: str, family: str, elements: Elements) -> Allocate:
    return Allocate(buffer, family, elements, "float32", "window", "local")


def whole(buffer: str, elements: int) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "window", "global")


def plain(buffer: str, elements: Elements) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "plain")


def twice(elements: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2 * each for each in elements)


# shards: of the longest DP rank's tokens where padded, of the rank's own where not

ODD_QUADS = (3, 3, 2, 2, 1, 1, 5, 5)
ODD_SPLIT = (2, 2, 2, 2, 1, 1, 1, 1)
ODD_LONE = (6, 4, 1, 9, 2, 2, 3, 5)


def test_a_padded_batch_gives_every_rank_a_shard_of_the_longest_dp_rank() -> None:
    layer = Layer(QUADS, "float32", "library", batch=Batch((6, 4, 1, 9), padded=True))
    assert [layer.shard(rank) for rank in range(8)] == [5] * 8


def test_an_unpadded_batch_gives_every_rank_a_shard_of_its_own_dp_rank() -> None:
    layer = Layer(QUADS, "float32", "library", batch=Batch((6, 4, 1, 9), padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [*ODD_QUADS]


def test_context_parallel_ranks_share_the_tokens_of_their_dp_rank() -> None:
    layer = Layer(SPLIT, "float32", "library", batch=Batch((6, 4), padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [*ODD_SPLIT]


def test_every_pipeline_stage_has_the_same_tokens() -> None:
    layer = Layer(TWICE, "float32", "library", batch=Batch((6, 4), padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [3, 3, 2, 2, 3, 3, 2, 2]


def test_a_global_buffer_holds_the_shards_of_one_pipeline_stage() -> None:
    assert Layer(TWICE, "float32", "library", batch=Batch((6, 4), padded=False)).all_shards() == 10


def test_a_shard_has_so_many_elements_a_token() -> None:
    layer = Layer(QUADS, "float32", "library", hidden=16, batch=Batch((6, 4, 1, 9), padded=True))
    assert layer.shard(0) == 80


# each line: four DP ranks of attention TP 2

CHUNKS_OF_TWO = (0, 5, 0, 5, 0, 5, 0, 5)
CHUNKS_OF_EIGHT = (0, 5, 10, 15, 20, 25, 30, 35)


def test_attn_tp_gather_fills_a_local_buffer_over_attention_tp() -> None:
    assert taken(QUADS, "attn-tp-gather") == [
        plain("b0", 5),
        local("b1", "attn_tp", 10),
        AllGather("attn_tp", View("b1"), 5, View("b0")),
    ]


def test_moe_gather_reduces_into_its_own_chunk_and_gathers_that_over_tp() -> None:
    assert taken(QUADS, "moe-gather") == [
        local("b0", "attn_tp", 10),
        ReduceScatter("attn_tp", View("b0"), 5, None),
        whole("b1", 40),
        AllGather("tp", View("b1"), 5, View("b0", CHUNKS_OF_TWO)),
    ]


def test_moe_scatter_reduces_over_tp_in_place_and_gathers_that_chunk_over_attention_tp() -> None:
    assert taken(QUADS, "moe-scatter") == [
        whole("b0", 40),
        ReduceScatter("tp", View("b0"), 5, None),
        local("b1", "attn_tp", 10),
        AllGather("attn_tp", View("b1"), 5, View("b0", CHUNKS_OF_EIGHT)),
    ]


def test_combine_reduces_a_global_buffer_into_a_local_one_of_tp() -> None:
    assert taken(QUADS, "combine") == [
        whole("b0", 40),
        local("b1", "tp", 5),
        ReduceScatter("tp", View("b0"), 5, View("b1")),
    ]


@pytest.mark.parametrize("padded", [True, False])
def test_cp_prefill_takes_no_step_without_context_parallelism(padded: bool) -> None:
    assert steps(QUADS, "cp-prefill", padded=padded) == []


def test_unpadded_attn_tp_gather_counts_by_dp_rank() -> None:
    assert taken(QUADS, "attn-tp-gather", padded=False) == [
        plain("b0", ODD_QUADS),
        local("b1", "attn_tp", twice(ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0")),
    ]


def test_unpadded_moe_gather_takes_chunks_that_begin_where_their_group_says() -> None:
    assert taken(QUADS, "moe-gather", padded=False) == [
        local("b0", "attn_tp", twice(ODD_QUADS)),
        ReduceScatter("attn_tp", View("b0"), ODD_QUADS, None),
        whole("b1", 22),
        AllGather("tp", View("b1"), ODD_QUADS, View("b0", (0, 3, 0, 2, 0, 1, 0, 5))),
    ]


def test_unpadded_moe_scatter_takes_chunks_that_begin_behind_those_of_all_ranks_before() -> None:
    assert taken(QUADS, "moe-scatter", padded=False) == [
        whole("b0", 22),
        ReduceScatter("tp", View("b0"), ODD_QUADS, None),
        local("b1", "attn_tp", twice(ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0", (0, 3, 6, 8, 10, 11, 12, 17))),
    ]


def test_unpadded_combine_leaves_every_rank_its_own_size() -> None:
    assert taken(QUADS, "combine", padded=False) == [
        whole("b0", 22),
        local("b1", "tp", ODD_QUADS),
        ReduceScatter("tp", View("b0"), ODD_QUADS, View("b1")),
    ]


# each line: with context parallelism


def test_attn_tp_gather_leaves_context_parallelism_alone() -> None:
    assert taken(SPLIT, "attn-tp-gather") == [
        plain("b0", 2),
        local("b1", "attn_tp", 4),
        AllGather("attn_tp", View("b1"), 2, View("b0")),
    ]


def test_cp_prefill_gathers_over_context_parallelism_and_reduces_back() -> None:
    assert taken(SPLIT, "cp-prefill") == [
        plain("b0", 4),
        local("b1", "attn_cp", 8),
        AllGather("attn_cp", View("b1"), 4, View("b0")),
        ReduceScatter("attn_cp", View("b1"), 4, View("b0")),
    ]


def test_unpadded_cp_prefill_counts_by_dp_rank() -> None:
    assert taken(SPLIT, "cp-prefill", padded=False) == [
        plain("b0", twice(ODD_SPLIT)),
        local("b1", "attn_cp", twice(twice(ODD_SPLIT))),
        AllGather("attn_cp", View("b1"), twice(ODD_SPLIT), View("b0")),
        ReduceScatter("attn_cp", View("b1"), twice(ODD_SPLIT), View("b0")),
    ]


def test_moe_gather_is_the_same_with_context_parallelism() -> None:
    assert taken(SPLIT, "moe-gather") == [
        local("b0", "attn_tp", 4),
        ReduceScatter("attn_tp", View("b0"), 2, None),
        whole("b1", 16),
        AllGather("tp", View("b1"), 2, View("b0", (0, 2, 0, 2, 0, 2, 0, 2))),
    ]


def test_moe_scatter_with_context_parallelism_goes_through_a_local_buffer() -> None:
    assert taken(SPLIT, "moe-scatter") == [
        whole("b0", 16),
        local("b1", "attn_tp", 4),
        ReduceScatter("tp", View("b0"), 2, View("b1", (0, 2, 0, 2, 0, 2, 0, 2))),
        AllGather("attn_tp", View("b1"), 2, None),
        local("b2", "attn_cp", 8),
        AllGather("attn_cp", View("b2"), 4, View("b1")),
    ]


def test_unpadded_moe_scatter_with_context_parallelism_counts_by_dp_rank() -> None:
    assert taken(SPLIT, "moe-scatter", padded=False) == [
        whole("b0", 12),
        local("b1", "attn_tp", twice(ODD_SPLIT)),
        ReduceScatter("tp", View("b0"), ODD_SPLIT, View("b1", (0, 2, 0, 2, 0, 1, 0, 1))),
        AllGather("attn_tp", View("b1"), ODD_SPLIT, None),
        local("b2", "attn_cp", twice(twice(ODD_SPLIT))),
        AllGather("attn_cp", View("b2"), twice(ODD_SPLIT), View("b1")),
    ]


def test_combine_is_the_same_with_context_parallelism() -> None:
    assert taken(SPLIT, "combine") == [
        whole("b0", 16),
        local("b1", "tp", 2),
        ReduceScatter("tp", View("b0"), 2, View("b1")),
    ]


def test_moe_scatter_with_context_parallelism_alone_gathers_over_it_from_the_global_buffer() -> None:
    assert taken(ROW, "moe-scatter") == [
        whole("b0", 8),
        ReduceScatter("tp", View("b0"), 2, None),
        local("b1", "attn_cp", 8),
        AllGather("attn_cp", View("b1"), 2, View("b0", (0, 2, 4, 6))),
    ]


def users(topology: Topology, name: str) -> dict[str, list[str]]:
    """For each buffer of a line, the families of the collectives that it is an operand of."""
    found: dict[str, list[str]] = {}
    for step in collectives(taken(topology, name)):
        for view in (step.whole, step.part):
            if view is not None:
                found.setdefault(view.buffer, []).append(step.family)
    return found


def test_moe_scatter_uses_one_buffer_under_two_groups_without_context_parallelism() -> None:
    assert users(QUADS, "moe-scatter") == {"b0": ["tp", "attn_tp"], "b1": ["attn_tp"]}


def test_moe_scatter_uses_one_buffer_under_three_groups_with_context_parallelism() -> None:
    assert users(SPLIT, "moe-scatter") == {"b0": ["tp"], "b1": ["tp", "attn_tp", "attn_cp"], "b2": ["attn_cp"]}


def test_moe_gather_uses_one_buffer_under_two_groups() -> None:
    assert users(QUADS, "moe-gather") == {"b0": ["attn_tp", "tp"], "b1": ["tp"]}


# each line: every rank a DP rank of its own


@pytest.mark.parametrize("name", ["attn-tp-gather", "cp-prefill"])
@pytest.mark.parametrize("padded", [True, False])
def test_a_line_over_a_group_of_one_rank_takes_no_step(name: str, padded: bool) -> None:
    assert steps(LONE, name, padded=padded) == []


def test_attn_tp_gather_takes_no_step_where_all_of_a_dp_rank_is_context_parallel() -> None:
    assert steps(ROW, "attn-tp-gather") == []


def test_moe_gather_takes_activations_where_attention_tp_has_one_rank() -> None:
    assert taken(LONE, "moe-gather") == [
        plain("b0", 9),
        whole("b1", 72),
        AllGather("tp", View("b1"), 9, View("b0")),
    ]


@pytest.mark.parametrize("name", ["moe-scatter", "combine"])
def test_moe_scatter_is_a_combine_where_attention_has_one_rank(name: str) -> None:
    assert taken(LONE, name) == [
        whole("b0", 72),
        local("b1", "tp", 9),
        ReduceScatter("tp", View("b0"), 9, View("b1")),
    ]


def test_unpadded_moe_gather_of_single_ranks_differs_inside_tp() -> None:
    assert taken(LONE, "moe-gather", padded=False) == [
        plain("b0", ODD_LONE),
        whole("b1", 32),
        AllGather("tp", View("b1"), ODD_LONE, View("b0")),
    ]


@pytest.mark.parametrize("name", ["moe-scatter", "combine"])
def test_unpadded_reductions_of_single_ranks_differ_inside_tp(name: str) -> None:
    assert taken(LONE, name, padded=False) == [
        whole("b0", 32),
        local("b1", "tp", ODD_LONE),
        ReduceScatter("tp", View("b0"), ODD_LONE, View("b1")),
    ]


# layers


def alive(program: list[Step]) -> set[str]:
    """What a program allocates and does not release."""
    made = [step.buffer for step in program if isinstance(step, Allocate)]
    gone = [step.buffer for step in program if isinstance(step, Release)]
    assert len({*made}) == len(made)
    assert len({*gone}) == len(gone)
    return {*made} - {*gone}


@pytest.mark.parametrize("topology", [QUADS, SPLIT, LONE, ROW, TWICE], ids=lambda topology: topology.name)
@pytest.mark.parametrize("layers", [1, 3])
def test_layers_release_everything_that_they_allocate(topology: Topology, layers: int) -> None:
    program = steps(topology, *FLOWS, layers=layers)
    assert (alive(program), sum(isinstance(step, Allocate) for step in program) > 0) == (set(), True)


def test_equal_layers_take_equal_steps_on_fresh_buffers() -> None:
    assert [step.kind for step in steps(SPLIT, *FLOWS, layers=2)] == 2 * [step.kind for step in steps(SPLIT, *FLOWS)]


def test_what_a_line_was_given_goes_when_the_next_has_run() -> None:
    assert [step for step in steps(QUADS, "combine", "attn-tp-gather") if not isinstance(step, Collective)] == [
        plain("b0", 5),
        local("b1", "attn_tp", 10),
        whole("b2", 40),
        local("b3", "tp", 5),
        Release("b0"),
        Release("b1"),
        Release("b2"),
        Release("b3"),
    ]


def test_a_third_line_meets_what_the_first_gave_back() -> None:
    program = steps(SPLIT, "attn-tp-gather", "cp-prefill", "combine")
    order = [step.buffer for step in program if isinstance(step, Allocate | Release)]
    assert order == ["b0", "b1", "b2", "b3", "b0", "b1", "b4", "b5", "b2", "b3", "b4", "b5"]


def test_lines_run_in_a_layers_order_whatever_order_they_are_named_in() -> None:
    assert steps(SPLIT, "combine", "moe-gather") == steps(SPLIT, "moe-gather", "combine")


def test_batches_follow_one_another_with_their_own_sizes() -> None:
    layer = Layer(LONE, "float32", "library")
    program = compile_flows(["combine"], layer, [Batch((3,) * 8, True), Batch((1, 2) * 4, False)], 1)
    assert [step.count for step in collectives([*program])] == [3, (1, 2, 1, 2, 1, 2, 1, 2)]


def test_stretch_makes_buffers_of_sites_larger_than_what_moves_through_them() -> None:
    layer = Layer(QUADS, "float32", "library", stretch=16)
    program = compile_flows(["attn-tp-gather"], layer, [Batch((6, 4, 1, 9), padded=False)], 1)
    assert [*program[:3]] == [
        plain("b0", ODD_QUADS),
        local("b1", "attn_tp", tuple(32 * each for each in ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0")),
    ]


def collectives(program: list[Step]) -> list[Collective]:
    return [step for step in program if isinstance(step, AllGather | ReduceScatter)]


def vias(topology: Topology, tokens: tuple[int, ...], name: str, padded: bool) -> list[str]:
    program = compile_flows([name], Layer(topology, "float32", "kernel"), [Batch(tokens, padded)], 1)
    return [step.via for step in collectives([*program])]


def test_kernels_take_calls_of_equal_counts() -> None:
    assert vias(LONE, (9,) * 8, "combine", padded=True) == ["kernel"]


def test_the_library_takes_calls_whose_counts_differ_inside_a_group() -> None:
    assert vias(LONE, ODD_LONE, "combine", padded=False) == ["library"]


def test_kernels_take_calls_whose_counts_differ_between_groups_alone() -> None:
    assert vias(QUADS, (6, 4, 1, 9), "moe-scatter", padded=False) == ["library", "kernel"]


@pytest.mark.parametrize(("tokens", "via"), [(KERNEL_COUNT, "kernel"), (KERNEL_COUNT + 1, "library")])
def test_the_library_takes_counts_that_are_too_large_for_kernels(tokens: int, via: str) -> None:
    assert vias(LONE, (tokens,) + (1,) * 7, "combine", padded=True) == [via]


# the engine's batches


@pytest.mark.parametrize("tokens", [(4, 4), (1, 100), (7,)])
def test_an_extending_batch_is_not_padded(tokens: tuple[int, ...]) -> None:
    assert engine_batch(tokens, extending=True) == Batch(tokens, padded=False, symmetric=False)


def test_a_batch_is_padded_where_padding_costs_less_than_twice_its_tokens() -> None:
    assert engine_batch((4, 1), extending=False) == Batch((4, 1), padded=True, symmetric=True)


@pytest.mark.parametrize(
    ("tokens", "padded"), [((4, 1, 1, 3), True), ((4, 1, 1, 2), False), ((4, 1, 1, 1), False), ((7,), True)]
)
def test_a_batch_is_padded_only_above_half_of_what_padding_makes_of_it(tokens: tuple[int, ...], padded: bool) -> None:
    assert engine_batch(tokens, extending=False) == Batch(tokens, padded, symmetric=padded)


def test_sites_take_ordinary_memory_without_symmetric_memory() -> None:
    batch = engine_batch(ODD_LONE, extending=True)
    program = compile_flows(["combine"], Layer(LONE, "float32", "library"), [batch], 1)
    allocated = [step for step in program if isinstance(step, Allocate)]
    assert allocated == [
        Allocate("b0", "tp", 32, "float32", "plain", "global"),
        Allocate("b1", "tp", ODD_LONE, "float32", "plain", "local"),
    ]


def test_no_line_takes_a_window_without_symmetric_memory() -> None:
    program = compile_flows(FLOWS, Layer(SPLIT, "float32", "library"), [engine_batch((6, 4), extending=True)], 2)
    assert {step.role for step in program if isinstance(step, Allocate)} == {"plain"}


# refusals


def test_a_topology_without_attention_groups_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"topology 'pair' \(vllm\) has no attn_tp; flows run on the families"):
        Layer(VLLM, "float32", "library")


def test_a_draw_on_a_topology_without_attention_groups_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"topology 'pair' \(vllm\) has no attn_tp"):
        sample(flows(2, topologies=st.just(VLLM)), 1)


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_a_known_flow_passes(name: str) -> None:
    check_flow(name)


def test_an_unknown_flow_is_refused_with_those_that_there_are() -> None:
    known = "all, attn-tp-gather, cp-prefill, moe-gather, moe-scatter, combine"
    with pytest.raises(UsageError, match=f"flow 'gather' is not one of {known}"):
        check_flow("gather")


def test_a_draw_of_an_unknown_flow_is_refused() -> None:
    with pytest.raises(UsageError, match="flow 'gather' is not one of all"):
        sample(flows(2, flow="gather"), 1)


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_no_flow_applies_to_one_rank(name: str) -> None:
    assert not applies(name, Topology("one", "sglang", {"tp": 1}))


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_no_flow_applies_where_every_pipeline_stage_is_one_rank(name: str) -> None:
    assert not applies(name, Topology("line", "sglang", {"tp": 1, "pp": 4}))


@pytest.mark.parametrize(
    ("topology", "idle"),
    [
        (QUADS, {"cp-prefill"}),
        (SPLIT, set()),
        (LONE, {"attn-tp-gather", "cp-prefill"}),
        (ROW, {"attn-tp-gather"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_flows_that_have_nothing_to_communicate_do_not_apply(topology: Topology, idle: set[str]) -> None:
    assert {name for name in FLOWS if not applies(name, topology)} == idle


# what is drawn

SETTINGS = settings(deadline=None, database=None, max_examples=100)
BATCHES = st.tuples(st.lists(st.integers(1, 40), min_size=8, max_size=8), st.booleans(), st.booleans())


def strangers(scenario: Scenario) -> list[Collective]:
    """Collectives of more than one rank that reach peers through a window of other groups than their own."""
    families = scenario.topology.families
    asked = {step.buffer: step for step in scenario.steps if isinstance(step, Allocate)}
    return [
        step
        for step in collectives([*scenario.steps])
        if any(len(group) > 1 for group in families[step.family])
        and asked[step.whole.buffer].role == "window"
        and families[asked[step.whole.buffer].family] != families[step.family]
    ]


@SETTINGS
@given(
    topology=topologies(8, conventions=("sglang",)),
    names=st.sets(st.sampled_from([*FLOWS]), min_size=1),
    batches=st.lists(BATCHES, min_size=1, max_size=3),
    hidden=st.integers(1, 5),
    layers=st.integers(1, 3),
)
def test_every_layout_has_a_program_of_every_flow_that_names_the_right_groups(
    topology: Topology,
    names: set[str],
    batches: list[tuple[list[int], bool, bool]],
    hidden: int,
    layers: int,
) -> None:
    layer = Layer(topology, "float32", "kernel", hidden)
    tokens = [Batch(tuple(each[: layer.attn_dp]), padded, symmetric) for each, padded, symmetric in batches]
    scenario = Scenario(topology, compile_flows(names, layer, tokens, layers))
    assert (strangers(scenario), alive([*scenario.steps])) == ([], set())


@pytest.mark.parametrize("tokens", TOKENS)
def test_drawn_flows_name_the_right_groups_and_give_everything_back(tokens: str) -> None:
    drawn = sample(flows(8, tokens=tokens), 48)  # type: ignore[arg-type]
    assert [(strangers(scenario), alive([*scenario.steps])) for scenario in drawn] == [([], set())] * 48


def test_a_stranger_would_be_seen() -> None:
    steps = Allocate("a", "attn_tp", 64), AllGather("tp", View("a"), 1)
    assert strangers(Scenario(QUADS, steps)) == [steps[1]]


def widest(scenario: Scenario) -> int:
    """Ranks of the largest group that a scenario's collectives run on."""
    used = [scenario.topology.families[step.family] for step in collectives([*scenario.steps])]
    return max((len(group) for partition in used for group in partition), default=0)


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_a_drawn_flow_communicates(name: str) -> None:
    assert min(widest(scenario) for scenario in sample(flows(8, flow=name), 24)) > 1


def counts(scenario: Scenario) -> list[set[int]]:
    """For each collective, the counts of the ranks."""
    ranks = range(scenario.world)
    return [{at(step.count, rank) for rank in ranks} for step in collectives([*scenario.steps])]


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


@pytest.mark.parametrize(
    ("families", "said"),
    [
        ({"tp": ((0, 1), (2, 3)), "attn_tp": ((0, 1, 2, 3),)}, "attention TP 4 · CP 1 does not divide TP 2"),
        ({"tp": ((0,), (1, 2, 3)), "attn_tp": ((0,), (1,), (2,), (3,))}, "groups of tp have 1 and 3 ranks"),
    ],
)
def test_a_topology_that_no_layer_fits_is_refused(families: dict[str, Any], said: str) -> None:
    odd = Topology("odd", "explicit", families_given={**families, "attn_cp": ((0,), (1,), (2,), (3,))})
    with pytest.raises(UsageError, match=said):
        Layer(odd, "float32", "library")


def test_padded_batches_are_even_and_take_windows() -> None:
    drawn = sample(flows(8, tokens="padded"), 48)
    assert {len(each) for scenario in drawn for each in counts(scenario)} == {1}
    assert all(any(getattr(step, "role", "") == "window" for step in scenario.steps) for scenario in drawn)


def test_the_engines_batches_never_put_uneven_calls_on_windows() -> None:
    drawn = sample(flows(8, tokens="engine"), 96)
    uneven = plain_ones = 0
    for scenario in drawn:
        roles = {step.buffer: step.role for step in scenario.steps if isinstance(step, Allocate)}
        for step, each in zip(collectives([*scenario.steps]), counts(scenario), strict=True):
            uneven += len(each) > 1
            plain_ones += len(each) > 1 and roles[step.whole.buffer] == "plain"
    assert uneven == plain_ones > 0


def test_the_same_seed_draws_the_same_flows() -> None:
    assert sample(flows(8), 36, seed=3) == sample(flows(8), 36, seed=3)


def test_another_seed_draws_other_flows() -> None:
    assert sample(flows(8), 36, seed=3) != sample(flows(8), 36, seed=4)
