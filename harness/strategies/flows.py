"""Strategies for scenarios of layer flows: an engine's layers on batches of drawn token counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, get_args

from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.bases import Via as StepVia
from harness.scenario.flows import FLOWS, check_flow, compile_flows
from harness.scenario.layers import Batch, Layer, engine_batch
from harness.scenario.operands import DType
from harness.scenario.scenario import Scenario
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.actions import Via
from harness.strategies.topologies import topologies as all_topologies

Tokens = Literal["engine", "padded", "uneven"]
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
CONVENTION = "sglang"
COUNTS = (1, 2, 3, 4, 7, 8, 16, 33, 64, 100, 128, 257, 512)
HIDDEN = (1, 3, 16, 64)
STRETCH = (1, 16, 128, 1024, 4096)
MOVED = 1 << 14
"""Elements of the largest global buffer that collectives are drawn to fill."""
ASKED = 8 << 20
"""Elements of the largest one that is asked for."""
DTYPES: tuple[DType, ...] = ("bfloat16", "bfloat16", "float32", "float16")


def applies(name: str, topology: Topology, tokens: Tokens = "engine") -> bool:
    """Whether a flow (or `all`) has anything to communicate on a topology. Uneven tokens take two DP ranks."""
    probe = Layer(topology, "float32", "library")
    names = FLOWS if name == "all" else (name,)
    if tokens == "uneven" and probe.attn_dp < 2:
        return False
    return bool(compile_flows(names, probe, [Batch((1,) * probe.attn_dp, is_padded=True)], 1))


def check_world(flow: str, tokens: Tokens, world: int) -> None:
    """Raise `UsageError` if a flow has nothing to communicate on any layout of at most `world` ranks."""
    if not any(applies(flow, topology, tokens) for topology in _plain(2, world)):
        raise UsageError(f"flow {flow!r} with {tokens} tokens has nothing to communicate in a world of {world}")


def _plain(size: int, world: int) -> Iterator[Topology]:
    """Layouts of `size` ranks and more, with and without attention DP and CP."""
    for tp, dp in product(range(max(2, size), world + 1), (1, 2)):
        for cp in dict.fromkeys((1, 2, tp)):
            if tp % (dp * cp) == 0:
                degrees = {"tp": tp, "attn_dp": dp, "attn_cp": cp}
                yield Topology("drawn", CONVENTION, {name: width for name, width in degrees.items() if width > 1})


def _layouts(world: int, flow: str, tokens: Tokens) -> st.SearchStrategy[Topology]:
    """Layouts on which a flow has something to do; where a drawn one has nothing, a plain one stands in for it."""

    def fitting(drawn: Topology) -> Topology:
        if applies(flow, drawn, tokens):
            return drawn
        larger = (topology for topology in _plain(drawn.world, world) if applies(flow, topology, tokens))
        return next(larger, None) or next(topology for topology in _plain(2, world) if applies(flow, topology, tokens))

    return all_topologies(world, conventions=(CONVENTION,)).map(fitting)


@st.composite
def flows(
    draw: st.DrawFn,
    world: int = 8,
    *,
    flow: str = "all",
    tokens: Tokens = "engine",
    topologies: st.SearchStrategy[Topology] | None = None,
    system: System | None = None,
    via: Via = "mixed",
    steady: bool = False,
) -> Scenario:
    """Scenarios of one flow, or of a layer of several (`all`), repeated and then given batches of other sizes.

    `tokens`: `engine` pads, and switches symmetric memory off, as the engine would; `padded` always pads;
    `uneven` pads only the last batch and leaves symmetric memory on, with counts that differ between DP ranks.
    `steady`: layers come three times, and for the third the program says that pools need not grow.
    """
    check_flow(flow)
    if topologies is None:
        check_world(flow, tokens, world)
        topologies = _layouts(world, flow, tokens)
    else:
        topologies = topologies.filter(lambda topology: applies(flow, topology, tokens))
    topology = draw(topologies)
    step_via: StepVia = draw(st.sampled_from(("library",) * 5 + ("kernel",))) if via == "mixed" else via
    layer = Layer(topology, draw(st.sampled_from(DTYPES)), step_via)
    batches = _batches(draw, layer, tokens)
    _draw_sizes(draw, layer, batches)
    names = _names(draw, flow, topology)
    layers = 3 if steady else draw(st.integers(1, 3))
    steps = compile_flows(names, layer, batches, layers, steady)
    return Scenario(topology, steps, system or System(), draw(st.integers(0, 255)))


def _draw_sizes(draw: st.DrawFn, layer: Layer, batches: Sequence[Batch]) -> None:
    """Elements of a token, and how far buffers are stretched, within what is moved and asked for at most."""
    widest = max(max(batch.tokens) + layer.width for batch in batches) * layer.attn_dp
    layer.hidden = draw(st.sampled_from([hidden for hidden in HIDDEN if hidden * widest <= MOVED] or [1]))
    stretches = [stretch for stretch in STRETCH if stretch * widest * layer.hidden <= ASKED]
    layer.stretch = draw(st.sampled_from(stretches + 2 * stretches[-2:]))  # mostly large: there pools differ


def _names(draw: st.DrawFn, flow: str, topology: Topology) -> list[str]:
    """The lines of a layer, at least one of which communicates."""
    names = [name for name in FLOWS if draw(st.booleans())] if flow == "all" else [flow]
    if any(applies(name, topology) for name in names):
        return names
    return [name for name in FLOWS if applies(name, topology)][-1:]


def _batches(draw: st.DrawFn, layer: Layer, tokens: Tokens) -> list[Batch]:
    """Batches that follow one another."""
    counts = st.lists(st.sampled_from(COUNTS), min_size=layer.attn_dp, max_size=layer.attn_dp)
    drawn = draw(st.lists(counts, min_size=1 + (tokens == "uneven"), max_size=3))
    match tokens:
        case "engine":
            return _engine_batches(draw, drawn)
        case "padded":
            return [Batch(tuple(each), is_padded=True) for each in drawn]
        case "uneven":
            return _uneven_batches(drawn, layer.width)


def _engine_batches(draw: st.DrawFn, drawn: Sequence[Sequence[int]]) -> list[Batch]:
    """Batches as an engine runs them, at least one with symmetric memory."""
    batches = [engine_batch(each, is_extending=draw(st.booleans())) for each in drawn]
    if not any(batch.is_symmetric for batch in batches):
        batches[-1] = Batch(tuple(drawn[-1]), is_padded=True)  # or no site would be asked for anything
    return batches


def _uneven_batches(drawn: Sequence[list[int]], width: int) -> list[Batch]:
    """Batches that differ between ranks, and an even one last, which meets the pools that they left."""
    *uneven, last = drawn
    for each in uneven:
        # tokens that round up to the same shard would be even all the same
        if len({-(-count // width) for count in each}) == 1:
            each[-1] += width
    return [*(Batch(tuple(each), is_padded=False) for each in uneven), Batch(tuple(last), is_padded=True)]
