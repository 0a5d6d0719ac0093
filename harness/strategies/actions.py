"""Compiles drawn actions into the steps of a valid program.

Invariant: any list of actions compiles for any topology. Numbers choose among what is there (modulo
its count), and what an action cannot have, it makes. Without hazards the result is correct by
construction: a window buffer is used only by its own group, with equal sizes on the group's ranks,
and not after its communicator was replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.scenario.layout import Group
from harness.scenario.operands import GUARD, ITEMSIZE, Elements, View, at
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology

Hazard = Literal["ballast", "deny", "uneven"]
REDUCED = ("float32", "bfloat16", "float16", "int32")
LARGEST_ACTION = 3
"""Steps an action may take: two buffers and a collective."""
LARGEST_BYTES = 16 << 20
"""A collective's output or source, without what is added to its buffer."""
KERNEL_COUNT = 4097
"""Largest count drawn for kernels: the interpreter pays by the element."""


@dataclass(frozen=True)
class Action:
    """One thing to do, in numbers that mean something for every topology."""

    kind: str
    family: int
    buffer: int
    fresh: bool
    count: int
    spread: int
    room: int
    slack: int
    offset: int
    dtype: str
    op: str
    part: str
    via: str
    uneven: bool
    stream: int


@dataclass
class _Live:
    name: str
    family: str
    elements: Elements
    dtype: str
    role: str
    stale: bool = False
    """Whether the communicator it was registered with was replaced; a stale buffer is not used again."""


