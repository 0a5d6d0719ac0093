"""Counters and waits of some ranks, copied from one host's memory into another's.

Invariant: a reader of a copy sees nothing that the ranks had not written in that order. A word that a rank hands over
is never older than the number that announces it, and a wait never older than the counters that end it. That rests on
one writer a word: whatever is copied twice is the same, or newer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from harness.ipc import futex
from harness.ipc.host_messages import Words
from harness.ipc.memory import FIELDS, WORDS_WAITING, SharedMemory
from harness.scenario.layouts.groups import GroupId

ANNOUNCED = 8
"""From this field on, what a member hands over; before it, the numbers that say so."""


class Mirror:
    """The words of `ranks` in the rows of a draw, as they were when they were last copied. `with_waits`: and what these
    ranks wait for, which the parent alone reads."""

    def __init__(
        self, shared: SharedMemory, slots: Mapping[GroupId, int], ranks: Collection[int], *, with_waits: bool
    ) -> None:
        self._shared = shared
        places = [(slot, at) for group, slot in slots.items() for at, rank in enumerate(group.ranks) if rank in ranks]
        self._slots, self._members = np.array(places, dtype=np.int64).reshape(-1, 2).T
        self._waiting = np.array(sorted(ranks) if with_waits else (), dtype=np.int64)
        rows = (self._slots * shared.ranks + self._members)[:, None] * FIELDS + np.arange(FIELDS)
        waits = shared.counters.size + self._waiting[:, None] * WORDS_WAITING + np.arange(WORDS_WAITING)
        self._places = np.concatenate([rows.ravel(), waits.ravel()])
        self._last = self._read()

    def _read(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The words now: waits first and what is handed over last, as each must be no older than those before it."""
        waits = self._shared.waiting[self._waiting]
        numbers = self._shared.counters[self._slots, self._members, :ANNOUNCED]
        rows = np.concatenate([numbers, self._shared.counters[self._slots, self._members, ANNOUNCED:]], axis=1)
        return np.concatenate([rows.ravel(), waits.ravel()])

    def changed(self) -> Words | None:
        """What has changed since the last call, if anything has."""
        now = self._read()
        changed = np.flatnonzero(now != self._last)
        self._last = now
        return Words(self._places[changed].tobytes(), now[changed].tobytes()) if changed.size else None


def take(shared: SharedMemory, words: Words) -> None:
    """Write words that were copied elsewhere, and wake who waits for one of them. Raises `IndexError` or `ValueError`
    for words that are none of this memory."""
    places, values = (np.frombuffer(part, dtype=np.int64) for part in (words.places, words.values))
    counters, waiting = shared.counters.reshape(-1), shared.waiting.reshape(-1)
    in_rows = places < counters.size
    is_number = in_rows & (places % FIELDS < ANNOUNCED)
    is_handed = in_rows & ~is_number
    counters[places[is_handed]] = values[is_handed]
    counters[places[is_number]] = values[is_number]
    waiting[places[~in_rows] - counters.size] = values[~in_rows]
    for place in places[is_number].tolist():
        futex.wake(int(counters.ctypes.data) + place * counters.itemsize)
