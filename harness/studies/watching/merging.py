"""One order for what several ranks did together, out of the order of each rank.

Invariant: where the ranks' orders agree, the merged one agrees with all of them. Where they do not, as where two ranks
register with two communicators in opposite order, each thing is there once all the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)


def merged(lines: Sequence[Sequence[Thing]]) -> dict[Thing, int]:
    """The number of each thing in the merged order, from 0 on."""
    return _Merge(lines).run()


class _Merge(Generic[Thing]):
    def __init__(self, lines: Sequence[Sequence[Thing]]) -> None:
        self._lines = lines
        self._next = [0] * len(lines)
        self._awaited = Counter(thing for line in lines for thing in set(line))
        """By how many ranks each thing is yet to be reached."""
        self._at: dict[Thing, list[int]] = {}
        """The ranks that have come to each thing."""
        self._ready: deque[Thing] = deque()
        self._numbers: dict[Thing, int] = {}

    def run(self) -> dict[Thing, int]:
        for rank in range(len(self._lines)):
            self._go_on(rank)
        while (thing := self._following()) is not None:
            self._numbers[thing] = len(self._numbers)
            for rank in self._at.pop(thing):
                self._go_on(rank)
        return self._numbers

    def _following(self) -> Thing | None:
        """What every rank has come to; or, where all wait for one another, what the lowest rank has."""
        while self._ready:
            thing = self._ready.popleft()
            if thing not in self._numbers:
                return thing
        return next((thing for thing, _ in sorted(self._at.items(), key=lambda each: min(each[1]))), None)

    def _go_on(self, rank: int) -> None:
        """To the next thing that has no number yet."""
        line = self._lines[rank]
        while self._next[rank] < len(line) and line[self._next[rank]] in self._numbers:
            self._next[rank] += 1
        if self._next[rank] == len(line):
            return
        thing = line[self._next[rank]]
        ranks = self._at.setdefault(thing, [])
        ranks.append(rank)
        if len(ranks) == self._awaited[thing]:
            self._ready.append(thing)
