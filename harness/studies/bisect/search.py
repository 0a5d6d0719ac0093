"""Which versions to try, and what their verdicts show.

Invariant: no version is tried twice, and every change that is named lies between two versions that ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

Verdict = Literal["fails", "other", "clean", "skipped"]


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of the seed with one version."""

    version: str
    verdict: Verdict
    """`fails`: a rule of the seed is broken. `other`: other rules alone. `skipped`: it could not run."""
    failed: int = 0
    """Runs in which a rule of the seed was broken, or where none was, any rule."""
    runs: int = 0
    rules: tuple[str, ...] = ()
    """All rules that were broken in some run, those of the seed first."""
    why: str = ""
    """Why it was skipped."""

    @property
    def is_bad(self) -> bool:
        return self.verdict == "fails"

    @property
    def has_run(self) -> bool:
        return self.verdict != "skipped"


class Change(msgspec.Struct, frozen=True):
    """Two versions that ran, the older one first, between which the seed begins or ceases to fail."""

    before: Tried
    after: Tried
    skipped: tuple[str, ...] = ()
    """Versions between them, none of which could run."""

    @property
    def begins(self) -> bool:
        return self.after.is_bad


class Search:
    """Tries versions, given oldest first, with `attempt`. `tried` holds the verdicts until now by their place."""

    def __init__(self, versions: Sequence[str], attempt: Callable[[str], Tried]) -> None:
        self._versions, self._attempt = versions, attempt
        self.tried: dict[int, Tried] = {}
        self.changes: list[Change] = []

    def run(self, known: str | None = None, every: bool = False) -> None:
        """Try both ends, and between two that differ look for the change. Where the ends do not differ, try `known`
        too, the version that the seed was found with. With `every`, try every version."""
        for place in range(len(self._versions)) if every else self._ends(known):
            self._try(place)
        places = sorted(place for place, tried in self.tried.items() if tried.has_run)
        for low, high in pairwise(places):
            if self.tried[low].is_bad is not self.tried[high].is_bad:
                self.changes.append(self._change(low, high))

    def _ends(self, known: str | None) -> Iterator[int]:
        """Places to try before anything else."""
        places = range(len(self._versions))
        first, last = self._outermost(places), self._outermost(places[::-1])
        if first is None or last is None:
            return
        yield from (first, last)
        is_in = known in self._versions[first:last]
        if known is not None and is_in and self.tried[first].is_bad is self.tried[last].is_bad:
            yield self._versions.index(known)

    def _outermost(self, places: Sequence[int]) -> int | None:
        """The first place of these whose version runs. Those that do not are taken to lie side by side, as versions
        that are too old do: places are tried at growing distance, then the gap before the first that runs."""
        outside, inside = -1, None
        for at in _strides(len(places)):
            if self._try(places[at]).has_run:
                inside = at
                break
            outside = at
        if inside is None:
            return next((place for place in places if self._try(place).has_run), None)
        while inside - outside > 1:
            middle = (inside + outside) // 2
            if self._try(places[middle]).has_run:
                inside = middle
            else:
                outside = middle
        return places[inside]

    def _change(self, low: int, high: int) -> Change:
        """Narrow two places with different verdicts until no version between them is left to try."""
        while (middle := self._middle(low, high)) is not None:
            tried = self._try(middle)
            if tried.has_run and tried.is_bad is self.tried[low].is_bad:
                low = middle
            elif tried.has_run:
                high = middle
        between = tuple(self._versions[low + 1 : high])
        return Change(self.tried[low], self.tried[high], between)

    def _middle(self, low: int, high: int) -> int | None:
        """The middle of the longest run of versions between two places that were not tried."""
        walls = [low, *(place for place in range(low + 1, high) if place in self.tried), high]
        below, above = max(pairwise(walls), key=lambda gap: gap[1] - gap[0])
        return None if above - below < 2 else (below + above) // 2

    def _try(self, place: int) -> Tried:
        if place not in self.tried:
            self.tried[place] = self._attempt(self._versions[place])
        return self.tried[place]


def _strides(length: int) -> Iterable[int]:
    """0, 1, 3, 7 and so on, and the last."""
    steps = [(1 << power) - 1 for power in range(length.bit_length() + 1)]
    return [*(step for step in steps if step < length - 1), length - 1]
