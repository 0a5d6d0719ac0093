"""All flows by name, and the engines whose layers they are lines of.

Invariant: a name belongs to one engine, so a flow says on which convention it runs. A new engine is a module here and a
member of `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from harness.errors import UsageError, not_one_of
from harness.scenario.bases import Via
from harness.scenario.flows import megatron, sglang, tensorrt_llm, vllm
from harness.scenario.flows.layer import Batch, Engine, Flow, Layer
from harness.scenario.operands import DType
from harness.scenario.steps import Steady, Step
from harness.scenario.topology import Topology

ENGINES: dict[str, Engine] = {
    each.convention: each for each in (sglang.ENGINE, vllm.ENGINE, megatron.ENGINE, tensorrt_llm.ENGINE)
}
"""By convention."""
FLOWS: dict[str, Flow] = {name: flow for engine in ENGINES.values() for name, flow in engine.flows.items()}
ALL = "all"
EXPLICIT = "explicit"
"""The convention that any engine's families can be written in."""
SETTLED = 2
"""Equal layers after which pools have met all that a batch asks for."""


def check_flow(name: str) -> None:
    """Raise `UsageError` for a flow that is neither `all` nor one of `FLOWS`."""
    if name not in (*FLOWS, ALL):
        raise not_one_of("flow", name, (ALL, *FLOWS))


def engines_of(flow: str) -> list[Engine]:
    """The engine of a flow; every engine for `all`."""
    return [engine for engine in ENGINES.values() if flow == ALL or flow in engine.flows]


def engine_on(topology: Topology, flow: str = ALL) -> Engine:
    """The engine whose flow a topology has. Raises `UsageError` where it is of another convention, or of one without
    flows. With `explicit`, `all` means the lines of SGLang."""
    engines = engines_of(flow)
    if topology.convention == EXPLICIT:
        return engines[0]
    for engine in engines:
        if engine.convention == topology.convention:
            return engine
    conventions = ", ".join(engine.convention for engine in engines)
    raise UsageError(
        f"topology {topology.name!r} has convention {topology.convention}; flow {flow!r} runs on {conventions}"
    )


def layer_of(
    topology: Topology, flow: str = ALL, dtype: DType = "float32", via: Via = "library", stretch: int = 1
) -> Layer:
    """The beginning of layers of the engine that a topology and a flow belong to. Raises `UsageError`."""
    return engine_on(topology, flow).layer(topology, dtype, via, stretch=stretch)


def lines(layer: Layer) -> Mapping[str, Flow]:
    """The flows of a layer, in its order."""
    return ENGINES[layer.convention].flows


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
    for name, flow in lines(layer).items():
        if name in names:
            flow(layer)
            layer.line_ends()
    layer.ends()
