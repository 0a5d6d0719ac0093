"""Which programs exist: the check behind every `Scenario`.

Invariant: what passes here can be executed on every rank without looking at another rank's state;
what does not is refused with the number of the step, its kind and the reason.
"""

from __future__ import annotations

import msgspec

from harness.scenario.bases import counts_in, is_uneven
from harness.scenario.layout import Group, Partition
from harness.scenario.operands import GUARD, ITEMSIZE, Elements, View, at
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Collective,
    Deny,
    EndCapture,
    GraphStep,
    Prepare,
    ProgramError,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology

CAPTURED = Allocate | Release | AllGather | ReduceScatter | EndCapture
_KINDS = "allocate, release, all_gather, reduce_scatter and end_capture"
MAX_BYTES = 64 << 20
MAX_STRAGGLE_MS = 2000


class _Buffer(msgspec.Struct):
    elements: Elements
    dtype: str
    role: str = "window"


class _Graph(msgspec.Struct):
    """What a graph holds. `state`: prepared, capturing, captured, or why it can no longer be replayed."""

    state: str = "prepared"
    own: set[str] = set()
    """Buffers allocated in its capture."""
    used: set[str] = set()
    """Buffers from outside that its collectives use."""
    groups: set[Group] = set()


class _Refused(Exception):
    """The reason alone; `check` adds the step it belongs to."""


def check(topology: Topology, steps: tuple[Step, ...]) -> None:
    """Raise `ProgramError` for the first step that cannot run, naming it and the reason."""
    state = _State(topology)
    for index, step in enumerate(steps):
        try:
            state.take(step)
        except _Refused as refused:
            raise ProgramError(f"step {index} ({step.kind}): {refused}") from None
    if state.open is not None:
        raise ProgramError(f"graph {state.open!r} is prepared or captured, and its capture never ends")
    for index, step in enumerate(steps):
        if isinstance(step, Steady) and step.begins and not _repeats(steps, index):
            raise ProgramError(f"step {index} (steady): what follows does not repeat the two stretches before it")


def _repeats(steps: tuple[Step, ...], index: int) -> bool:
    """Whether the steps in steady state from `index` on are those before it, twice, but for names of buffers."""
    ends = (at for at in range(index + 1, len(steps)) if isinstance(steps[at], Steady))
    size = next(ends, len(steps)) - index - 1
    starts = index - 2 * size, index - size, index + 1
    return size > 0 and starts[0] >= 0 and len({_nameless(steps[start : start + size]) for start in starts}) == 1


def _nameless(steps: tuple[Step, ...]) -> bytes:
    """Steps with the buffers that they allocate named by their order."""
    names = [step.buffer for step in steps if isinstance(step, Allocate | Ballast)]
    text = msgspec.json.encode(steps)
    for number, name in enumerate(names):
        text = text.replace(msgspec.json.encode(name), b'"#%d"' % number)
    return text


