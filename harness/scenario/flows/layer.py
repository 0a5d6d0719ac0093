"""Layers in the making: the batches that they run, the tokens of each rank, their buffers, and their steps so far.

Invariant: a rank without tokens takes part in a call with count 0, and a group in which no rank has any makes no call.
What one engine does is in the module of its name. That module says which tokens a rank has, and what its lines do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from harness.errors import UsageError
from harness.scenario.bases import Via
from harness.scenario.layouts.groups import Groups
from harness.scenario.operands import DType, Elements, View, at
from harness.scenario.steps import AllGather, Allocate, AllReduce, ReduceScatter, Release, Step
from harness.scenario.topology import Topology

KERNEL_COUNT = 513
"""Largest count that goes through a kernel: Triton's interpreter pays by the element."""
Site = Literal["local", "global"]
Flow = Callable[[Any], None]
"""One line: it adds its steps to a layer of its engine."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass.

    `tokens`: of each source, such as an attention-DP rank (`Layer.sources`); some may have none. `is_padded`: every
    source pads to the longest, or sizes differ between ranks. `is_symmetric`: whether sites allocate from the pool
    policy at all; engines switch it off for a batch that is not padded.
    """

    tokens: tuple[int, ...]
    is_padded: bool
    is_symmetric: bool = True


@dataclass
class Layer(ABC):
    """Layers on one topology: their steps so far, and what the next one asks for.

    `hidden`: elements of one token. `stretch`: how many times larger buffers are than what moves through them,
    so that pools meet large sizes at the price of small collectives. Raises `UsageError`, naming the family, for a
    topology on which the engine's lines cannot run.
    """

    convention: ClassVar[str]
    families: ClassVar[tuple[str, ...]]
    """The families that it needs, each of groups of one width."""

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
        self.width_of = _widths(self.topology, self.families, self.convention)
        """Ranks of a group of each of `families`."""

    @property
    @abstractmethod
    def sources(self) -> int:
        """How many token counts a batch has."""

    @property
    @abstractmethod
    def granule(self) -> int:
        """So many more tokens make the shards of a source longer."""

    @property
    @abstractmethod
    def spread(self) -> int:
        """How many times the tokens of one source the largest buffer holds."""

    def tokens_of(self, source: int) -> int:
        """Tokens that a source runs, with padding."""
        tokens = self.batch.tokens
        return max(tokens) if self.batch.is_padded else tokens[source]

    def on_each(self, of: Callable[[int], int]) -> Elements:
        """A count for every rank, in rank order."""
        return merged([of(rank) for rank in range(self.topology.world)])

    def whole(self, family: str, count: Elements) -> Elements:
        """Elements of a buffer that has a shard of `count` for every rank of this rank's group."""
        return self.on_each(lambda rank: sum(at(count, each) for each in self.topology.group(family, rank)))

    def index(self, family: str, rank: int) -> int:
        """A rank's place in its group."""
        return self.topology.group(family, rank).index(rank)

    def width(self, family: str) -> int:
        """Ranks of a group; 1 for a family that there is not."""
        return max(map(len, self.topology.families.get(family, ((0,),))))

    def is_uneven(self, family: str, count: Elements) -> bool:
        """Whether counts differ between the ranks of a group."""
        return any(len({at(count, rank) for rank in group}) > 1 for group in self.topology.families[family])

    def get(self, family: str, elements: Elements, site: Site = "local", is_symmetric: bool | None = None) -> str:
        """A buffer that a site is asked for under a family. `is_symmetric`: as the batch says if left out."""
        symmetric = self.batch.is_symmetric if is_symmetric is None else is_symmetric
        name = self._name()
        asked = elements * self.stretch if isinstance(elements, int) else tuple(e * self.stretch for e in elements)
        self.steps.append(Allocate(name, family, asked, self.dtype, "window" if symmetric else "plain", site))
        return name

    def plain(self, elements: Elements) -> str:
        """A buffer that no site allocates, such as activations."""
        name = self._name()
        self.steps.append(Allocate(name, "tp", elements, self.dtype, "plain"))
        return name

    def all_gather(self, family: str, output: str, count: Elements, source: View | None) -> None:
        """Gather `count` elements of every rank of a group. In place without a source."""
        if self._runs(family, count):
            how = self._via(family, count)
            groups = self._acting(family, count)
            self.steps.append(AllGather(family, View(output), count, source, how, groups=groups))

    def reduce_scatter(self, family: str, source: str, count: Elements, output: View | None) -> None:
        """Reduce a shard of `count` elements for every rank of a group. In place without an output."""
        if self._runs(family, count):
            how = self._via(family, count)
            groups = self._acting(family, count)
            self.steps.append(ReduceScatter(family, View(source), count, output, "sum", how, groups=groups))

    def all_reduce(self, family: str, output: str, count: Elements, source: View | None = None) -> None:
        """Reduce `count` elements, as many on every rank of a group, to all of them. In place without a source."""
        if self._runs(family, count):
            how = self._via(family, count)
            groups = self._acting(family, count)
            self.steps.append(AllReduce(family, View(output), count, source, "sum", how, groups=groups))

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

    def _name(self) -> str:
        self._names += 1
        self._fresh.append(f"b{self._names - 1}")
        return self._fresh[-1]

    def _with_tokens(self, family: str, count: Elements) -> Groups:
        """The groups in which any rank has a count."""
        return tuple(group for group in self.topology.families[family] if any(at(count, rank) for rank in group))

    def _runs(self, family: str, count: Elements) -> bool:
        return self.width(family) > 1 and bool(self._with_tokens(family, count))

    def _acting(self, family: str, count: Elements) -> Groups | None:
        groups = self._with_tokens(family, count)
        return None if groups == self.topology.families[family] else groups

    def _via(self, family: str, count: Elements) -> Via:
        """Kernels take small counts that are the same in a group; the library takes the rest."""
        largest = max(at(count, rank) for rank in range(self.topology.world))
        return "library" if self.is_uneven(family, count) or largest > KERNEL_COUNT else self.via


@dataclass(frozen=True)
class Engine:
    """The lines of an engine's layer in their order, by name, and how the engine runs a batch of token counts:
    `batch(tokens, is_extending)`, where a batch that extends is a prefill."""

    layer: type[Layer]
    flows: Mapping[str, Flow]
    batch: Callable[[Sequence[int], bool], Batch]

    @property
    def convention(self) -> str:
        return self.layer.convention


def merged(values: Collection[int]) -> Elements:
    """One number for each rank, as one for all where they are equal."""
    return next(iter(values)) if len(set(values)) == 1 else tuple(values)


def _widths(topology: Topology, families: Sequence[str], convention: str) -> dict[str, int]:
    missing = [name for name in families if name not in topology.families]
    if missing:
        raise UsageError(
            f"topology {topology.name!r} ({topology.convention}) has no {missing[0]}; flows run on the "
            f"families of the convention {convention}"
        )
    widths = {name: {len(group) for group in topology.families[name]} for name in families}
    for name, found in widths.items():
        if len(found) > 1:
            raise UsageError(
                f"topology {topology.name!r}: groups of {name} have {' and '.join(map(str, sorted(found)))} "
                "ranks; flows run where all have as many"
            )
        if sorted(rank for group in topology.families[name] for rank in group) != [*range(topology.world)]:
            raise UsageError(
                f"topology {topology.name!r}: not every rank is in one group of {name}; flows run where each is"
            )
    return {name: found.pop() for name, found in widths.items()}