class Builder:
    """Steps in the making for one topology."""

    def __init__(self, topology: Topology, max_steps: int) -> None:
        self._topology, self._max_steps = topology, max_steps
        wide_first = sorted(topology.families, key=lambda name: -len(topology.families[name][0]))
        self._families = [name for name in wide_first if len(topology.families[name][0]) > 1] or wide_first
        self._steps: list[Step] = []
        self._live: list[_Live] = []
        self._names = 0
        self._graphs: dict[str, set[Group]] = {}
        """The groups of each graph; none once their communicators were replaced."""

    def build(self, actions: Sequence[Action], last: Action) -> tuple[Step, ...]:
        """Compile as many actions as fit in `max_steps`, and `last` whatever else fits."""
        for action in actions:
            if not self._take(action, self._max_steps - LARGEST_ACTION):
                break
        if self._max_steps < LARGEST_ACTION:
            last = replace(last, part="in-place")  # one buffer and one collective
        self._take(last, max(self._max_steps, 2))
        return tuple(self._steps)

    def _take(self, action: Action, limit: int) -> bool:
        """Compile one action, unless it would pass the limit."""
        steps, live, graphs = len(self._steps), [*self._live], dict(self._graphs)
        getattr(self, f"_{action.kind}")(action)
        if len(self._steps) <= limit:
            return True
        del self._steps[steps:]
        self._live, self._graphs = live, graphs
        return False

    def _family(self, action: Action) -> str:
        return self._families[action.family % len(self._families)]

    def _size(self, family: str, rank: int) -> int:
        return len(self._topology.group(family, rank))

    def _all_gather(self, action: Action) -> None:
        family = self._family(action)
        whole, count = self._whole(action, family)
        source = None if action.part == "in-place" else self._part(action, family, whole, count)
        self._steps.append(
            AllGather(family, View(whole.name, action.offset), count, source, action.via, stream=action.stream)  # type: ignore[arg-type]
        )

    def _reduce_scatter(self, action: Action) -> None:
        family = self._family(action)
        whole, count = self._whole(action, family, reducible=True)
        output = None if action.part == "in-place" else self._part(action, family, whole, count)
        op = self._op(action, family, whole.dtype)
        via = "library" if op == "max" else action.via
        view = View(whole.name, action.offset)
        self._steps.append(ReduceScatter(family, view, count, output, op, via, stream=action.stream))  # type: ignore[arg-type]

    def _op(self, action: Action, family: str, dtype: str) -> str:
        widths = {len(group) for group in self._topology.families[family]}
        exact = dtype != "int32" and all(width & (width - 1) == 0 for width in widths)
        if action.op == "avg" and not exact:
            return "sum"
        return "sum" if action.op == "max" and action.via == "kernel" else action.op

    def _whole(self, action: Action, family: str, reducible: bool = False) -> tuple[_Live, Elements]:
        """The buffer that holds every rank's chunk, and how much each rank contributes."""
        own = [live for live in self._live if self._serves(live, family, reducible)]
        if own and not action.fresh:
            whole = own[action.buffer % len(own)]
            count = self._fitting(action, family, whole)
            if count is not None:
                return whole, count
        count = self._drawn_count(action, family)
        dtype = action.dtype if not reducible or not action.dtype.startswith("float8") else "float32"
        ranks = range(self._topology.world)
        needs = [action.offset + at(count, rank) * self._size(family, rank) + action.slack for rank in ranks]
        return self._new(action, family, needs, dtype, "window"), count

    def _serves(self, live: _Live, family: str, reducible: bool) -> bool:
        """Whether a live buffer may be peer-addressed by collectives of `family`."""
        alike = self._topology.families[live.family] == self._topology.families[family]
        narrow = live.dtype.startswith("float8") or live.dtype == "uint8"
        return live.role == "window" and alike and not live.stale and not (reducible and narrow)

    def _drawn_count(self, action: Action, family: str) -> Elements:
        """One count for all ranks, or, spread over the groups of a family, one for each group."""
        groups = self._topology.families[family]
        fits = LARGEST_BYTES // 4 // max(len(group) for group in groups)
        count = min(action.count, fits, KERNEL_COUNT if action.via == "kernel" else action.count)
        if action.spread == 0 or len(groups) == 1:
            return count
        per_group = {rank: count + index * action.spread for index, group in enumerate(groups) for rank in group}
        return tuple(per_group[rank] for rank in range(self._topology.world))

    def _fitting(self, action: Action, family: str, whole: _Live) -> Elements | None:
        """The drawn count, lowered to what an existing buffer holds in every group; None if nothing fits."""
        counts: dict[int, int] = {}
        for group in self._topology.families[family]:
            room = min(at(whole.elements, rank) for rank in group) - action.offset
            fits = room // len(group)
            if fits < 1:
                return None
            wanted = min(action.count, KERNEL_COUNT) if action.via == "kernel" else action.count
            counts |= dict.fromkeys(group, min(fits, wanted))
        ordered = tuple(counts[rank] for rank in range(self._topology.world))
        return ordered[0] if len(set(ordered)) == 1 else ordered

    def _part(self, action: Action, family: str, whole: _Live, count: Elements) -> View:
        """The operand of one chunk: ordinary memory, or a window of the same family."""
        role = "plain" if action.part == "plain" else "window"
        for live in self._live:
            enough = all(at(live.elements, r) >= at(count, r) + action.slack for r in range(self._topology.world))
            same_pool = role == "plain" or self._topology.families[live.family] == self._topology.families[family]
            if (
                live is not whole
                and not live.stale
                and live.role == role
                and live.dtype == whole.dtype
                and enough
                and same_pool
            ):
                return View(live.name, action.slack)
        needs = [at(count, rank) + action.slack for rank in range(self._topology.world)]
        return View(self._new(action, family, needs, whole.dtype, role, roomy=False).name, action.slack)

    def _new(self, action: Action, family: str, needs: list[int], dtype: str, role: str, roomy: bool = True) -> _Live:
        """Allocate a buffer for what each rank needs, filled up to a size-class boundary if so drawn."""
        if roomy and action.room:
            # one element below, on, or above the boundary, the guard included
            filled = action.room // ITEMSIZE[dtype] - GUARD + action.buffer % 3 - 1
            needs = [max(need, filled) for need in needs]
        if action.uneven and role == "window":
            needs = [need + rank * (1 + action.spread) for rank, need in enumerate(needs)]
        elements: Elements = needs[0] if len(set(needs)) == 1 else tuple(needs)
        live = _Live(self._name(), family, elements, dtype, role)
        self._steps.append(Allocate(live.name, family, elements, dtype, role, stream=action.stream))  # type: ignore[arg-type]
        self._live.append(live)
        return live

    def _name(self) -> str:
        self._names += 1
        return f"b{self._names - 1}"

    def _allocate(self, action: Action) -> None:
        family = self._family(action)
        needs = [at(self._drawn_count(action, family), rank) for rank in range(self._topology.world)]
        self._new(action, family, needs, action.dtype, "window")

    def _release(self, action: Action) -> None:
        if self._live:
            live = self._live.pop(action.buffer % len(self._live))
            self._steps.append(Release(live.name))

    def _trim(self, action: Action) -> None:
        self._steps.append(Trim())

    def _recreate(self, action: Action) -> None:
        family = self._family(action)
        gone: set[Group] = set(self._topology.families[family])
        self._steps.append(Recreate(family))
        for live in self._live:
            live.stale |= bool(gone & set(self._topology.families[live.family]))
        for graph, groups in self._graphs.items():
            self._graphs[graph] = groups if not gone & groups else set()

    def _straggle(self, action: Action) -> None:
        self._steps.append(Straggle(action.buffer % self._topology.world, action.offset))

    def _ballast(self, action: Action) -> None:
        name = self._name()
        rank = action.buffer % self._topology.world
        self._steps.append(Ballast(name, self._family(action), rank, max(1, action.room + action.count)))

    def _graph(self, action: Action) -> None:
        """A graph over one collective in place: a warm-up, and the same again in the capture."""
        action = replace(action, via="library", stream=0)
        family, graph = self._family(action), f"g{len(self._graphs)}"
        self._graphs[graph] = {*self._topology.families[family]}
        gathers = action.part != "plain"
        dtype = action.dtype if gathers or action.dtype in REDUCED else "float32"
        count = min(action.count, KERNEL_COUNT)
        needs = [count * self._size(family, rank) for rank in range(self._topology.world)]
        op = "sum" if gathers else self._op(action, family, dtype)
        self._steps.append(Prepare(graph))
        for is_captured in (False, True):
            if is_captured:
                self._steps.append(Capture(graph))
            whole = self._new(action, family, needs, dtype, "window", roomy=False)
            view = View(whole.name)
            self._steps.append(
                AllGather(family, view, count) if gathers else ReduceScatter(family, view, count, op=op)  # type: ignore[arg-type]
            )
            self._live.remove(whole)  # nothing but the graph is to write it
            if not is_captured or action.fresh:
                self._steps.append(Release(whole.name))
        self._steps.append(EndCapture(graph))

    def _replay(self, action: Action) -> None:
        usable = [graph for graph, groups in self._graphs.items() if groups]
        if usable:
            self._steps.append(Replay(usable[action.buffer % len(usable)]))

    def _deny(self, action: Action) -> None:
        self._steps.append(Deny(action.buffer % self._topology.world))
