"""Flows compiled to programs: every layout has one, and its layers give back what they allocate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.flows.catalogue import check_flow, compile_flows
from harness.scenario.flows.layer import KERNEL_COUNT, Batch
from harness.scenario.flows.sglang import FLOWS, SglangLayer, engine_batch
from harness.scenario.operands import Elements, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, Release, Step
from harness.scenario.topology import Topology
from harness.strategies.topologies import topologies
from tests.tools.dp_attention import LONE, QUADS, ROW, SPLIT, TWICE, collectives, strangers, unreleased

TOKENS_OF = {"4x2": (6, 4, 1, 9), "split": (6, 4), "lone": (6, 4, 1, 9, 2, 2, 3, 5), "row": (6,), "twice": (6, 4)}


def steps(topology: Topology, *names: str, padded: bool = True, layers: int = 1) -> list[Step]:
    """Layers of these lines on the topology's tokens."""
    batch = Batch(TOKENS_OF[topology.name], padded)
    return [*compile_flows(names, SglangLayer(topology, "float32", "library"), [batch], layers)]


def local(buffer: str, family: str, elements: Elements) -> Allocate:
    return Allocate(buffer, family, elements, "float32", "window", "local")


def whole(buffer: str, elements: int) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "window", "global")


def plain(buffer: str, elements: Elements) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "plain")


ODD_QUADS = (3, 3, 2, 2, 1, 1, 5, 5)
ODD_LONE = (6, 4, 1, 9, 2, 2, 3, 5)


@pytest.mark.parametrize("topology", [QUADS, SPLIT, LONE, ROW, TWICE], ids=lambda topology: topology.name)
@pytest.mark.parametrize("layers", [1, 3])
def test_layers_release_everything_that_they_allocate(topology: Topology, layers: int) -> None:
    program = steps(topology, *FLOWS, layers=layers)
    assert (unreleased(program), sum(isinstance(step, Allocate) for step in program) > 0) == (set(), True)


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
    layer = SglangLayer(LONE, "float32", "library")
    program = compile_flows(["combine"], layer, [Batch((3,) * 8, True), Batch((1, 2) * 4, False)], 1)
    assert [step.count for step in collectives(program)] == [3, (1, 2, 1, 2, 1, 2, 1, 2)]


def test_stretch_makes_buffers_of_sites_larger_than_what_moves_through_them() -> None:
    layer = SglangLayer(QUADS, "float32", "library", stretch=16)
    program = compile_flows(["attn-tp-gather"], layer, [Batch((6, 4, 1, 9), is_padded=False)], 1)
    assert [*program[:3]] == [
        plain("b0", ODD_QUADS),
        local("b1", "attn_tp", tuple(32 * each for each in ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0")),
    ]


def vias(topology: Topology, tokens: tuple[int, ...], name: str, padded: bool) -> list[str]:
    program = compile_flows([name], SglangLayer(topology, "float32", "kernel"), [Batch(tokens, padded)], 1)
    return [step.via for step in collectives(program)]


def test_kernels_take_calls_of_equal_counts() -> None:
    assert vias(LONE, (9,) * 8, "combine", padded=True) == ["kernel"]


def test_the_library_takes_calls_whose_counts_differ_inside_a_group() -> None:
    assert vias(LONE, ODD_LONE, "combine", padded=False) == ["library"]


def test_kernels_take_calls_whose_counts_differ_between_groups_alone() -> None:
    assert vias(QUADS, (6, 4, 1, 9), "moe-scatter", padded=False) == ["library", "kernel"]


@pytest.mark.parametrize(("tokens", "via"), [(KERNEL_COUNT, "kernel"), (KERNEL_COUNT + 1, "library")])
def test_the_library_takes_counts_that_are_too_large_for_kernels(tokens: int, via: str) -> None:
    assert vias(LONE, (tokens,) + (1,) * 7, "combine", padded=True) == [via]


def test_sites_take_ordinary_memory_without_symmetric_memory() -> None:
    batch = engine_batch(ODD_LONE, is_extending=True)
    program = compile_flows(["combine"], SglangLayer(LONE, "float32", "library"), [batch], 1)
    allocated = [step for step in program if isinstance(step, Allocate)]
    assert allocated == [
        Allocate("b0", "tp", 32, "float32", "plain", "global"),
        Allocate("b1", "tp", ODD_LONE, "float32", "plain", "local"),
    ]


def test_no_line_takes_a_window_without_symmetric_memory() -> None:
    program = compile_flows(
        FLOWS, SglangLayer(SPLIT, "float32", "library"), [engine_batch((6, 4), is_extending=True)], 2
    )
    assert {step.role for step in program if isinstance(step, Allocate)} == {"plain"}


@pytest.mark.parametrize("name", [*FLOWS, "all"])
def test_a_known_flow_passes(name: str) -> None:
    check_flow(name)


def test_an_unknown_flow_is_refused_with_those_that_there_are() -> None:
    known = "all, attn-tp-gather, attn-reduce, cp-prefill, moe-gather, moe-scatter, combine"
    with pytest.raises(UsageError, match=f"flow 'gather' is not one of {known}"):
        check_flow("gather")


SETTINGS = settings(deadline=None, database=None, max_examples=100)
BATCHES = st.tuples(st.lists(st.integers(1, 40), min_size=8, max_size=8), st.booleans(), st.booleans())


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
    layer = SglangLayer(topology, "float32", "kernel", hidden)
    tokens = [Batch(tuple(each[: layer.attn_dp]), padded, symmetric) for each, padded, symmetric in batches]
    scenario = Scenario(topology, compile_flows(names, layer, tokens, layers))
    assert (strangers(scenario), unreleased(scenario.steps)) == ([], set())
