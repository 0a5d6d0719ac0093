"""Strategies for the batches of flows: how many tokens each source has, whether they pad, and how large a token is.

Invariant: in every batch any source has a token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from hypothesis import strategies as st

from harness.scenario.bases import CollectiveStep
from harness.scenario.flows.catalogue import ENGINES, compile_flows
from harness.scenario.flows.layer import Batch, Layer

Tokens = Literal["engine", "padded", "uneven"]
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
COUNTS = (1, 2, 3, 4, 7, 8, 16, 33, 64, 100, 128, 257, 512, 0)
"""The last is a source without work."""
HIDDEN = (1, 3, 16, 64)
STRETCH = (1, 16, 128, 1024, 4096)
MOVED = 1 << 14
"""Elements of the largest global buffer that collectives are drawn to fill."""
ASKED = 8 << 20
"""Elements of the largest one that is asked for."""


def communicates(names: Collection[str], layer: Layer, tokens: Tokens) -> bool:
    """Whether lines of a layer that is only begun have a call. With uneven tokens, one whose ranks differ in size."""
    first = 1 + layer.granule * (tokens == "uneven")
    batch = Batch((first, *(1,) * (layer.sources - 1)), is_padded=tokens != "uneven")
    return _differ(names, layer, batch) if tokens == "uneven" else bool(_calls(names, layer, batch))


def draw_sizes(draw: st.DrawFn, layer: Layer, batches: Sequence[Batch]) -> None:
    """Elements of a token, and how far buffers are stretched, within what is moved and asked for at most."""
    widest = max(max(batch.tokens) + layer.granule for batch in batches) * layer.spread
    layer.hidden = draw(st.sampled_from([hidden for hidden in HIDDEN if hidden * widest <= MOVED] or [1]))
    stretches = [stretch for stretch in STRETCH if stretch * widest * layer.hidden <= ASKED]
    layer.stretch = draw(st.sampled_from(stretches + 2 * stretches[-2:]))  # mostly large: there pools differ


def draw_batches(draw: st.DrawFn, names: Collection[str], layer: Layer, tokens: Tokens) -> list[Batch]:
    """Batches that follow one another, for lines of a layer that is only begun."""
    counts = st.lists(st.sampled_from(COUNTS), min_size=layer.sources, max_size=layer.sources).map(_with_work)
    drawn = draw(st.lists(counts, min_size=1 + (tokens == "uneven"), max_size=3))
    match tokens:
        case "engine":
            return _engine_batches(draw, layer, drawn)
        case "padded":
            return [Batch(tuple(each), is_padded=True) for each in drawn]
        case "uneven":
            return _uneven_batches(names, layer, drawn)


def _with_work(tokens: list[int]) -> list[int]:
    return tokens if any(tokens) else [1, *tokens[1:]]


def _engine_batches(draw: st.DrawFn, layer: Layer, drawn: Sequence[Sequence[int]]) -> list[Batch]:
    """Batches as an engine runs them, at least one with symmetric memory."""
    batches = [ENGINES[layer.convention].batch(each, draw(st.booleans())) for each in drawn]
    if not any(batch.is_symmetric for batch in batches):
        batches[-1] = Batch(tuple(drawn[-1]), is_padded=True)  # or no site would be asked for anything
    return batches


def _uneven_batches(names: Collection[str], layer: Layer, drawn: Sequence[Sequence[int]]) -> list[Batch]:
    """Batches that differ between ranks, and an even one last, which meets the pools that they left."""
    *uneven, last = drawn
    return [*(_uneven(names, layer, each) for each in uneven), Batch(tuple(last), is_padded=True)]


def _uneven(names: Collection[str], layer: Layer, tokens: Sequence[int]) -> Batch:
    batch = Batch(tuple(tokens), is_padded=False)
    if _differ(names, layer, batch):
        return batch
    # tokens that round up to the same shard would be even all the same
    return Batch((max(tokens) + layer.granule, *tokens[1:]), is_padded=False)


def _differ(names: Collection[str], layer: Layer, batch: Batch) -> bool:
    """Whether ranks differ in the size of a call."""
    return any(isinstance(step.count, tuple) for step in _calls(names, layer, batch))


def _calls(names: Collection[str], layer: Layer, batch: Batch) -> list[CollectiveStep]:
    probe = type(layer)(layer.topology, layer.dtype, layer.via)
    return [step for step in compile_flows(names, probe, [batch], 1) if isinstance(step, CollectiveStep)]
