"""Flows: what the layers of an engine with DP attention communicate, compiled to programs.

A flow is one line of communication around a layer: which buffer is asked for under which group, and
which collectives run on it. Every site names the group of the collective that reaches peers through
the buffer; implicit sites ask for another one. Source: the released SGLang 0.5.12,
`layers/dp_attention.py`, `layers/communicator.py` and the standard MoE dispatcher.

Invariant: a flow compiles for every `Layer`. A line that has nothing to communicate there (TP, or its attention TP or
CP, of width 1) takes no step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from harness.errors import UsageError
from harness.scenario.layers import Batch, Layer
from harness.scenario.operands import View
from harness.scenario.steps import Steady, Step

SETTLED = 2
"""Equal layers after which pools have met all that a batch asks for."""


def attn_tp_gather(layer: Layer) -> None:
    """Scattered tokens to all of attention TP: a local buffer of `attn_tp` is the output of its all-gather."""
    if layer.attn_tp == 1:
        return
    scattered = layer.plain(layer.shards())
    full = layer.get_local("attn_tp", layer.shards(layer.attn_tp))
    layer.all_gather("attn_tp", full, layer.shards(), View(scattered))


def cp_prefill(layer: Layer) -> None:
    """Prefill with context parallelism: gathered over `attn_cp` before the MLP, reduce-scattered over it after."""
    if layer.attn_cp == 1:
        return
    mine = layer.plain(layer.shards(layer.attn_tp))
    full = layer.get_local("attn_cp", layer.shards(layer.width))
    layer.all_gather("attn_cp", full, layer.shards(layer.attn_tp), View(mine))
    layer.reduce_scatter("attn_cp", full, layer.shards(layer.attn_tp), View(mine))


def moe_gather(layer: Layer) -> None:
    """Before the MoE: a global buffer of `tp` is the output of its all-gather.

    Where attention TP is wider than 1, a reduce-scatter over `attn_tp` runs in place into this rank's chunk of
    the local buffer first, and the all-gather takes that chunk.
    """
    if layer.tp == 1:
        return
    if layer.attn_tp == 1:
        mine = View(layer.plain(layer.shards()))
    else:
        local = layer.get_local("attn_tp", layer.shards(layer.attn_tp))
        layer.reduce_scatter("attn_tp", local, layer.shards(), None)
        mine = layer.chunk(local, "attn_tp")
    layer.all_gather("tp", layer.get_global(), layer.shards(), mine)


def moe_scatter(layer: Layer) -> None:
    """After the MoE, back to this rank's tokens: a reduce-scatter over `tp` of the global buffer.

    Where attention TP (or CP) is wider than 1, it writes this rank's chunk of its own input, and an all-gather
    over `attn_tp` (or `attn_cp`) fills the local buffer from there: the global buffer is used under two groups.
    Where both are, the local buffer is used under three: it receives the reduce-scatter over `tp` in one chunk,
    is gathered in place over `attn_tp`, and is the source of an all-gather over `attn_cp`.
    """
    if layer.tp == 1:
        return
    whole = layer.get_global()
    if layer.attn_tp == layer.attn_cp == 1:
        layer.reduce_scatter("tp", whole, layer.shards(), View(layer.get_local("tp", layer.shards())))
    elif 1 in (layer.attn_tp, layer.attn_cp):
        family = "attn_cp" if layer.attn_tp == 1 else "attn_tp"
        layer.reduce_scatter("tp", whole, layer.shards(), None)
        full = layer.get_local(family, layer.shards(layer.width))
        layer.all_gather(family, full, layer.shards(), layer.chunk(whole, "tp"))
    else:
        part = layer.get_local("attn_tp", layer.shards(layer.attn_tp))
        layer.reduce_scatter("tp", whole, layer.shards(), layer.chunk(part, "attn_tp"))
        layer.all_gather("attn_tp", part, layer.shards(), None)
        full = layer.get_local("attn_cp", layer.shards(layer.width))
        layer.all_gather("attn_cp", full, layer.shards(layer.attn_tp), View(part))


def combine(layer: Layer) -> None:
    """Combine of the standard MoE dispatcher: a local buffer of `tp` receives a reduce-scatter with per-rank sizes."""
    if layer.tp == 1:
        return
    whole = layer.get_global()
    layer.reduce_scatter("tp", whole, layer.shards(), View(layer.get_local("tp", layer.shards())))


FLOWS: dict[str, Callable[[Layer], None]] = {
    "attn-tp-gather": attn_tp_gather,
    "cp-prefill": cp_prefill,
    "moe-gather": moe_gather,
    "moe-scatter": moe_scatter,
    "combine": combine,
}


def check_flow(name: str) -> None:
    """Raise `UsageError` for a flow that is neither `all` nor one of `FLOWS`."""
    if name not in (*FLOWS, "all"):
        raise UsageError(f"flow {name!r} is not one of all, {', '.join(FLOWS)}")


def compile_flows(
    names: Collection[str], layer: Layer, batches: Sequence[Batch], layers: int, steady: bool = False
) -> tuple[Step, ...]:
    """The program of `layers` equal layers for each batch in turn, with the flows `names` in a layer's order.

    `steady`: from the third layer of a batch on, the program says that pools need not grow.
    """
    for batch in batches:
        layer.batch = batch
        for number in range(layers):
            if steady and number == SETTLED:
                layer.steps.append(Steady())
            _take(names, layer)
        if steady and layers > SETTLED:
            layer.steps.append(Steady(begins=False))
    return tuple(layer.steps)


def _take(names: Collection[str], layer: Layer) -> None:
    """One layer."""
    for name, flow in FLOWS.items():
        if name in names:
            flow(layer)
            layer.line_ends()
    layer.ends()
