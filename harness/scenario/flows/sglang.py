"""SGLang: what a layer communicates, with DP attention or without.

Every site names the group of the collective that reaches peers through the buffer; implicit sites ask for another one.
Source: the released SGLang 0.5.12, `layers/dp_attention.py`, `layers/communicator.py`, `layers/linear.py` and the
standard MoE dispatcher.

Invariant: a flow compiles for every `SglangLayer`. A line that has nothing to communicate there (TP, or its attention
TP or CP, of width 1) takes no step. An attention-DP rank without tokens has empty buffers, unless it pads.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.scenario.flows.layer import Batch, Engine, Flow, Layer
from harness.scenario.operands import Elements, View


def engine_batch(tokens: Sequence[int], is_extending: bool) -> Batch:
    """The batch as the engine runs it: unpadded when extending or where padding costs too much, and then without
    symmetric memory (SGLang 0.5.12: `SUM_LEN` if extending, else `MAX_LEN` if 2·sum > max·dp)."""
    padded = not is_extending and 2 * sum(tokens) > max(tokens) * len(tokens)
    return Batch(tuple(tokens), padded, is_symmetric=padded)


class SglangLayer(Layer):
    """Layers whose attention groups divide TP: each DP rank is attention TP · CP ranks, which share its tokens."""

    convention = "sglang"
    families = "tp", "attn_tp", "attn_cp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tp, self.attn_tp, self.attn_cp = (self.width_of[name] for name in self.families)
        self.shares = self.attn_tp * self.attn_cp
        """Ranks that share a DP rank's tokens."""
        if self.tp % self.shares:
            raise UsageError(
                f"topology {self.topology.name!r}: attention TP {self.attn_tp} · CP {self.attn_cp} does not divide "
                f"TP {self.tp}"
            )
        self.attn_dp = self.tp // self.shares

    @property
    def sources(self) -> int:
        return self.attn_dp

    @property
    def granule(self) -> int:
        return self.shares

    @property
    def spread(self) -> int:
        return self.attn_dp

    def shard(self, rank: int) -> int:
        """Elements of this rank's part of its DP rank's tokens, spread over attention TP and CP."""
        return -(-self.tokens_of(self.index("tp", rank) // self.shares) // self.shares) * self.hidden

    def shards(self, times: int = 1) -> Elements:
        """Elements of `times` shards, on each rank."""
        return self.on_each(lambda rank: times * self.shard(rank))

    def all_shards(self) -> int:
        """Elements of the global buffer: the shards of every rank of a `tp` group."""
        return sum(self.shard(rank) for rank in self.topology.families["tp"][0])

    def chunk(self, buffer: str, family: str) -> View:
        """This rank's shard of a buffer that has one for every rank of its group, in group order."""

        def start(rank: int) -> int:
            group = self.topology.group(family, rank)
            return sum(self.shard(each) for each in group[: group.index(rank)])

        return View(buffer, self.on_each(start))

    def get_local(self, family: str, elements: Elements) -> str:
        """`get_local_dp_buffer(family)`."""
        return self.get(family, elements)

    def get_global(self) -> str:
        """`get_global_dp_buffer(tp)`."""
        return self.get("tp", self.all_shards(), "global")


def attn_tp_gather(layer: SglangLayer) -> None:
    """Scattered tokens to all of attention TP: a local buffer of `attn_tp` is the output of its all-gather."""
    if layer.attn_tp == 1:
        return
    scattered = layer.plain(layer.shards())
    full = layer.get_local("attn_tp", layer.shards(layer.attn_tp))
    layer.all_gather("attn_tp", full, layer.shards(), View(scattered))


def attn_reduce(layer: SglangLayer) -> None:
    """Behind attention that is not data parallel: partial results of a row-parallel layer, in place over `attn_tp`.
    Without DP attention every batch has symmetric memory (`is_allocation_symmetric`)."""
    if layer.attn_dp > 1 or layer.attn_tp == 1:
        return
    count = layer.shards(layer.attn_tp)
    layer.all_reduce("attn_tp", layer.get("attn_tp", count, is_symmetric=True), count)


def cp_prefill(layer: SglangLayer) -> None:
    """Prefill with context parallelism: gathered over `attn_cp` before the MLP, reduce-scattered over it after."""
    if layer.attn_cp == 1:
        return
    mine = layer.plain(layer.shards(layer.attn_tp))
    full = layer.get_local("attn_cp", layer.shards(layer.shares))
    layer.all_gather("attn_cp", full, layer.shards(layer.attn_tp), View(mine))
    layer.reduce_scatter("attn_cp", full, layer.shards(layer.attn_tp), View(mine))


def moe_gather(layer: SglangLayer) -> None:
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


def moe_scatter(layer: SglangLayer) -> None:
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
        full = layer.get_local(family, layer.shards(layer.shares))
        layer.all_gather(family, full, layer.shards(), layer.chunk(whole, "tp"))
    else:
        part = layer.get_local("attn_tp", layer.shards(layer.attn_tp))
        layer.reduce_scatter("tp", whole, layer.shards(), layer.chunk(part, "attn_tp"))
        layer.all_gather("attn_tp", part, layer.shards(), None)
        full = layer.get_local("attn_cp", layer.shards(layer.shares))
        layer.all_gather("attn_cp", full, layer.shards(layer.attn_tp), View(part))


def combine(layer: SglangLayer) -> None:
    """Combine of the standard MoE dispatcher: a local buffer of `tp` receives a reduce-scatter with per-rank sizes."""
    if layer.tp == 1:
        return
    whole = layer.get_global()
    layer.reduce_scatter("tp", whole, layer.shards(), View(layer.get_local("tp", layer.shards())))


def mlp_reduce(layer: SglangLayer) -> None:
    """Behind the MLP where attention is not data parallel: partial results of all tokens, in place over `tp`."""
    if layer.attn_dp > 1 or layer.tp == 1:
        return
    count = layer.all_shards()
    layer.all_reduce("tp", layer.get("tp", count, is_symmetric=True), count)


FLOWS: dict[str, Flow] = {
    "attn-tp-gather": attn_tp_gather,
    "attn-reduce": attn_reduce,
    "cp-prefill": cp_prefill,
    "moe-gather": moe_gather,
    "moe-scatter": moe_scatter,
    "combine": combine,
    "mlp-reduce": mlp_reduce,
}

ENGINE = Engine(SglangLayer, FLOWS, engine_batch)
