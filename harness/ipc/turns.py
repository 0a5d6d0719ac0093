"""Turns of ranks that run by a schedule: one runs at a time, and every switch follows from the schedule.

Invariant: the rank that holds the baton is the only one that writes these words. It hands the baton on where a rank of
a higher priority can go on, where it waits itself, and where it has ended. So what ranks do is a function of what they
run and of the schedule. While no rank runs, the parent sets the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.ipc import futex

WORDS = 64
"""Words that are known of a rank which polls."""
GO, STATE, PRIORITY, LOOKS, COUNT, SIZE, PLACES = range(7)
"""What each rank has: whether it holds the baton, what it does, its priority, and how often it has polled in vain. Of
one that polls, how many words of which size in bytes, their places and, from `VALUES` on, their values. Of one that
meets others, four words from `COUNT` on: the row, the field, the target and the members."""
VALUES = PLACES + WORDS
WIDTH = VALUES + WORDS
POINTS, NUMBER, STUCK = range(3)
"""What all ranks have, in a row behind theirs: switch points so far, the last number given, and whether none can go
on."""
READY, MEETS, POLLS, ENDED = range(4)
PATIENCE = 100
"""How often a rank polls in vain, while all others wait, until it is taken for one that waits for ever."""

Words = NDArray[np.int64]


def rows(ranks: int) -> int:
    """Rows of words that so many ranks need."""
    return ranks + 1


def prepare(words: Words, order: Sequence[int] = ()) -> None:
    """Have the baton with the first of these ranks. Only while none runs."""
    words[...] = 0
    for place, rank in enumerate(order):
        words[rank, PRIORITY] = len(order) - place
        words[rank, GO] = place == 0


def is_stuck(words: Words) -> bool:
    """Whether the last rank that could go on has found that none can."""
    return bool(words[-1, STUCK])


Met = Callable[[int, int, int, bool], None]
"""Of a meeting: the row, the field and the target, and whether this rank leaves it."""


class Turns:
    """One rank's end. `counters` and `memory` are those of the shared memory, `changes` those of the schedule."""

    def __init__(
        self,
        words: Words,
        counters: NDArray[np.int64],
        memory: NDArray[np.uint8],
        rank: int,
        world: int,
        changes: Sequence[int],
    ) -> None:
        self._all, self._mine, self._common = words, words[rank], words[-1]
        self._counters, self._memory, self._rank, self._ranks = counters, memory, rank, range(world)
        self._by_size = {size: memory.view(f"i{size}") for size in (4, 8)}
        self._changes = {change: -1 - place for place, change in enumerate(changes)}
        self.met: Met = _unseen

    def begin(self) -> None:
        """Wait for the first turn."""
        self._await()

    def end(self) -> None:
        """Take no more turns."""
        self._mine[STATE] = ENDED
        following = self._next()
        if following is not None:
            self._hand(following)
        elif any(self._all[rank, STATE] != ENDED for rank in self._ranks):
            self._common[STUCK] = 1

    def number(self) -> int:
        """The next number in the order of what all ranks do."""
        self._common[NUMBER] += 1
        return int(self._common[NUMBER])

    def point(self) -> None:
        """A switch point: go on once it is this rank's turn."""
        self._common[POINTS] += 1
        priority = self._changes.get(int(self._common[POINTS]))
        if priority is not None:
            self._mine[PRIORITY] = priority
        self._yield()

    def meet(self, slot: int, field: int, target: int, members: int) -> None:
        """Wait until so many members of a row have come to `target` in a field."""
        self._mine[STATE] = MEETS
        self._mine[COUNT : COUNT + 4] = slot, field, target, members
        self._yield()
        self._mine[STATE] = READY

    def poll(self, places: Sequence[int], width: int, values: Sequence[int]) -> None:
        """This rank has read `values` again at these places of the shared memory: let others go on that can."""
        self._mine[STATE] = POLLS
        self._mine[LOOKS] += 1
        count = min(len(places), WORDS)
        self._mine[COUNT], self._mine[SIZE] = count, width
        self._mine[PLACES : PLACES + count] = places[:count]
        self._mine[VALUES : VALUES + count] = values[:count]
        self._yield()
        self._mine[STATE] = READY

    def progress(self) -> None:
        """What this rank has done is no poll in vain."""
        self._mine[LOOKS] = 0

    def _yield(self) -> None:
        following = self._next()
        if following is None:
            self._common[STUCK] = 1
            self._mine[GO] = 0
            self._await()  # for ever: the parent ends the draw
        elif following != self._rank:
            self._mine[GO] = 0
            self._hand(following)
            self._await()

    def _next(self) -> int | None:
        """The rank that is to run; None where none can go on."""
        for rank in np.argsort(-self._all[: len(self._ranks), PRIORITY], kind="stable").tolist():
            if self._is_able(rank):
                return int(rank)
        # a rank that reads a word again does not have to wait for it, so each gets its turn
        polling = [rank for rank in self._ranks if self._all[rank, STATE] == POLLS]
        patient = [rank for rank in polling if self._all[rank, LOOKS] < PATIENCE]
        return min(patient, key=lambda rank: int(self._all[rank, LOOKS]), default=None)

    def _is_able(self, rank: int) -> bool:
        row = self._all[rank]
        if row[STATE] == READY:
            return True
        if row[STATE] == MEETS:
            slot, field, target, members = row[COUNT : COUNT + 4].tolist()
            return bool(self._counters[slot, :members, field].min() >= target)
        return bool(row[STATE] == POLLS) and self._has_changed(row)

    def _has_changed(self, row: NDArray[np.int64]) -> bool:
        count, size = row[COUNT : COUNT + 2].tolist()
        places, values = row[PLACES : PLACES + count], row[VALUES : VALUES + count]
        words = self._by_size.get(size)
        if words is not None and not (places % size).any():
            return bool((words[places // size] != values).any())
        held = (word_of(self._memory[place : place + size]) for place in places.tolist())
        return any(word != value for word, value in zip(held, values.tolist(), strict=True))

    def _hand(self, rank: int) -> None:
        self._all[rank, GO] = 1
        futex.wake(self._address(rank))

    def _await(self) -> None:
        while not self._mine[GO]:
            futex.wait(self._address(self._rank), 0)

    def _address(self, rank: int) -> int:
        return int(self._all.ctypes.data) + rank * self._all.strides[0] + GO * self._all.strides[1]


def word_of(raw: NDArray[np.uint8]) -> int:
    """A word of at most eight bytes as a number that an int64 holds."""
    return int.from_bytes(raw.tobytes(), "little", signed=True)


def _unseen(*_: object) -> None:
    pass
