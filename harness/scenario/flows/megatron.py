"""Megatron-Core: what tensor and sequence parallelism, fully sharded weights and experts communicate.

Source: the released Megatron-Core 0.16.1, `tensor_parallel/layers.py` and `mappings.py`,
`transformer/moe/token_dispatcher.py`, `distributed/fsdp`, `inference/engines/dynamic_engine.py`. docs/flows.md names
the function of each line.

Invariant: weights do not depend on the batch, and their buffers are padded so that shards are equal. A DP replica
without tokens makes no call of its own; with expert parallelism it runs a dummy batch, a token for each rank of TP.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.scenario.flows.layer import Batch, Engine, Flow, Layer
from harness.scenario.operands import Elements, View

WEIGHTS = 4
"""Elements of a rank's shard of weights or gradients, for each of a token."""


def engine_batch(tokens: Sequence[int], is_extending: bool) -> Batch:
    """The batch as the engine runs it: sequences are padded to one length, in every step of training."""
    return Batch(tuple(tokens), is_padded=True)


class MegatronLayer(Layer):
    """Layers of DP replicas of CP · TP ranks, whose experts divide the same ranks by themselves.

    A batch has token counts for the DP replicas. For experts the same counts say how many tokens the router sent to
    each rank of an `etp` group, so there are as many as the wider of both.
    """

    convention = "megatron-core"
    families = "tp", "cp", "dp", "dp_cp", "intra_dp_cp", "ep", "etp", "etp_ep", "expert_dp", "intra_expert_dp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shares = self.width_of["tp"] * self.width_of["cp"]
        """Ranks that share a replica's tokens."""

    @property
    def sources(self) -> int:
        return max(self.width_of["dp"], self.width_of["etp"])

    @property
    def granule(self) -> int:
        return self.shares

    @property
    def spread(self) -> int:
        weights = WEIGHTS * max(self.width_of["dp_cp"], self.width_of["expert_dp"])
        return max(self.width_of["etp_ep"], self.width_of["etp"], weights)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The families over which weights are sharded: dense ones, and those of experts that divide ranks at all. With
        more than one instance of the optimizer, each instance shards them for itself."""
        intra = "intra_" * (self.width_of["intra_dp_cp"] < self.width_of["dp_cp"])
        return (f"{intra}dp_cp", *([f"{intra}expert_dp"] if self.width_of["etp_ep"] > 1 else []))

    @property
    def gathering(self) -> tuple[str, ...]:
        """The families that gather weights: dense ones over communicators of their own where the layout has such."""
        dense, *experts = self.replicas
        return ("dp_cp_ag" if dense == "dp_cp" and "dp_cp_ag" in self.topology.families else dense, *experts)

    def tokens(self, rank: int) -> int:
        """Tokens of this rank's replica."""
        tokens = self.tokens_of(self.index("dp", rank))
        return self.width_of["tp"] if not tokens and self.width_of["ep"] > 1 else tokens

    def shard(self, rank: int) -> int:
        """Elements of this rank's part of its replica's tokens."""
        return -(-self.tokens(rank) // self.shares) * self.hidden

    def sequence(self, rank: int) -> int:
        """Elements of the part of its replica's tokens that all ranks of TP have, without sequence parallelism."""
        return -(-self.tokens(rank) // self.width_of["cp"]) * self.hidden

    def routed(self, rank: int) -> int:
        """Elements that this rank received for its experts."""
        return self.tokens_of(self.index("etp", rank)) * self.hidden


def sp_gather(layer: MegatronLayer) -> None:
    """Sequence parallelism, before a column-parallel layer: the sequence over `tp`."""
    _gather(layer, "tp", layer.on_each(layer.shard))


def sp_scatter(layer: MegatronLayer) -> None:
    """Sequence parallelism, behind a row-parallel layer: reduced over `tp`, a part of the sequence for each rank."""
    _scatter(layer, "tp", layer.on_each(layer.shard))


def tp_reduce(layer: MegatronLayer) -> None:
    """Without sequence parallelism, behind a row-parallel layer: partial results, in place over `tp`."""
    count = layer.on_each(layer.sequence)
    if layer.width("tp") > 1:
        layer.all_reduce("tp", layer.get("tp", count), count)


def fsdp_gather(layer: MegatronLayer) -> None:
    """Weights before they are used: dense ones over the groups of DP and CP, those of experts over expert DP."""
    for family in layer.gathering:
        if layer.width(family) > 1:
            shard = View(layer.get(family, WEIGHTS * layer.hidden))
            whole = layer.get(family, layer.whole(family, WEIGHTS * layer.hidden), "global")
            layer.all_gather(family, whole, WEIGHTS * layer.hidden, shard)


def fsdp_scatter(layer: MegatronLayer) -> None:
    """Gradients once they are complete, in place, over the same ranks."""
    for family in layer.replicas:
        if layer.width(family) > 1:
            whole = layer.get(family, layer.whole(family, WEIGHTS * layer.hidden), "global")
            layer.reduce_scatter(family, whole, WEIGHTS * layer.hidden, None)


def expert_gather(layer: MegatronLayer) -> None:
    """The all-gather dispatcher: every rank's tokens over `etp_ep`. It takes no sizes, so all ranks have as many."""
    if layer.batch.is_padded:
        _gather(layer, "etp_ep", layer.on_each(layer.shard))


def expert_scatter(layer: MegatronLayer) -> None:
    """The all-gather dispatcher, back: reduced over `etp_ep`."""
    if layer.batch.is_padded:
        _scatter(layer, "etp_ep", layer.on_each(layer.shard))


def etp_gather(layer: MegatronLayer) -> None:
    """The all-to-all dispatcher, behind its all-to-all: tokens over `etp`, as many as the router sent to each rank.
    A padded batch has the capacity of experts (`drop_and_pad`)."""
    _gather(layer, "etp", layer.on_each(layer.routed))


def etp_scatter(layer: MegatronLayer) -> None:
    """The all-to-all dispatcher, back: reduced over `etp`."""
    _scatter(layer, "etp", layer.on_each(layer.routed))


def _gather(layer: MegatronLayer, family: str, count: Elements) -> None:
    if layer.width(family) > 1:
        source = View(layer.plain(count))
        layer.all_gather(family, layer.get(family, layer.whole(family, count), "global"), count, source)


def _scatter(layer: MegatronLayer, family: str, count: Elements) -> None:
    if layer.width(family) > 1:
        whole = layer.get(family, layer.whole(family, count), "global")
        layer.reduce_scatter(family, whole, count, View(layer.get(family, count)))


FLOWS: dict[str, Flow] = {
    "megatron-fsdp-gather": fsdp_gather,
    "megatron-sp-gather": sp_gather,
    "megatron-tp-reduce": tp_reduce,
    "megatron-sp-scatter": sp_scatter,
    "megatron-expert-gather": expert_gather,
    "megatron-etp-gather": etp_gather,
    "megatron-etp-scatter": etp_scatter,
    "megatron-expert-scatter": expert_scatter,
    "megatron-fsdp-scatter": fsdp_scatter,
}

ENGINE = Engine(MegatronLayer, FLOWS, engine_batch)
