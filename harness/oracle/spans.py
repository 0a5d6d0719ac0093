"""Things by the span of addresses that they have: which spans cover an address, and which meet a range.

Invariant: a question looks at spans near the place it asks for, and not at all there are. A recording asks at every
change of memory, so a look at all spans would make judging quadratic.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

Thing = TypeVar("Thing")
Span = tuple[int, int]
"""First address, and the one behind the last."""


class Spans(Generic[Thing]):
    """One thing for each span."""

    def __init__(self) -> None:
        self._things: dict[Span, Thing] = {}
        self._alike: dict[int, list[Span]] = {}
        """Spans in order, by the number of binary digits of their length: those of one list are less than a power of
        two long, so they begin less than that in front of what they cover."""

    def get(self, span: Span) -> Thing | None:
        """The thing of just this span, if there is one."""
        return self._things.get(span)

    def put(self, span: Span, thing: Thing) -> None:
        """Give a span its thing, in place of the one that it had."""
        if span not in self._things:
            insort(self._alike.setdefault(_digits(span), []), span)
        self._things[span] = thing

    def drop(self, span: Span) -> None:
        """Take a span away. Raises `KeyError` if it is not there."""
        del self._things[span]
        alike = self._alike[_digits(span)]
        del alike[bisect_left(alike, span)]

    def covering(self, address: int) -> Iterator[tuple[Span, Thing]]:
        """All spans that an address lies in, in no order."""
        return self.meeting(address, address + 1)

    def meeting(self, start: int, end: int) -> Iterator[tuple[Span, Thing]]:
        """All spans that begin before the end of a range and end behind its start, in no order."""
        for digits, alike in self._alike.items():
            first = bisect_left(alike, (start - (1 << digits) + 1,))
            for span in alike[first : bisect_left(alike, (end,), first)]:
                if span[1] > start:
                    yield span, self._things[span]


def _digits(span: Span) -> int:
    return (span[1] - span[0]).bit_length()
