"""Drawn batches: which sources have work, which pad, and what is moved and asked for at most."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from harness.scenario.flows.catalogue import ENGINES, layer_of, lines
from harness.scenario.flows.layer import Batch, Layer
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.tokens import ASKED, MOVED, TOKENS, Tokens, communicates, draw_batches, draw_sizes
from tests.tools.dp_attention import QUADS

LAYOUTS = [
    QUADS,
    Topology("vllm", "vllm", {"dp": 4, "tp": 2}),
    Topology("megatron", "megatron-core", {"dp": 4, "tp": 2, "ep": 2, "etp": 2}),
    Topology("trtllm", "tensorrt-llm", {"tp": 8}),
]


@st.composite
def batches(draw: st.DrawFn, topology: Topology, tokens: Tokens) -> tuple[Layer, list[Batch]]:
    layer = layer_of(topology)
    drawn = draw_batches(draw, [*lines(layer)], layer, tokens)
    draw_sizes(draw, layer, drawn)
    return layer, drawn


def test_the_layouts_here_are_of_every_engine() -> None:
    assert {topology.convention for topology in LAYOUTS} == ENGINES.keys()


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("topology", LAYOUTS, ids=lambda topology: topology.name)
def test_in_a_share_of_the_batches_a_source_has_no_tokens_and_in_none_all(topology: Topology, tokens: Tokens) -> None:
    drawn = [batch for _, each in sample(batches(topology, tokens), 60) for batch in each]
    idle = sum(0 in batch.tokens for batch in drawn)
    assert (0 < idle < len(drawn), all(any(batch.tokens) for batch in drawn)) == (True, True)


@pytest.mark.parametrize("topology", LAYOUTS, ids=lambda topology: topology.name)
def test_every_batch_but_the_last_of_uneven_tokens_has_sizes_that_differ(topology: Topology) -> None:
    for layer, drawn in sample(batches(topology, "uneven"), 48):
        assert [batch.is_padded for batch in drawn] == [False] * (len(drawn) - 1) + [True]
        for batch in drawn[:-1]:
            layer.batch, layer.steps = batch, []
            for flow in lines(layer).values():
                flow(layer)
            assert any(isinstance(getattr(step, "count", 0), tuple) for step in layer.steps)


@pytest.mark.parametrize("topology", LAYOUTS, ids=lambda topology: topology.name)
def test_little_is_moved_and_much_is_asked_for(topology: Topology) -> None:
    moved, asked = 0, 0
    for layer, drawn in sample(batches(topology, "padded"), 48):
        longest = max(max(batch.tokens) for batch in drawn) * layer.spread
        moved, asked = max(moved, longest * (layer.hidden > 1) * layer.hidden), max(asked, longest * layer.stretch)
    assert moved <= MOVED
    assert 1 << 16 < asked <= ASKED


def test_uneven_tokens_take_two_sources() -> None:
    alone = layer_of(Topology("alone", "vllm", {"tp": 4, "dcp": 2}))
    assert (communicates(["vllm-dcp"], alone, "padded"), communicates(["vllm-dcp"], alone, "uneven")) == (True, False)
