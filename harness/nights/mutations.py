"""Mutations: a scenario changed a little, so that it goes on from a state that draws rarely reach.

Invariant: a mutation is a valid scenario of its parent's topology and system, made of the words of the strategy alone.
What a right system survives in the parents it survives in it: buffers are used by their own groups, in equal sizes, and
not after their communicator was replaced; a warm-up has the sizes of its capture; and if no parent has a buffer that is
larger on some ranks, it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec

from harness.errors import UsageError
from harness.nights.vocabulary import Vocabulary
from harness.scenario.alive import Alive
from harness.scenario.bases import CollectiveStep
from harness.scenario.hazards import hazards
from harness.scenario.operands import View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    Allocate,
    Ballast,
    GraphStep,
    InFlight,
    Recreate,
    Release,
    Steady,
    Step,
    Trim,
    of_one_size,
)
from harness.strategies.actions import COLLECTIVES, Action, of_kinds
from harness.strategies.batches import sample
from harness.strategies.builder import Builder
from harness.strategies.operands import KERNEL_COUNT
from harness.strategies.schedules import by_schedules

LONGEST = 32
"""Steps of a mutation at most, or as many as its parent has."""
ADDED = 3
"""Actions that are appended at most, before the last collective."""
TRIES = 8
"""Changes that are tried until one gives a scenario."""
FACTORS = (2, 3, 64, 4097)
"""By what a buffer grows."""
ONE_GROUP = 0.7
"""How often a buffer grows for one group alone."""
PAIRED = ("all_to_all", "send_receive")
"""Kinds whose sends depend on the size and on both windows (`half-registered`)."""
SCHEDULES = 64
"""Schedules of a scenario that are chosen from."""
DRAWN = 36
"""Actions that are drawn at a time."""


class Mutations:
    """Changes scenarios. The same seed and calls give the same mutations.

    `is_free`: any action of the vocabulary may be appended. Otherwise programs are only repeated, and calls go another
    way.
    """

    def __init__(self, seed: int, vocabulary: Vocabulary, is_free: bool = True) -> None:
        self._seed, self._vocabulary = seed, vocabulary
        self._chance = Random(f"mutations {seed}")
        self._actions: list[Action] = []
        self._batches = 0
        free = (self._extended, self._extended, self._extended, self._cut, self._cut, self._grown, self._grown)
        self._changes: Sequence[Callable[[Scenario, Scenario], tuple[Step, ...]]] = (
            *(free if is_free else ()),
            self._spliced,
            self._spliced,
            self._by_another_way,
        )

    def of(self, parent: Scenario, other: Scenario) -> Scenario | None:
        """One mutation of `parent`. A part of `other`, on the same topology, may be spliced in. None where no change
        that was tried gives a new scenario."""
        for _ in range(TRIES):
            change = self._chance.choice(self._changes)
            steps = change(parent, other)
            found = self._built(parent, steps)
            if found is not None and found.steps != parent.steps:
                return found
        return None

    def _built(self, parent: Scenario, steps: tuple[Step, ...]) -> Scenario | None:
        if len(steps) > max(LONGEST, len(parent.steps)):
            return None
        is_steady = any(isinstance(step, Steady) for step in steps)
        steps = steps if self._vocabulary.differs else of_one_size(steps)
        changes = {"steps": steps, "seed": self._chance.randrange(256), **({"falling": ()} if is_steady else {})}
        try:
            found = msgspec.structs.replace(parent, **changes)
        except UsageError:
            return None
        if not hazards(found.steps, found.topology) <= self._vocabulary.hazards:
            return None
        if found.scheduled is not None:
            found = [*by_schedules(found, SCHEDULES)][self._chance.randrange(SCHEDULES)]
        return found

    def _extended(self, parent: Scenario, other: Scenario) -> tuple[Step, ...]:
        """The whole program, and more behind it."""
        return self._and_more(parent, parent.steps)

    def _cut(self, parent: Scenario, other: Scenario) -> tuple[Step, ...]:
        """Its first steps, and others behind them."""
        alive = Alive(parent.topology)
        ends = [1]
        for index, step in enumerate(parent.steps):
            alive.take(step)
            if alive.open is None:
                ends.append(index + 1)
        return self._and_more(parent, parent.steps[: self._chance.choice(ends)])

    def _and_more(self, parent: Scenario, steps: Sequence[Step]) -> tuple[Step, ...]:
        vocabulary = self._vocabulary
        is_spmd = vocabulary.is_spmd or parent.system.sites == "implicit"
        most = max(LONGEST, len(steps) + 3)
        builder = Builder(parent.topology, most, is_spmd, vocabulary.streams)
        builder.resume(steps)
        added = [self._action() for _ in range(self._chance.randint(0, ADDED))]
        return builder.build(added, self._call())

    def _call(self) -> Action:
        """The next of them that is a collective; every strategy draws some."""
        while (action := self._action()).kind not in COLLECTIVES:
            pass
        return action

    def _action(self) -> Action:
        """The next action of the vocabulary, as programs draw it."""
        if not self._actions:
            words = self._vocabulary
            drawn = of_kinds(words.actions, frozenset(), words.via, words.streams)
            self._actions = sample(drawn, DRAWN, self._seed * 1_000_003 + self._batches)
            self._batches += 1
        return self._actions.pop()

    def _spliced(self, parent: Scenario, other: Scenario) -> tuple[Step, ...]:
        """The program, and then it or another again on buffers of its own; in between there may be new communicators,
        or no cached memory, where the strategy draws that."""
        again = self._chance.choice((parent, other))
        between: list[Step] = []
        if "recreate" in self._vocabulary.kinds and self._chance.random() < 0.5:
            between += [Recreate(name) for name in parent.families if self._chance.random() < 0.5]
        if "trim" in self._vocabulary.kinds and self._chance.random() < 0.3:
            between += [Trim()]
        if self._chance.random() < 0.5:
            between = [*_releases(parent), *between]
        return (*parent.steps, *_landing(parent.steps), *between, *renamed(again.steps, parent.steps))

    def _grown(self, parent: Scenario, other: Scenario) -> tuple[Step, ...]:
        """A buffer that is larger than it has to be, on all ranks or on those of one group. Where others have to be as
        large as it is, none grows."""
        buffers = _single(parent)
        if not buffers:
            return parent.steps
        index, factor = self._chance.choice(buffers), self._chance.choice(FACTORS)
        step = parent.steps[index]
        assert isinstance(step, Allocate)
        is_of_one = self._vocabulary.differs and self._chance.random() < ONE_GROUP
        grown = self._chance.choice(parent.acting(step)).ranks if is_of_one else range(parent.world)
        each = tuple(at(step.elements, rank) * (factor if rank in grown else 1) for rank in range(parent.world))
        elements = each[0] if len({*each}) == 1 else each
        return *parent.steps[:index], msgspec.structs.replace(step, elements=elements), *parent.steps[index + 1 :]

    def _by_another_way(self, parent: Scenario, other: Scenario) -> tuple[Step, ...]:
        """A call, or every call like it, by a kernel in place of the library, or the other way round."""
        if self._vocabulary.via != "mixed":
            return parent.steps
        windows = {name for name, step in parent.allocations.items() if step.role == "window"}
        calls = [index for index, step in enumerate(parent.steps) if _may_swap(step, windows)]
        if not calls:
            return parent.steps
        chosen = {self._chance.choice(calls)} if self._chance.random() < 0.5 else {*calls}
        return tuple(_swapped(step) if index in chosen else step for index, step in enumerate(parent.steps))


def _single(parent: Scenario) -> list[int]:
    """Allocations that no other has to match: a capture takes what its preparation left, and a steady state what the
    layers before it left."""
    if any(isinstance(step, Steady) for step in parent.steps):
        return []
    alive, single = Alive(parent.topology), []
    for index, step in enumerate(parent.steps):
        if isinstance(step, Allocate) and alive.open is None:
            single.append(index)
        alive.take(step)
    return single


def _may_swap(step: Step, windows: set[str]) -> bool:
    if not isinstance(step, CollectiveStep) or not step.has_kernels or step.kind in PAIRED:
        return False
    most = step.count if isinstance(step.count, int) else max(step.count)
    return step.via != "copy-engine" and most <= KERNEL_COUNT and step.whole.buffer in windows


def _swapped(step: Step) -> Step:
    assert isinstance(step, CollectiveStep)
    return msgspec.structs.replace(step, via="library" if step.via == "kernel" else "kernel")


def _landing(steps: Sequence[Step]) -> tuple[Step, ...]:
    """What ends the calls in flight, if any are left so."""
    flights = [step.begins for step in steps if isinstance(step, InFlight)]
    return (InFlight(begins=False),) * (flights[-1:] == [True])


def _releases(parent: Scenario) -> Iterator[Step]:
    """Releases of what is still there."""
    released = {step.drops for step in parent.steps}
    return (Release(name) for name in parent.allocations if name not in released)


def renamed(steps: Sequence[Step], before: Sequence[Step]) -> tuple[Step, ...]:
    """Steps on buffers and graphs of their own, behind those before."""
    known = {step.allocates for step in before} | {step.graph for step in before}
    number = next(number for number in range(1, len(before) + 2) if not _clash(steps, number, known))
    return tuple(_renamed(step, number) for step in steps)


def _clash(steps: Sequence[Step], number: int, known: set[str | None]) -> bool:
    named = (name for step in steps for name in (step.allocates, step.graph) if name is not None)
    return any(_name(name, number) in known for name in named)


def _name(name: str, number: int) -> str:
    return f"{name}.{number}"


def _renamed(step: Step, number: int) -> Step:
    fields = msgspec.structs.asdict(step)
    changed: dict[str, object] = {
        field: View(_name(at.buffer, number), at.offset) for field, at in fields.items() if isinstance(at, View)
    }
    if isinstance(step, Allocate | Ballast | Release):
        changed["buffer"] = _name(step.buffer, number)
    if isinstance(step, GraphStep):
        changed["graph"] = _name(step.graph, number)
    return msgspec.structs.replace(step, **changed)
