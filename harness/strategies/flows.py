"""Strategies for scenarios of layer flows: an engine's layers on batches of drawn token counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, product

from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.bases import Via as StepVia
from harness.scenario.flows.catalogue import ALL, check_flow, compile_flows, engines_of, layer_of, lines
from harness.scenario.flows.sglang import SglangLayer
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.layouts.groups import LayoutError
from harness.scenario.operands import DType
from harness.scenario.scenario import Scenario
from harness.scenario.steps import InFlight
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.actions import Via
from harness.strategies.tokens import TOKENS, Tokens, communicates, draw_batches, draw_sizes
from harness.strategies.topologies import topologies as all_topologies

__all__ = ["TOKENS", "Tokens", "applies", "check_world", "flows"]

SHARES = {SglangLayer.convention: 3}
"""How often an engine is drawn where any may be; 1 if left out."""
FLIES = (False, False, True)
"""Whether no call of a flow is waited for, as in an engine. Less is looked at then, and later."""
DTYPES: tuple[DType, ...] = ("bfloat16", "bfloat16", "float32", "float16")


def applies(name: str, topology: Topology, tokens: Tokens = "engine") -> bool:
    """Whether a flow (or `all`) has anything to communicate on a topology; with uneven tokens, in sizes that differ.

    Raises `UsageError` for a topology that is not of the flow's convention."""
    layer = layer_of(topology, name)
    return communicates([*lines(layer)] if name == ALL else [name], layer, tokens)


def check_world(flow: str, tokens: Tokens, world: int) -> None:
    """Raise `UsageError` if a flow has nothing to communicate on any layout of at most `world` ranks."""
    if not _conventions(flow, tokens, world):
        raise UsageError(f"flow {flow!r} with {tokens} tokens has nothing to communicate in a world of {world}")


def _conventions(flow: str, tokens: Tokens, world: int) -> tuple[str, ...]:
    """The conventions on which a flow has something to communicate, each as often as it is drawn."""
    names = [engine.convention for engine in engines_of(flow)]
    return tuple(chain(*([name] * SHARES.get(name, 1) for name in names if _plain(name, flow, tokens, 2, world))))


@cache
def _plain(convention: str, flow: str, tokens: Tokens, size: int, world: int) -> Topology | None:
    """A layout of at least `size` ranks, if one can be, and of at most `world`, on which a flow communicates."""
    for ranks in (*range(size, world + 1), *range(2, size)):
        for topology in _plain_layouts(convention, ranks):
            if applies(flow, topology, tokens):
                return topology
    return None


def _plain_layouts(convention: str, ranks: int) -> Iterator[Topology]:
    """Layouts of so many ranks to choose from."""
    found = _dp_attention(ranks) if convention == SglangLayer.convention else CONVENTIONS[convention].candidates(ranks)
    for degrees in found:
        try:
            yield Topology("drawn", convention, {name: width for name, width in degrees.items() if width != 1})
        except LayoutError:
            continue  # not all that may make a layout do


def _dp_attention(tp: int) -> Iterator[dict[str, int]]:
    """Degrees with and without attention DP and CP."""
    for dp, cp in product((1, 2), dict.fromkeys((1, 2, tp))):
        if tp % (dp * cp) == 0:
            yield {"tp": tp, "attn_dp": dp, "attn_cp": cp}


def _layouts(world: int, flow: str, tokens: Tokens) -> st.SearchStrategy[Topology]:
    """Layouts on which a flow has something to do; where a drawn one has nothing, a plain one stands in for it."""

    def fitting(drawn: Topology) -> Topology:
        if applies(flow, drawn, tokens):
            return drawn
        found = _plain(drawn.convention, flow, tokens, drawn.world, world)
        assert found is not None  # `_conventions` has looked
        return found

    return all_topologies(world, conventions=_conventions(flow, tokens, world)).map(fitting)


@st.composite
def flows(
    draw: st.DrawFn,
    world: int = 8,
    *,
    flow: str = ALL,
    tokens: Tokens = "engine",
    topologies: st.SearchStrategy[Topology] | None = None,
    system: System | None = None,
    via: Via = "mixed",
    steady: bool = False,
) -> Scenario:
    """Scenarios of one flow, or of a layer of several (`all`), repeated and then given batches of other sizes.

    A flow belongs to one engine. `all` draws layers of every engine, or takes the one whose topology is given.
    `tokens`: `engine` pads, and switches symmetric memory off, as the engine would; `padded` always pads;
    `uneven` pads only the last batch and leaves symmetric memory on, with counts that differ between sources.
    `steady`: layers come three times, and for the third the program says that pools need not grow. Else a third of the
    programs waits for no call.
    """
    check_flow(flow)
    if topologies is None:
        check_world(flow, tokens, world)
        topologies = _layouts(world, flow, tokens)
    else:
        topologies = topologies.filter(lambda topology: applies(flow, topology, tokens))
    topology = draw(topologies)
    step_via: StepVia = draw(st.sampled_from(("library",) * 5 + ("kernel",))) if via == "mixed" else via
    layer = layer_of(topology, flow, draw(st.sampled_from(DTYPES)), step_via)
    names = _names(draw, flow, topology, tokens)
    batches = draw_batches(draw, names, layer, tokens)
    draw_sizes(draw, layer, batches)
    layers = 3 if steady else draw(st.integers(1, 3))
    steps = compile_flows(names, layer, batches, layers, steady)
    if not steady and draw(st.sampled_from(FLIES)):
        steps = (InFlight(), *steps, InFlight(begins=False))
    return Scenario(topology, steps, system or System(), draw(st.integers(0, 255)))


def _names(draw: st.DrawFn, flow: str, topology: Topology, tokens: Tokens) -> list[str]:
    """The lines of a layer, at least one of which communicates."""
    if flow != ALL:
        return [flow]
    every = [*lines(layer_of(topology))]
    names = [name for name in every if draw(st.booleans())]
    if any(applies(name, topology, tokens) for name in names):
        return names
    return [name for name in every if applies(name, topology, tokens)][-1:]
