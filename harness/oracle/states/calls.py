"""States of calls: the paths they took, the groups they ran on, and their sizes.

Invariant: only calls that were made count. What never returned has no path.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from harness.oracle.case import Case
from harness.oracle.history import Use
from harness.scenario.layouts.groups import Group
from harness.scenario.operands import ITEMSIZE

WIDTHS = ((1, "width 1"), (2, "width 2"), (3, "width 3"), (4, "width 4"), (8, "width 5 to 8"), (16, "width 9 to 16"))
WIDEST = "width 17 and more"
KIB = 1 << 10
BUCKETS = (
    (0, "no bytes"),
    (KIB, "up to 1 KiB"),
    (16 * KIB, "up to 16 KiB"),
    (64 * KIB, "up to 64 KiB"),
    (KIB * KIB, "up to 1 MiB"),
)
LARGEST = "over 1 MiB"
"""Bytes that one rank contributes at most."""
WORD = 16
"""Bytes of the widest access of a kernel."""


def paths(case: Case) -> Iterator[str]:
    """Such as `all_gather library symmetric`: an operation, how it was made, and the path that it took."""
    for uses in case.calls.values():
        yield from {f"{use.called.kind} {use.called.via} {use.ran.path}" for use in uses if use.ran is not None}


def groups(case: Case) -> Iterator[str]:
    """Width and shape of the groups that ran calls, and how two of them lie to each other."""
    used = dict.fromkeys(uses[0].comm.id for uses in case.calls.values())
    for group in dict.fromkeys(each.ranks for each in used):
        yield _width(len(group))
        if len(group) > 1:
            yield from _shape(group)
    for uses in case.calls.values():
        if len(uses[0].comm.group) > 1 and not uses[0].comm.has_windows:
            yield "without windows"
    yield from {_pair(one.ranks, other.ranks) for one, other in combinations(used, 2)} - {""}


def _width(size: int) -> str:
    return next((name for most, name in WIDTHS if size <= most), WIDEST)


def _shape(group: Group) -> Iterator[str]:
    if list(group) != sorted(group):
        yield "ranks not in rising order"
    elif group[-1] - group[0] >= len(group):
        yield "ranks with gaps"


def _pair(one: Group, other: Group) -> str:
    """How two groups lie to each other; empty where both are of one rank or have no rank in common."""
    first, second = {*one}, {*other}
    if min(len(first), len(second)) < 2 or first.isdisjoint(second):
        return ""
    if first == second:
        return "two communicators over equal ranks"
    return "one group inside another" if first < second or second < first else "two groups that overlap"


def sizes(case: Case) -> Iterator[str]:
    """What a rank contributes at most, and what is odd about it."""
    for uses in case.calls.values():
        counts, itemsize = uses[0].called.counts, ITEMSIZE.get(uses[0].called.dtype, 1)
        each = counts if isinstance(counts, tuple) else (counts,)
        yield _bucket(max(each) * itemsize)
        if uses[0].called.is_uneven:
            yield "uneven"
            if not min(each):
                yield "some ranks without bytes"
        yield from _beside_a_power(max(each), itemsize)
        if any(_is_unaligned(use) for use in uses):
            yield "unaligned"


def _bucket(size: int) -> str:
    return next((name for most, name in BUCKETS if size <= most), LARGEST)


def _beside_a_power(count: int, itemsize: int) -> Iterator[str]:
    for by, name in ((-1, "one element below a power of two"), (0, "a power of two"), (1, "one element above one")):
        size = (count - by) * itemsize
        if size >= KIB and not size & (size - 1):
            yield name


def _is_unaligned(use: Use) -> bool:
    return bool((use.source.operand.address | use.output.operand.address) % WORD)
