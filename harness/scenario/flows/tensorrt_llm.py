"""TensorRT-LLM: what a MoE layer communicates. When attention is data parallel, each rank of `tp` has its own tokens.

Source: TensorRT-LLM's repository, `_torch/modules/fused_moe`, `_torch/pyexecutor/py_executor.py` and
`cpp/tensorrt_llm/thop`. docs/flows.md names the function of each line.

Invariant: a rank never runs a batch without a token, as one that is idle has a dummy request. Where the MoE runs a
batch in chunks, such a rank has none in later chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.scenario.flows.layer import Batch, Engine, Flow, Layer, merged
from harness.scenario.operands import Elements, View

DUMMY = 1
"""Tokens of a dummy request, without speculative decoding."""
CHUNKS = 2
"""Chunks in which the MoE runs a batch with an idle rank that is not padded."""


def engine_batch(tokens: Sequence[int], is_extending: bool) -> Batch:
    """The batch as the engine runs it: decoding runs in graphs, for which all ranks pad (`use_dp_padding`)."""
    return Batch(tuple(tokens), is_padded=not is_extending, is_symmetric=not is_extending)


class TensorrtLlmLayer(Layer):
    """Layers with attention DP: a batch has a token count for each rank of `tp`."""

    convention = "tensorrt-llm"
    families = ("tp",)

    @property
    def sources(self) -> int:
        return self.width_of["tp"]

    @property
    def granule(self) -> int:
        return 1

    @property
    def spread(self) -> int:
        return self.sources

    def chunks(self) -> Iterator[Elements]:
        """Tokens of each rank in each chunk of the batch that has any, as even as can be."""
        number = 1 if self.batch.is_padded or all(self.batch.tokens) else CHUNKS
        for more in reversed(range(number)):
            tokens = [(self._tokens(rank) + more) // number for rank in range(self.topology.world)]
            if any(tokens):
                yield merged(tokens)

    def elements(self, tokens: Elements) -> Elements:
        """Elements of so many tokens."""
        return tokens * self.hidden if isinstance(tokens, int) else tuple(each * self.hidden for each in tokens)

    def _tokens(self, rank: int) -> int:
        return self.tokens_of(self.index("tp", rank)) or DUMMY


def moe_gather(layer: TensorrtLlmLayer) -> None:
    """Before the MoE: every rank's tokens over `tp`, and the experts that each is for."""
    for tokens in layer.chunks():
        for count in (layer.elements(tokens), tokens):
            source = View(layer.plain(count))
            layer.all_gather("tp", layer.get("tp", layer.whole("tp", count), "global"), count, source)


def moe_scatter(layer: TensorrtLlmLayer) -> None:
    """After the MoE: partial results of all experts, reduced and back to their ranks, over `tp`."""
    for tokens in layer.chunks():
        count = layer.elements(tokens)
        whole = layer.get("tp", layer.whole("tp", count), "global")
        layer.reduce_scatter("tp", whole, count, View(layer.get("tp", count)))


def moe_reduce(layer: TensorrtLlmLayer) -> None:
    """After the MoE without attention DP: partial results of all tokens, over `tp`, from a window into another,
    whatever the batch."""
    if layer.width_of["tp"] > 1:
        count = sum(map(layer.tokens_of, range(layer.sources))) * layer.hidden
        source = View(layer.get("tp", count, is_symmetric=True))
        layer.all_reduce("tp", layer.get("tp", count, is_symmetric=True), count, source)


FLOWS: dict[str, Flow] = {
    "trtllm-moe-gather": moe_gather,
    "trtllm-moe-scatter": moe_scatter,
    "trtllm-moe-reduce": moe_reduce,
}

ENGINE = Engine(TensorrtLlmLayer, FLOWS, engine_batch)
