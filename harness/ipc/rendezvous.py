"""Meeting points of a group's ranks on the host, through counters in shared memory.

Invariant: a rank that waits has first written down what it waits for, so the parent can distinguish a
deadlock (no rank that waits can ever go on) from slowness.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from harness.ipc import futex
from harness.ipc.memory import BARRIER, EPOCH, PAD, PAYLOAD, SharedMemory
from harness.ipc.pads import OF_BARRIER, shown
from harness.scenario.layouts.groups import Group, GroupId
from harness.trace.events import PadOverwritten

YIELDS = 2
"""Looks at the others' words before a rank sleeps."""


class Rendezvous:
    """One rank's place in row `slot`, which the members of `group` share."""

    def __init__(
        self, shared: SharedMemory, slot: int, group: Group, rank: int, patience: float = futex.PATIENCE
    ) -> None:
        self._rows = shared.counters[slot, : len(group)]
        self._start = self._rows.ctypes.data
        self._me = group.index(rank)
        self._waiting = shared.waiting[rank]
        self._slot, self._patience, self._shared = slot, patience, shared

    def meet(self, field: int) -> None:
        """Wait until every member has come to this point of `field`'s sequence. Collective, no timeout."""
        column = self._rows[:, field]
        target = int(column[self._me]) + 1
        column[self._me] = target
        futex.wake(self._address(field, self._me))
        self._shared.ring()
        turns = self._shared.turns
        if turns is not None:
            turns.met(self._slot, field, target, False)
        if column.min() < target:
            with self._noted(field, target):
                if turns is None:
                    self._sleep(field, column, target)
                else:
                    turns.meet(self._slot, field, target, len(column))
        if turns is not None:
            turns.met(self._slot, field, target, True)

    def _sleep(self, field: int, column: NDArray[np.int64], target: int) -> None:
        """Wait for the last member; at first awake, as ranks that do the same arrive together."""
        for _ in range(YIELDS):
            if column.min() >= target:
                return
            os.sched_yield()
        for member in range(len(column)):
            while (seen := int(column[member])) < target:
                futex.wait(self._address(field, member), seen, self._patience)

    def _address(self, field: int, member: int) -> int:
        """Where a member's word of a field is."""
        return self._start + member * self._rows.strides[0] + field * self._rows.strides[1]

    def exchange(self, field: int, *words: int) -> NDArray[np.int64]:
        """Every member's words, at most three, int64[size, len(words)]. Collective, on a `field` that has a payload."""
        columns = slice(PAYLOAD[field], PAYLOAD[field] + len(words))
        self._rows[self._me, columns] = words
        self.meet(field)
        found = self._rows[:, columns].copy()
        self.meet(field)
        return found

    @contextmanager
    def within(self, field: int) -> Iterator[None]:
        """Around a call of another library that comes back once every member has made it: this rank waits for `field`
        meanwhile, as in `meet`. A call that raises is not counted."""
        column = self._rows[:, field]
        target = int(column[self._me]) + 1
        column[self._me] = target
        try:
            with self._noted(field, target):
                yield
        except BaseException:
            column[self._me] = target - 1
            raise

    @contextmanager
    def _noted(self, field: int, target: int) -> Iterator[None]:
        """Under it, this rank waits for `target` in `field`; after it, for what it waited for before."""
        before = self._waiting.copy()
        self.note(field, target)
        try:
            yield
        finally:
            self._waiting[1:] = before[1:]
            self._waiting[0] = before[0]

    def next_epoch(self) -> int:
        """The next epoch of a plug-in's own barrier."""
        return self._next(EPOCH)

    def next_barrier(self) -> int:
        """The next epoch of the group's kernel barrier."""
        return self._next(BARRIER)

    def _next(self, field: int) -> int:
        self._rows[self._me, field] += 1
        return int(self._rows[self._me, field])

    def restart(self) -> None:
        """Count this member's epochs from zero again. Local."""
        self._rows[self._me, [EPOCH, BARRIER]] = 0

    def note(self, field: int, target: int) -> None:
        """Write down that this rank waits for `target` in `field`; with 0, that it waits no more."""
        self._waiting[1:3] = field, target
        self._waiting[0] = self._slot + 1 if target else 0


def deadlocked(shared: SharedMemory, groups: dict[int, Group], ranks: list[int]) -> bool:
    """Whether none of `ranks` can go on: each waits, and what it waits for has not come.

    Exact only where no other process will change the counters, so call it twice before believing it.
    """
    return bool(ranks) and all(_stuck(shared, groups, rank) for rank in ranks)


def _stuck(shared: SharedMemory, groups: dict[int, Group], rank: int) -> bool:
    slot, field, target = (int(word) for word in shared.waiting[rank][:3])
    if slot == 0 or slot - 1 not in groups:
        return False
    group = groups[slot - 1]
    if field != PAD:
        return int(shared.counters[slot - 1, : len(group), field].min()) < target
    signals = shared.barriers[slot - 1, group.index(rank), : len(group)]
    late = [sender for sender, signal in zip(group, signals, strict=True) if signal < target]
    # A sender that has noted the same epoch is inside its own barrier kernel and is about to signal.
    return any(
        tuple(shared.waiting[sender][:2]) != (slot, PAD) or shared.waiting[sender][2] < target for sender in late
    )


def lost_signals(shared: SharedMemory, slot: int, group: GroupId, member: int) -> Iterator[PadOverwritten]:
    """The words of a member's barrier pad that lack a signal which its sender has given, and for which it waits. Of
    ranks that hang: a sender writes its signal, into its own pad too, once it has counted."""
    noted, field, epoch = (int(word) for word in shared.waiting[group.ranks[member]][:3])
    if (noted, field) != (slot + 1, PAD):
        return
    for sender in range(len(group.ranks)):
        word, given = shared.barriers[slot, member, sender], shared.barriers[slot, sender, sender]
        if word < epoch <= min(int(shared.counters[slot, sender, BARRIER]), int(given)):
            yield PadOverwritten(group, OF_BARRIER, sender, 1, shown(word))