class _State:
    """What is alive while the steps are read in order."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.live: dict[str, _Buffer] = {}
        self.seen: set[str] = set()
        self.graphs: dict[str, _Graph] = {}
        self.open: str | None = None
        """The graph that is being prepared or captured."""

    def take(self, step: Step) -> None:  # noqa: PLR0912  (one case for each kind)
        try:
            msgspec.convert(msgspec.to_builtins(step), type(step))
        except msgspec.ValidationError as error:
            raise _Refused(str(error)) from None
        if self._capturing is not None and not isinstance(step, CAPTURED):
            raise _Refused(f"graph {self.open!r} is being captured, which allows only {_KINDS}")
        if step.family is not None and step.family not in self.topology.families:
            raise _Refused(f"family {step.family!r} is not one of {', '.join(self.topology.families)}")
        self._stream(step.stream)
        match step:
            case Allocate():
                self._allocate(step)
            case Ballast():
                self._rank(step.rank)
                self._new(step.buffer, _Buffer(step.size, "uint8"), step.size)
            case Release():
                self._buffer(step.buffer)
                if self._capturing is not None and step.buffer not in self._capturing.own:
                    raise _Refused(f"{step.buffer!r} was allocated before the capture of graph {self.open!r} began")
                del self.live[step.buffer]
                for name, graph in self.graphs.items():
                    if step.buffer in graph.used:
                        graph.state = f"{step.buffer!r}, which graph {name!r} uses and did not allocate, was released"
            case AllGather() | ReduceScatter():
                self._collective(step)
            case Straggle():
                self._rank(step.rank)
                if not 0 <= step.milliseconds <= MAX_STRAGGLE_MS:
                    raise _Refused(f"{step.milliseconds} ms is not between 0 and {MAX_STRAGGLE_MS}")
            case Deny():
                self._rank(step.rank)
            case Recreate():
                for name, graph in self.graphs.items():
                    if graph.groups & {*self.topology.families[step.family]}:
                        graph.state = f"communicators that graph {name!r} uses were created anew"
            case Prepare() | Capture() | EndCapture() | Replay():
                self._graph(step)
            case Trim() | Steady():
                pass

    @property
    def _capturing(self) -> _Graph | None:
        """The graph that is being captured."""
        graph = self.graphs.get(self.open or "")
        return graph if graph is not None and graph.state == "capturing" else None

    def _graph(self, step: GraphStep) -> None:
        name, known = step.graph, self.graphs.get(step.graph)
        if isinstance(step, Replay):
            if known is None or name == self.open:
                raise _Refused(f"graph {name!r} was not captured")
            if known.state != "captured":
                raise _Refused(known.state)
        elif isinstance(step, EndCapture):
            if known is None or known is not self._capturing:
                raise _Refused(f"graph {name!r} is not being captured")
            known.state, self.open = "captured", None
        elif self.open is not None and not (isinstance(step, Capture) and name == self.open):
            raise _Refused(f"graph {self.open!r} is prepared or captured; one graph at a time")
        elif isinstance(step, Prepare):
            if known is not None:
                raise _Refused(f"graph {name!r} was prepared before")
            self.graphs[name], self.open = _Graph(), name
        elif known is not None and name != self.open:
            raise _Refused(f"graph {name!r} was captured before")
        else:
            self.graphs.setdefault(name, _Graph()).state, self.open = "capturing", name

    def _rank(self, rank: int) -> None:
        if not 0 <= rank < self.topology.world:
            raise _Refused(f"rank {rank} is not in a world of {self.topology.world}")

    def _stream(self, stream: int) -> None:
        if not 0 <= stream < STREAMS:
            raise _Refused(f"stream {stream} is not one of the {STREAMS} that programs may use")
        if stream and self.open is not None:
            raise _Refused(f"graph {self.open!r} is prepared or captured on a stream of its own, not on {stream}")

    def _counts(self, what: str, elements: Elements) -> list[int]:
        """One count for each rank, all positive."""
        self._one_each(what, elements)
        counts = [at(elements, rank) for rank in range(self.topology.world)]
        for rank, count in enumerate(counts):
            if count < 1:
                raise _Refused(f"{what} {count} on rank {rank} is not positive")
        return counts

    def _one_each(self, what: str, elements: Elements) -> None:
        if isinstance(elements, tuple) and len(elements) != self.topology.world:
            raise _Refused(f"{what} lists {len(elements)} ranks in a world of {self.topology.world}")

    def _allocate(self, step: Allocate) -> None:
        counts = self._counts("elements", step.elements)
        largest = max(counts)
        for group in self.topology.families[step.family] if step.site == "global" else ():
            if len({counts[rank] for rank in group}) > 1:
                raise _Refused(f"ranks of {step.family}{list(group)} differ in elements of a global buffer")
        self._new(step.buffer, _Buffer(step.elements, step.dtype, step.role), (largest + GUARD) * ITEMSIZE[step.dtype])

    def _new(self, name: str, buffer: _Buffer, size: int) -> None:
        if name in self.seen:
            raise _Refused(f"buffer {name!r} was allocated before")
        if not 0 < size <= MAX_BYTES:
            raise _Refused(f"buffer {name!r} of {size} bytes is not between 1 and {MAX_BYTES}")
        self.seen.add(name)
        self.live[name] = buffer
        if self._capturing is not None:
            self._capturing.own.add(name)

    def _buffer(self, name: str) -> _Buffer:
        if name not in self.live:
            raise _Refused(f"buffer {name!r} was {'released' if name in self.seen else 'never allocated'}")
        return self.live[name]

    def _collective(self, step: Collective) -> None:
        counts = self._counts("count", step.count)
        groups = self.topology.families[step.family]
        for group in groups:
            if step.via == "kernel" and is_uneven(step, group):
                raise _Refused(f"ranks of {step.family}{list(group)} differ in count, which kernels do not take")
        wholes = [sum(counts_in(step, self.topology.group(step.family, r))) for r in range(self.topology.world)]
        dtype = self._operand(step.whole, wholes)
        self._one_place(step, groups)
        if step.part is not None:
            if step.part.buffer == step.whole.buffer:
                raise _Refused(f"both operands lie in {step.part.buffer!r}; leave one out to run in place")
            other = self._operand(step.part, counts)
            if other != dtype:
                raise _Refused(f"{step.whole.buffer!r} is {dtype} and {step.part.buffer!r} is {other}")
        if isinstance(step, ReduceScatter):
            self._reduction(step, dtype, [len(group) for group in groups])
        if (graph := self._capturing) is not None:
            if step.via == "kernel":
                raise _Refused("kernels are not captured")
            names = {view.buffer for view in (step.whole, step.part) if view is not None}
            graph.used |= names - graph.own
            graph.groups |= {*groups}

    def _one_place(self, step: Collective, groups: Partition) -> None:
        """Peers are reached through windows at one offset, so a program may not ask for several."""
        if self.live[step.whole.buffer].role != "window":
            return
        for group in groups:
            if not is_uneven(step, group) and len({at(step.whole.offset, rank) for rank in group}) > 1:
                raise _Refused(f"ranks of {step.family}{list(group)} reach peers at different offsets of their buffers")

    def _operand(self, view: View, needs: list[int]) -> str:
        """The view's dtype, if its buffer holds what each rank needs."""
        buffer = self._buffer(view.buffer)
        if buffer.dtype == "uint8":
            raise _Refused(f"{view.buffer!r} is ballast, which one rank holds alone")
        self._one_each("offset", view.offset)
        for rank, need in enumerate(needs):
            offset = at(view.offset, rank)
            room = at(buffer.elements, rank) - offset
            if offset < 0 or room < need:
                raise _Refused(
                    f"{view.buffer!r} holds {max(room, 0)} elements behind offset {offset} on rank {rank}, needs {need}"
                )
        return buffer.dtype

    @staticmethod
    def _reduction(step: ReduceScatter, dtype: str, sizes: list[int]) -> None:
        if dtype.startswith("float8"):
            raise _Refused(f"{dtype} is not reduced exactly in every order; use it in all_gather")
        if step.op == "avg" and dtype == "int32":
            raise _Refused("avg of int32 is not exact")
        for size in sizes if step.op == "avg" else ():
            if size & (size - 1):
                raise _Refused(f"avg over a group of {size} is not exact; the size must be a power of two")
        if step.op == "max" and step.via == "kernel":
            raise _Refused("kernels reduce with sum or avg, not max")
