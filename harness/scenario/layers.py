"""Layer flows: what the layers of an engine with DP attention ask buffers for, compiled to programs.

A flow is one line of communication around a layer: which buffer is asked for under which group, and
which collectives run on it. Every site names the group of the collective that reaches peers through
the buffer; what the implicit sites make of that is theirs. Source: the released SGLang 0.5.12,
`layers/dp_attention.py`, `layers/communicator.py` and the standard MoE dispatcher.

Invariant: a flow compiles for every topology that has the families `tp`, `attn_tp` and `attn_cp`, each of groups
of one width, with attention groups that divide TP. A line that has nothing to communicate there (TP, or its
attention TP or CP, of width 1) takes no step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.scenario.bases import Via
from harness.scenario.operands import DType, Elements, View, at
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Release, Steady, Step
from harness.scenario.topology import Topology

FAMILIES = ("tp", "attn_tp", "attn_cp")
SETTLED = 2
"""Equal layers after which pools have met all that a batch asks for."""
KERNEL_COUNT = 513
"""Largest count that goes through a kernel: Triton's interpreter pays by the element."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass.

    `tokens`: of each attention-DP rank. `padded`: every DP rank pads to the longest (`MAX_LEN`), or sizes
    differ between ranks (`SUM_LEN`). `symmetric`: whether sites allocate from the pool policy at all; engines
    switch it off for a batch that is not padded.
    """

    tokens: tuple[int, ...]
    padded: bool
    symmetric: bool = True


def engine_batch(tokens: Sequence[int], extending: bool) -> Batch:
    """The batch as the engine runs it: unpadded when extending or where padding costs too much, and then without
    symmetric memory (SGLang 0.5.12: `SUM_LEN` if extending, else `MAX_LEN` if 2·sum > max·dp)."""
    padded = not extending and 2 * sum(tokens) > max(tokens) * len(tokens)
    return Batch(tuple(tokens), padded, symmetric=padded)


@dataclass
class Layer:
    """The steps of layers in the making.

    `hidden`: elements of one token. `stretch`: how many times larger buffers are than what moves through them,
    so that pools meet large sizes at the price of small collectives.
    """

    topology: Topology
    dtype: DType
    via: Via
    hidden: int = 1
    stretch: int = 1
    steps: list[Step] = field(default_factory=list)
    batch: Batch = Batch((), True)
    _names: int = 0
    _fresh: list[str] = field(default_factory=list)
    _held: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        missing = [name for name in FAMILIES if name not in self.topology.families]
        if missing:
            raise UsageError(
                f"topology {self.topology.name!r} ({self.topology.convention}) has no {missing[0]}; flows run on the "
                "families of the convention sglang"
            )
        widths = {name: {len(group) for group in self.topology.families[name]} for name in FAMILIES}
        for name, found in widths.items():
            if len(found) > 1:
                raise UsageError(
                    f"topology {self.topology.name!r}: groups of {name} have {' and '.join(map(str, sorted(found)))} "
                    "ranks; flows run where all have as many"
                )
        self.tp, self.attn_tp, self.attn_cp = (widths[name].pop() for name in FAMILIES)
        self.width = self.attn_tp * self.attn_cp
        if self.tp % self.width:
            raise UsageError(
                f"topology {self.topology.name!r}: attention TP {self.attn_tp} · CP {self.attn_cp} does not divide "
                f"TP {self.tp}"
            )
        """Ranks that share a DP rank's tokens."""
        self.attn_dp = self.tp // self.width

    def shard(self, rank: int) -> int:
        """Elements of this rank's part of its DP rank's tokens, spread over attention TP and CP."""
        tokens = self.batch.tokens
        mine = max(tokens) if self.batch.padded else tokens[self._index("tp", rank) // self.width]
        return -(-mine // self.width) * self.hidden

    def shards(self, times: int = 1) -> Elements:
        """So many shards, on each rank."""
        return _merged([times * self.shard(rank) for rank in range(self.topology.world)])

    def all_shards(self) -> int:
        """Elements of the global buffer: the shards of every rank of a `tp` group."""
        return sum(self.shard(rank) for rank in self.topology.families["tp"][0])

    def chunk(self, buffer: str, family: str) -> View:
        """This rank's shard of a buffer that has one for every rank of its group, in group order."""
        groups = [self.topology.group(family, rank) for rank in range(self.topology.world)]
        starts = [sum(self.shard(r) for r in group[: group.index(rank)]) for rank, group in enumerate(groups)]
        return View(buffer, _merged(starts))

    def get_local(self, family: str, elements: Elements) -> str:
        """`get_local_dp_buffer(family)`."""
        return self._allocate(family, elements, "local")

    def get_global(self) -> str:
        """`get_global_dp_buffer(tp)`."""
        return self._allocate("tp", self.all_shards(), "global")

    def plain(self, elements: Elements) -> str:
        """Activations that no site allocates."""
        name = self._name()
        self.steps.append(Allocate(name, "tp", elements, self.dtype, "plain"))
        return name

    def all_gather(self, family: str, output: str, count: Elements, source: View | None) -> None:
        if len(self.topology.families[family][0]) > 1:
            self.steps.append(AllGather(family, View(output), count, source, self._via(family, count)))

    def reduce_scatter(self, family: str, source: str, count: Elements, output: View | None) -> None:
        self.steps.append(ReduceScatter(family, View(source), count, output, "sum", self._via(family, count)))

    def line_ends(self) -> None:
        """What a line was given can go; what it made is the next line's input."""
        self._release(self._held)
        self._held, self._fresh = self._fresh, []

    def ends(self) -> None:
        """Nothing outlives the layer."""
        self._release(self._held + self._fresh)
        self._held, self._fresh = [], []

    def _release(self, names: Sequence[str]) -> None:
        self.steps.extend(Release(name) for name in names)

    def _allocate(self, family: str, elements: Elements, site: str) -> str:
        role = "window" if self.batch.symmetric else "plain"
        name = self._name()
        asked = elements * self.stretch if isinstance(elements, int) else tuple(e * self.stretch for e in elements)
        self.steps.append(Allocate(name, family, asked, self.dtype, role, site))  # type: ignore[arg-type]
        return name

    def _name(self) -> str:
        self._names += 1
        self._fresh.append(f"b{self._names - 1}")
        return self._fresh[-1]

    def _via(self, family: str, count: Elements) -> Via:
        """Kernels take small counts that are the same in a group; the library takes the rest."""
        counts = [at(count, rank) for rank in range(self.topology.world)]
        same = all(len({counts[rank] for rank in group}) == 1 for group in self.topology.families[family])
        return self.via if same and max(counts) <= KERNEL_COUNT else "library"

    def _index(self, family: str, rank: int) -> int:
        return self.topology.group(family, rank).index(rank)


def _merged(values: list[int]) -> Elements:
    return values[0] if len(set(values)) == 1 else tuple(values)


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
    Raises `UsageError` where the topology lacks a family that flows run on.
    """
    for batch in batches:
        layer.batch = batch
        for number in range(layers):
            if steady and number == SETTLED:
                layer.steps.append(Steady())
            for name, flow in FLOWS.items():
                if name in names:
                    flow(layer)
                    layer.line_ends()
            layer.ends()
        if steady and layers > SETTLED:
            layer.steps.append(Steady(begins=False))
    return tuple(layer.steps)
