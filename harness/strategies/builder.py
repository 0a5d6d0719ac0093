"""Compiles drawn actions into the steps of a valid program.

Invariant: any list of actions compiles for any topology. Numbers choose among what is there (modulo
its count), and what an action cannot have, it makes. Without hazards the result is correct by
construction (`harness.strategies.operands`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import msgspec

from harness.scenario.alive import Alive, Flight
from harness.scenario.bases import CollectiveStep
from harness.scenario.layouts.groups import GroupIds, disjoint
from harness.scenario.operands import Elements, View, at, is_averaged, is_summed_exactly
from harness.scenario.steps import (
    Allocate,
    Ballast,
    Capture,
    Collective,
    Deny,
    EndCapture,
    InFlight,
    Prepare,
    Recreate,
    Refuse,
    Release,
    Replay,
    Stall,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology
from harness.scenario.valid_calls import lack_in_flight
from harness.scenario.validity import FLYING
from harness.strategies.actions import CHUNKED, COLLECTIVES, COMMON, IN_GRAPHS, ROOMS, Action
from harness.strategies.calls import call_of, is_routed_by, part_of, routed
from harness.strategies.operands import KERNEL_COUNT, Acting, Operands, Shape

LARGEST_ACTION = 3
"""Steps an action may take: two buffers and a collective."""
ALONE, BESIDE = ("all_gather", "all_gather", "reduce_scatter"), ("all_gather", "reduce_scatter", "all_reduce")
"""What a queue of one family holds in turns, and one of two families."""


class Lane(NamedTuple):
    """What the calls of one family in a queue are made of."""

    action: Action
    acting: Acting
    most: int
    """Elements that a rank contributes to the largest."""
    wholes: list[Allocate]
    part: Allocate


class Builder:
    """Steps in the making for one topology."""

    def __init__(
        self, topology: Topology, max_steps: int, spmd: bool = False, streams: int = 1, pulls: bool = False
    ) -> None:
        self._topology, self._max_steps, self._is_spmd, self._streams = topology, max_steps, spmd, streams
        everyone = [*range(topology.world)]
        widest = {
            name: max(map(len, groups))
            for name, groups in topology.families.items()
            if not spmd or sorted(chain.from_iterable(groups)) == everyone
        }
        wide_first = sorted(widest, key=lambda name: -widest[name])
        self._families = [name for name in wide_first if widest[name] > 1] or wide_first
        self._disjoint: dict[str, list[GroupIds]] = {}
        self._steps: list[Step] = []
        self._alive = Alive(topology)
        self._operands = Operands(topology, self._alive, pulls)
        self._compilers: dict[str, Callable[[Action], Iterator[Step]]] = {
            **dict.fromkeys(COLLECTIVES, self._collective),
            "allocate": self._allocate,
            "release": self._release,
            "ballast": self._ballast,
            "trim": self._trim,
            "recreate": self._recreate,
            "straggle": self._straggle,
            "turns": self._turns,
            "steady": self._steady,
            "fly": self._take_off,
            "land": self._land,
            "stall": self._stall,
            "turnover": self._turnover,
            "deny": self._deny,
            "refuse": self._refuse,
            "graph": self._graph,
            "replay": self._replay,
        }

    def resume(self, steps: Sequence[Step]) -> None:
        """Begin with the steps of a valid program. What is compiled then goes on behind them."""
        for step in steps:
            self._steps.append(step)
            self._alive.take(step)

    def build(self, actions: Sequence[Action], last: Action) -> tuple[Step, ...]:
        """Compile as many actions as fit in `max_steps`, and `last` whatever else fits."""
        for action in chain.from_iterable(map(self._rounds, actions)):
            if not self._take(action, self._max_steps - LARGEST_ACTION):
                break
        if self._max_steps < LARGEST_ACTION:
            kind = COMMON[0] if last.kind == "send_receive" else last.kind
            last = replace(last, kind=kind, part="in-place")  # one buffer and one collective
        for action in self._rounds(last):
            self._take(action, max(self._max_steps, 2))
        return tuple(self._steps)

    def _rounds(self, action: Action) -> Iterator[Action]:
        """A collective of a family whose groups overlap goes on in the next batch, as the steps of a ring do: a rank
        then acts in two groups of one family."""
        yield action
        if action.kind in COLLECTIVES and not action.groups and len(self._batches(action)) > 1:
            yield replace(action, family=action.family + len(self._families))

    def _batches(self, action: Action) -> list[GroupIds]:
        """The groups of the action's family, in batches that share no rank."""
        family = self._family(action)
        if family not in self._disjoint:
            self._disjoint[family] = disjoint(self._topology.ids[family])
        return self._disjoint[family]

    def _take(self, action: Action, limit: int) -> bool:
        """Add the steps of one action, unless they would pass the limit. Where they cannot be in flight, what is ends
        first."""
        steps = [*self._compilers[action.kind](action)]
        if self._alive.flight is not None and not self._may_fly(steps, self._alive.flight):
            steps.insert(0, InFlight(begins=False))
        fits = len(self._steps) + len(steps) <= limit
        for step in steps:
            if fits:
                self._steps.append(step)
            # `last` avoids communicators whose replacement was drawn and did not fit, so that a seed goes on to draw
            # the programs that it always drew
            if fits or isinstance(step, Recreate):
                self._alive.take(step)
        return fits

    def _may_fly(self, steps: Sequence[Step], flight: Flight) -> bool:
        """Whether all these steps may be taken while calls are in flight."""
        new = Flight({**flight.buffers}, {**flight.groups})
        for step in steps:
            acting: GroupIds = ()
            if isinstance(step, CollectiveStep):
                acting = self._topology.acting(step.family, step.groups)
                if lack_in_flight(step, acting, new):
                    return False
            if not isinstance(step, FLYING):
                return False
            new.take(step, acting)
        return True

    def _family(self, action: Action) -> str:
        return self._families[action.family % len(self._families)]

    def _acting(self, action: Action) -> Acting:
        """The groups that act: all, or one of the batches that share no rank; or some, from a drawn one on."""
        family = self._family(action)
        ids = self._topology.ids[family]
        if action.groups and not self._is_spmd:
            more, start = divmod(action.groups - 1, len(ids))
            chosen = disjoint((*ids[start:], *ids[:start]))[0][: 1 + more]
        else:
            batches = self._batches(action)
            chosen = batches[action.family // len(self._families) % len(batches)]
        acting = tuple(sorted(chosen, key=ids.index))
        return Acting(family, None if acting == ids else tuple(group.ranks for group in acting), acting)

    def _rank(self, action: Action) -> int:
        return action.buffer % self._topology.world

    def _collective(self, action: Action) -> Iterator[Step]:
        """A call of any kind, with the buffers that it needs and that are not there."""
        acting = self._acting(action)
        action = self._in_turn(action, acting)
        is_routed = is_routed_by(action) and len({*acting.sizes.values()}) == 1
        if is_routed:
            action = replace(action, share="equal", spread=0)
        plain = call_of(action, acting, View(""), 0, None)

        def sized(step: Collective, count: Elements) -> Collective:
            if not is_routed or not isinstance(count, int):
                return msgspec.structs.replace(step, count=count)
            size = len(acting.ids[0].ranks)
            via = "library" if step.via == "copy-engine" else step.via
            return msgspec.structs.replace(step, count=0, counts=routed(action, size, count), via=via)

        def needs(count: Elements) -> dict[int, int]:
            return {rank: each[0] for rank, each in _lengths(sized(plain, count), acting).items()}

        shape = Shape(needs, plain.op is not None, plain.kind in CHUNKED, plain.has_one_count)
        whole, view, count = self._operands.whole(action, acting, shape)
        yield from self._made(whole)
        part = None
        # NCCL has no send in place; an all-to-all in place reads a copy of as many elements as it writes
        is_uneven = is_routed or not isinstance(count, int)
        is_paired = plain.kind == "send_receive" or (plain.kind == "all_to_all" and is_uneven)
        if is_paired or action.part != "in-place":
            needed = {rank: each[1] for rank, each in _lengths(sized(plain, count), acting).items()}
            made, part = self._operands.part(action, acting, whole, needed, is_paired)
            yield from self._made(made)
        call = call_of(action, acting, view, count, part, self._op(action, whole.dtype))
        yield sized(call, count)

    def _turns(self, action: Action) -> Iterator[Step]:
        """Two collectives that some groups of a family run in one order, and the others in the other."""
        acting = self._acting(replace(action, groups=0))
        dtype = action.dtype if is_summed_exactly(action.dtype) else "float32"
        calls: list[Collective] = []
        for is_gather in (True, False):
            needs = {rank: min(action.count, KERNEL_COUNT) * size for rank, size in acting.sizes.items()}
            whole = self._operands.new(action, acting, needs, dtype, is_roomy=False)
            yield whole
            calls.append(self._in_place(action, acting, whole, min(action.count, KERNEL_COUNT), is_gather))
        first = tuple(group.ranks for group in acting.ids[: (len(acting.ids) + 1) // 2])
        rest = tuple(group.ranks for group in acting.ids[len(first) :])
        yield msgspec.structs.replace(calls[0], groups=first)
        yield calls[1]
        if rest:
            yield msgspec.structs.replace(calls[0], groups=rest)

    def _made(self, buffer: Allocate) -> Iterator[Step]:
        """The step that makes an operand, unless it is alive."""
        if buffer.buffer not in self._alive.buffers:
            yield buffer

    def _op(self, action: Action, dtype: str) -> str:
        """The drawn reduction where the type has it, else a sum."""
        return action.op if action.op != "avg" or is_averaged(dtype) else "sum"

    def _steady(self, action: Action) -> Iterator[Step]:
        """The same allocation, call and release three times over, the third in steady state: pools have met them."""
        acting = self._acting(replace(action, groups=0))
        for turn in range(3):
            if turn == 2:
                yield Steady()
            yield from self._on_its_own(action, acting)
        yield Steady(begins=False)

    def _allocate(self, action: Action) -> Iterator[Step]:
        acting = self._acting(action)
        count = self._operands.drawn_count(action, acting, action.dtype)
        needs = {rank: at(count, rank) for rank in acting.ranks}
        yield self._operands.new(action, acting, needs, action.dtype)

    def _release(self, action: Action) -> Iterator[Step]:
        if buffers := self._operands.buffers():
            yield Release(buffers[action.buffer % len(buffers)].buffer)

    def _ballast(self, action: Action) -> Iterator[Step]:
        acting, name = self._acting(action), self._operands.name()
        rank = sorted(acting.ranks)[action.buffer % len(acting.sizes)]
        yield Ballast(name, acting.family, rank, max(1, action.room + action.count), acting.groups)

    def _trim(self, action: Action) -> Iterator[Step]:
        """Cached memory goes. Half of the time that is memory of the group which then needs new one."""
        acting = self._acting(replace(action, groups=0))
        if action.is_fresh:
            yield from self._on_its_own(action, acting)
        yield Trim()
        if action.is_fresh:
            yield from self._on_its_own(action, acting)

    def _recreate(self, action: Action) -> Iterator[Step]:
        """New communicators, half of which are used at once. Then others that stay make the same call on the same
        buffer before and after, and half of the new ones find a segment that was there before."""
        own = self._acting(replace(action, groups=0))
        beside = [*self._on_others(action)] if action.is_fresh else []
        if action.is_fresh and action.root % 2:
            large = replace(action, room=ROOMS[-1])
            yield self._operands.new(large, own, dict.fromkeys(own.ranks, 1), action.dtype)
        yield from beside
        yield Recreate(own.family)
        if action.is_fresh:
            yield from self._on_its_own(action, own, is_released=False)
        yield from beside[1:]

    def _on_others(self, action: Action) -> Iterator[Step]:
        """One collective in place on a new buffer, of a family that shares no communicator with the action's."""
        if (other := self._of_others(action)) is not None:
            yield from self._on_its_own(other, self._acting(other), is_released=False, is_roomy=False)

    def _of_others(self, action: Action) -> Action | None:
        """The same action of a family that shares no communicator with its own; None if there is none."""
        own = {*self._topology.ids[self._family(action)]}
        others = [at for at, name in enumerate(self._families) if own.isdisjoint(self._topology.ids[name])]
        return replace(action, family=others[action.buffer % len(others)], groups=0) if others else None

    def _in_turn(self, action: Action, acting: Acting) -> Action:
        """The action on the stream on which its communicators have kernels in flight, if they have."""
        groups = self._alive.flight.groups if self._alive.flight and action.via == "kernel" else {}
        return replace(action, stream=next((groups[each] for each in acting.ids if each in groups), action.stream))

    def _take_off(self, action: Action) -> Iterator[Step]:
        """The begin of a flight; by a kernel half of them are queues, from begin to end."""
        yield from self._queue(action) if action.via == "kernel" and action.root % 2 else self._fly(action)

    def _fly(self, action: Action) -> Iterator[Step]:
        if self._alive.flight is None:
            yield InFlight()

    def _land(self, action: Action) -> Iterator[Step]:
        if self._alive.flight is not None:
            yield InFlight(begins=False)

    def _turnover(self, action: Action) -> Iterator[Step]:
        """Two calls in flight, each on a buffer that is released before anything waited for the call. The second is on
        the next stream, and may get the same memory."""
        acting = self._acting(replace(action, groups=0))
        yield from self._fly(action)
        for turn in range(2):
            if action.via == "library":  # kernels of a communicator stay on one stream
                action = replace(action, stream=(action.stream + turn) % self._streams)
            yield from self._on_its_own(action, acting)

    def _queue(self, action: Action) -> Iterator[Step]:
        """Two to ten calls of one family in flight, of several sizes, in place and not, with a rank that is late in
        their midst. Most of those on several streams are of two families in turns, whose calls have the same sizes.
        Then all are waited for."""
        beside = self._beside(action) if self._streams > 1 and action.root % 8 != 1 else None
        both = [each for each in (action, beside) if each is not None]
        lanes = [self._lane(each, 2 // len(both)) for each in both]
        calls = (2 + action.buffer % 9) // len(lanes)
        yield from self._fly(action)
        for lane in lanes:
            yield from (*lane.wholes, lane.part)
        for turn in range(calls):
            if turn == calls // 2:
                yield Straggle(self._rank(action), max(1, action.offset))
            for lane in lanes:
                yield self._queued(lane, turn, is_alone=len(lanes) == 1)
        yield InFlight(begins=False)

    def _beside(self, action: Action) -> Action | None:
        """The same action on the next stream, of a family that shares no communicator; None if there is none."""
        other = self._of_others(action)
        return None if other is None else replace(other, stream=(action.stream + 1) % self._streams)

    def _lane(self, action: Action, number: int) -> Lane:
        """The operands of a queue's calls of one family, of which `number` are whole."""
        acting = self._acting(action)
        action = self._in_turn(action, acting)
        dtype = action.dtype if is_summed_exactly(action.dtype) else "float32"
        count = min(action.count, KERNEL_COUNT)
        needs = {rank: count * size for rank, size in acting.sizes.items()}
        wholes = [self._operands.new(action, acting, needs, dtype, is_roomy=False) for _ in range(number)]
        shares = dict.fromkeys(acting.ranks, count)
        role = "window" if self._operands.pulls else "plain"
        part = self._operands.new(action, acting, shares, dtype, role, is_roomy=False)
        return Lane(action, acting, count, wholes, part)

    def _queued(self, lane: Lane, turn: int, is_alone: bool) -> Collective:
        """The call of a queue in one turn. Beside another family all ranks contribute the same."""
        whole, view = lane.wholes[turn % len(lane.wholes)], View(lane.part.buffer) if turn % 4 == 1 else None
        kinds, count = (ALONE if is_alone else BESIDE), max(1, lane.most >> turn % 4)
        each = replace(lane.action, kind=kinds[(turn + lane.action.slack) % len(kinds)])
        size = self._operands.shared(lane.action, lane.acting, count) if is_alone else count
        return call_of(each, lane.acting, View(whole.buffer), size, view, self._op(each, whole.dtype))

    def _stall(self, action: Action) -> Iterator[Step]:
        yield Stall(self._rank(action), action.offset, action.stream)

    def _straggle(self, action: Action) -> Iterator[Step]:
        yield Straggle(self._rank(action), action.offset)

    def _deny(self, action: Action) -> Iterator[Step]:
        yield Deny(self._rank(action))

    def _refuse(self, action: Action) -> Iterator[Step]:
        yield Refuse(self._rank(action))

    def _graph(self, action: Action) -> Iterator[Step]:
        """A graph over one collective: a warm-up, and the same again in the capture. A third of the actions make two,
        for two sizes of a batch, as engines capture them. The older one then runs after the newer one was captured,
        which may have replaced its state. A single graph of a kernel is replayed twice, mostly with a rank that is
        late: the first run of a call whose state is a number in the graph may be right."""
        first, most = len(self._alive.graphs), min(action.count, KERNEL_COUNT)
        counts = (max(2, most), max(2, most) // 2) if action.root % 3 == 1 else (most,)
        graphs = [f"g{first + number}" for number in range(len(counts))]
        for graph, count in zip(graphs, counts, strict=True):
            each = replace(action, count=count)
            yield Prepare(graph)
            yield from self._captured(each, is_released=True)
            yield Capture(graph)
            yield from self._captured(each, is_released=action.is_fresh)
            yield EndCapture(graph)
        if action.via == "kernel":
            yield Replay(graphs[0])
            if action.offset:
                # `buffer` alone would tie the late rank to what the graph holds, and `root` alone to a broadcast's root
                yield Straggle((action.buffer + action.root // 2) % self._topology.world, action.offset)
            yield Replay(graphs[-1])
        if len(graphs) > 1:
            yield Replay(graphs[0])

    def _captured(self, action: Action, is_released: bool) -> Iterator[Step]:
        """One such call as graphs hold it, on the graph's stream. All but gathers and scatters may run out of place; an
        all-to-all always does."""
        action = replace(action, stream=0)
        acting, kind = self._acting(action), IN_GRAPHS[action.buffer // 2 % len(IN_GRAPHS)]
        if not kind:
            yield from self._on_its_own(action, acting, is_released, is_roomy=False)
            return
        action = replace(action, kind=kind)
        plain = call_of(action, acting, View(""), action.count, None)
        dtype = action.dtype if plain.op is None or is_summed_exactly(action.dtype) else "float32"
        lengths = _lengths(plain, acting)
        wholes = {rank: each[0] for rank, each in lengths.items()}
        whole = self._operands.new(action, acting, wholes, dtype, is_roomy=False)
        yield whole
        made, part = [whole], None
        if kind == "all_to_all" or action.slack % 2:
            needs = {rank: each[1] for rank, each in lengths.items()}
            # a plug-in may leave it to the library, which makes sends of it
            role = self._operands.role(action, dtype, needs, is_paired=kind == "all_to_all")
            made.append(self._operands.new(action, acting, needs, dtype, role, is_roomy=False))
            part = View(made[1].buffer)
            yield made[1]
        yield call_of(action, acting, View(whole.buffer), action.count, part, self._op(action, dtype))
        if is_released:
            yield from (Release(each.buffer) for each in made)

    def _on_its_own(
        self, action: Action, acting: Acting, is_released: bool = True, is_roomy: bool = True
    ) -> Iterator[Step]:
        """One collective in place on a new buffer, which is then released."""
        count, is_gather = min(action.count, KERNEL_COUNT), action.part != "plain"
        dtype = action.dtype if is_gather or is_summed_exactly(action.dtype) else "float32"
        needs = {rank: count * size for rank, size in acting.sizes.items()}
        whole = self._operands.new(action, acting, needs, dtype, is_roomy=is_roomy)
        yield whole
        yield self._in_place(action, acting, whole, count, is_gather)
        if is_released:
            yield Release(whole.buffer)

    def _in_place(self, action: Action, acting: Acting, whole: Allocate, count: int, is_gather: bool) -> Collective:
        action = replace(action, kind="all_gather" if is_gather else "reduce_scatter")
        return call_of(action, acting, View(whole.buffer), count, None, self._op(action, whole.dtype))

    def _replay(self, action: Action) -> Iterator[Step]:
        usable = [name for name, graph in self._alive.graphs.items() if graph.ended_by is None]
        if usable:
            yield Replay(usable[action.buffer % len(usable)])


def _lengths(step: Collective, acting: Acting) -> dict[int, tuple[int, int]]:
    """Elements of the whole and of the part of a call that has both, on each rank that acts. Of the whole it is the
    largest of the group, as the windows of its ranks have one size."""
    step = msgspec.structs.replace(step, **{part_of(step): View("")})
    found: dict[int, tuple[int, int]] = {}
    for group in acting.ids:
        reached = [step.reach(group.ranks, rank) for rank in group.ranks]
        whole = max(each[0] for each in reached)
        found |= {rank: (whole, each[1]) for rank, each in zip(group.ranks, reached, strict=True)}
    return found
