"""vLLM: what tensor and decode context parallelism and a MoE layer with data parallelism communicate.

Source: the released vLLM 0.33.0, `distributed/device_communicators/all2all.py`, `cuda_communicator.py` and `pynccl.py`,
`v1/attention/ops/dcp.py`, `forward_context.py`, `v1/worker/`, `model_executor/layers/linear.py`. docs/flows.md has the
function of each line.

Invariant: a DP replica never runs without a token. One that is idle runs a dummy batch of `DUMMY` tokens while others
have work. Without a graph over the whole model that batch skips attention, and so decode context parallelism.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.scenario.flows.layer import Batch, Engine, Flow, Layer, Site
from harness.scenario.operands import Elements, View

DUMMY = 1
"""Tokens of a dummy batch, without speculative decoding."""


def engine_batch(tokens: Sequence[int], is_extending: bool) -> Batch:
    """The batch as the engine runs it: decoding runs in graphs, for which all replicas pad; a prefill does not.
    Symmetric memory serves what has one size in a group, whichever batch it is (`VllmLayer.get`)."""
    return Batch(tuple(tokens), is_padded=not is_extending, is_symmetric=not is_extending)


class VllmLayer(Layer):
    """Layers of DP replicas, each of PCP · TP ranks."""

    convention = "vllm"
    families = "tp", "dp", "pcp", "ep", "dcp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tp, self.dp, self.pcp, self.dcp = (self.width_of[name] for name in ("tp", "dp", "pcp", "dcp"))

    @property
    def sources(self) -> int:
        return self.dp

    @property
    def granule(self) -> int:
        return self.tp

    @property
    def spread(self) -> int:
        return max(self.dp * self.pcp, self.dcp)

    @property
    def is_sequence_parallel(self) -> bool:
        """Whether the ranks of TP divide a replica's tokens before the MoE (`use_sequence_parallel_moe`)."""
        return self.tp > 1 and self.dp > 1

    def tokens(self, rank: int) -> int:
        """Tokens of this rank's replica."""
        return self.tokens_of(self.index("dp", rank)) or DUMMY

    def attended(self, rank: int) -> int:
        """Tokens for which attention runs: a dummy batch has none outside of a graph."""
        return self.tokens_of(self.index("dp", rank))

    def shard(self, rank: int) -> int:
        """Tokens that this rank brings to the experts of an EP group."""
        return -(-self.tokens(rank) // (self.tp if self.is_sequence_parallel else 1))

    def elements(self, tokens: Elements) -> Elements:
        """Elements of so many tokens."""
        return tokens * self.hidden if isinstance(tokens, int) else tuple(each * self.hidden for each in tokens)

    def buffer(self, family: str, count: Elements, elements: Elements, site: Site) -> str:
        """A buffer for a call of these counts. In a batch that is not padded it is symmetric all the same, if the
        group's ranks have one size (`should_nccl_symm_mem_ag_rs`, and who asks it)."""
        symmetric = self.batch.is_symmetric or not self.is_uneven(family, count)
        return self.get(family, elements, site, symmetric)


def dcp(layer: VllmLayer) -> None:
    """Attention over a KV cache that the ranks of `dcp` divide. Queries are gathered in ordinary memory, as they are
    along another axis than the first. Then the log-sum-exp of each head is gathered, and outputs are reduced."""
    if layer.dcp == 1:
        return
    heads = layer.on_each(layer.attended)
    count = layer.elements(heads)
    query = View(layer.plain(count))
    layer.all_gather("dcp", layer.plain(layer.whole("dcp", count)), count, query)
    _gather(layer, "dcp", heads)
    _scatter(layer, "dcp", count)


def tp_reduce(layer: VllmLayer) -> None:
    """Behind a row-parallel layer, such as the last of attention: partial results of the replica's tokens over `tp`.
    They are copied into a symmetric buffer and reduced into another, whatever the batch."""
    if layer.tp == 1:
        return
    count = layer.elements(layer.on_each(layer.tokens))
    source = View(layer.buffer("tp", count, count, "local"))
    layer.all_reduce("tp", layer.buffer("tp", count, count, "local"), count, source)


def ep_gather(layer: VllmLayer) -> None:
    """Dispatch by all-gather with expert parallelism: tokens, and what the router says of each, over `ep`."""
    if _has_experts(layer):
        tokens = layer.on_each(layer.shard)
        _gather(layer, "ep", layer.elements(tokens))
        _gather(layer, "ep", tokens)


def ep_scatter(layer: VllmLayer) -> None:
    """Combine by reduce-scatter with expert parallelism, over `ep`."""
    if _has_experts(layer):
        _scatter(layer, "ep", layer.elements(layer.on_each(layer.shard)))


def dp_gather(layer: VllmLayer) -> None:
    """Dispatch without expert parallelism, where TP divides the experts: the replicas' tokens, over `dp`."""
    if layer.dp > 1 and layer.pcp == 1:
        tokens = layer.on_each(layer.tokens)
        _gather(layer, "dp", layer.elements(tokens))
        _gather(layer, "dp", tokens)


def dp_scatter(layer: VllmLayer) -> None:
    """Combine without expert parallelism, over `dp`."""
    if layer.dp > 1 and layer.pcp == 1:
        _scatter(layer, "dp", layer.elements(layer.on_each(layer.tokens)))


def tp_gather(layer: VllmLayer) -> None:
    """The replica's tokens to all of its ranks, over `tp`, where the ranks of TP divided them before the MoE."""
    if layer.is_sequence_parallel:
        _gather(layer, "tp", layer.elements(layer.on_each(layer.shard)))


def _has_experts(layer: VllmLayer) -> bool:
    """Whether expert parallelism communicates over `ep`. With TP and PCP of one rank it does so over `dp`."""
    return layer.dp > 1 and layer.tp * layer.pcp > 1


def _gather(layer: VllmLayer, family: str, count: Elements) -> None:
    """Ordinary memory into a symmetric buffer."""
    source = View(layer.plain(count))
    layer.all_gather(family, layer.buffer(family, count, layer.whole(family, count), "global"), count, source)


def _scatter(layer: VllmLayer, family: str, count: Elements) -> None:
    """A symmetric buffer into a symmetric one."""
    whole = layer.buffer(family, count, layer.whole(family, count), "global")
    layer.reduce_scatter(family, whole, count, View(layer.buffer(family, count, count, "local")))


FLOWS: dict[str, Flow] = {
    "vllm-dcp": dcp,
    "vllm-tp-reduce": tp_reduce,
    "vllm-ep-gather": ep_gather,
    "vllm-dp-gather": dp_gather,
    "vllm-ep-scatter": ep_scatter,
    "vllm-dp-scatter": dp_scatter,
    "vllm-tp-gather": tp_gather,
}

ENGINE = Engine(VllmLayer, FLOWS, engine_batch)
