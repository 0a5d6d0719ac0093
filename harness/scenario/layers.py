"""Layers of an engine with DP attention: the batches they run, the sizes of their buffers, and their steps so far.

Invariant: a `Layer` that exists has a topology with the families `tp`, `attn_tp` and `attn_cp`, each of groups of one
width, with attention groups that divide TP. Source: the released SGLang 0.5.12, `layers/dp_attention.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.scenario.bases import Via
from harness.scenario.operands import DType, Elements, View, at
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Release, Step
from harness.scenario.topology import Topology

FAMILIES = ("tp", "attn_tp", "attn_cp")
KERNEL_COUNT = 513
"""Largest count that goes through a kernel: Triton's interpreter pays by the element."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass.

    `tokens`: of each attention-DP rank. `is_padded`: every DP rank pads to the longest (`MAX_LEN`), or sizes
    differ between ranks (`SUM_LEN`). `is_symmetric`: whether sites allocate from the pool policy at all; engines
    switch it off for a batch that is not padded.
    """

    tokens: tuple[int, ...]
    is_padded: bool
    is_symmetric: bool = True


def engine_batch(tokens: Sequence[int], is_extending: bool) -> Batch:
    """The batch as the engine runs it: unpadded when extending or where padding costs too much, and then without
    symmetric memory (SGLang 0.5.12: `SUM_LEN` if extending, else `MAX_LEN` if 2·sum > max·dp)."""
    padded = not is_extending and 2 * sum(tokens) > max(tokens) * len(tokens)
    return Batch(tuple(tokens), padded, is_symmetric=padded)


@dataclass
class Layer:
    """Layers in the making: their steps so far, and what the next one asks for.

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
        self.tp, self.attn_tp, self.attn_cp = _widths(self.topology)
        self.width = self.attn_tp * self.attn_cp
        """Ranks that share a DP rank's tokens."""
        if self.tp % self.width:
            raise UsageError(
                f"topology {self.topology.name!r}: attention TP {self.attn_tp} · CP {self.attn_cp} does not divide "
                f"TP {self.tp}"
            )
        self.attn_dp = self.tp // self.width

    def shard(self, rank: int) -> int:
        """Elements of this rank's part of its DP rank's tokens, spread over attention TP and CP."""
        tokens = self.batch.tokens
        mine = max(tokens) if self.batch.is_padded else tokens[self._index("tp", rank) // self.width]
        return -(-mine // self.width) * self.hidden

    def shards(self, times: int = 1) -> Elements:
        """Elements of `times` shards, on each rank."""
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
        """Release what the line read. What it made is the next line's input."""
        self._release(self._held)
        self._held, self._fresh = self._fresh, []

    def ends(self) -> None:
        """Release all that the layer still holds."""
        self._release(self._held + self._fresh)
        self._held, self._fresh = [], []

    def _release(self, names: Sequence[str]) -> None:
        self.steps.extend(Release(name) for name in names)

    def _allocate(self, family: str, elements: Elements, site: str) -> str:
        role = "window" if self.batch.is_symmetric else "plain"
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


def _widths(topology: Topology) -> tuple[int, ...]:
    """Ranks of a group, for each of `FAMILIES`. Raises `UsageError` where flows cannot run."""
    missing = [name for name in FAMILIES if name not in topology.families]
    if missing:
        raise UsageError(
            f"topology {topology.name!r} ({topology.convention}) has no {missing[0]}; flows run on the "
            "families of the convention sglang"
        )
    widths = {name: {len(group) for group in topology.families[name]} for name in FAMILIES}
    for name, found in widths.items():
        if len(found) > 1:
            raise UsageError(
                f"topology {topology.name!r}: groups of {name} have {' and '.join(map(str, sorted(found)))} "
                "ranks; flows run where all have as many"
            )
    return tuple(widths[name].pop() for name in FAMILIES)


def _merged(values: list[int]) -> Elements:
    return values[0] if len(set(values)) == 1 else tuple(values)
