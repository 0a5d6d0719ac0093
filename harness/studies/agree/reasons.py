"""Why two substrates may rightly differ: a table of named reasons, each of which has to show in the draws.

Invariant: a reason explains the facts that it can reach and no others. A new reason needs a cause
outside the harness (a version, an allocator), and a text for it here and in `docs/decisions/studies.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from harness.oracle.case import Case
from harness.oracle.judge import judge
from harness.scenario.steps import Recreate
from harness.studies.agree.facts import ANYWHERE, FACTS, Difference, differences
from harness.trace.draw import Draw
from harness.trace.events import SMALL_SEGMENT, SegmentAllocated, SegmentFreed
from harness.trace.trace import Trace


class Disparity(NamedTuple):
    """In what two draws differ, in one fact. `repeats`: whether each of them does the same when it is run again, where
    that was tried."""

    fact: str
    differences: Sequence[Difference]
    first: Draw
    second: Draw
    repeats: bool = True

    @property
    def pool(self) -> str:
        return self.first.scenario.system.pool


class Reason(NamedTuple):
    """`holds` says whether a disparity is to be expected. `why` is the cause, for a reader."""

    name: str
    why: str
    holds: Callable[[Disparity], bool]


BY_SNAPSHOT = ("snapshot-once", "per-unique-id")
"""The pools that register what a snapshot shows, in its order, and that forget no address."""
PLACED = frozenset(FACTS) - {"exhausted"}
"""The facts that follow from which block or window a buffer got."""
TRUNCATED = "Message truncated"
"""What NCCL says where a rank gets a message of another kind than it waits for."""
FRESH = frozenset({"place", "registrations"})
"""The facts that a fresh pool changes: what lies in it is owned and fast all the same."""


def _addresses(disparity: Disparity) -> bool:
    """Whether, in one of the pools, two ranks of either draw hold their segments in different orders of address, before
    the draws differ; and whether what differs beside places does so where an operand lies elsewhere."""
    if disparity.fact not in (FRESH if disparity.pool == "deferred" else PLACED):
        return False
    of_classes = disparity.pool not in BY_SNAPSHOT
    orders = [_orders(trace, of_classes) for draw in (disparity.first, disparity.second) for trace in draw.traces]
    found = (
        step
        for one, other in combinations(orders, 2)
        for pool in one.keys() & other.keys()
        for step in _turned(one[pool], other[pool])
    )
    since = min(found, default=None)
    if since is None:
        return False
    places = differences("place", Case(disparity.first), Case(disparity.second))
    moved = {each.where.step for each in places or ()}
    return all(_follows(disparity, each, since, moved) for each in disparity.differences)


def _follows(disparity: Disparity, difference: Difference, since: int, moved: set[int]) -> bool:
    """Whether a difference can come of addresses that lie in other orders from step `since` on, so that operands of
    the calls at the steps `moved` lie elsewhere."""
    step = difference.where.step
    if step != ANYWHERE and step < since:
        return False
    if disparity.fact in FRESH:
        return True
    if step == ANYWHERE or not (disparity.first.is_clean and disparity.second.is_clean):
        return True  # a draw that ended early has no places to compare
    return step in moved if disparity.fact == "data" else any(elsewhere <= step for elsewhere in moved)


class Grown(NamedTuple):
    """A pool when it had grown: its live segments from the lowest address up, each by when it came (its step, and its
    number among those of the step)."""

    step: int
    came: list[tuple[int, int]]

    @property
    def places(self) -> list[int]:
        """The same segments, counted as they came."""
        return [sorted(self.came).index(segment) for segment in self.came]


def _turned(one: list[Grown], other: list[Grown]) -> Iterator[int]:
    """Since which steps two ranks hold the segments of a pool in different orders: those that they count alike, or
    those that came at the same step, where one rank has more than the other."""
    yield from (
        max(here.step, there.step) for here, there in zip(one, other, strict=False) if here.places != there.places
    )
    for growing, still in ((one, other), (other, one)):
        for here in growing:
            there = next((each for each in reversed(still) if each.step <= here.step), None)
            both = {*here.came} & {*there.came} if there else set()
            if there and [each for each in here.came if each in both] != [each for each in there.came if each in both]:
                yield here.step


def _orders(trace: Trace, of_classes: bool) -> dict[str, list[Grown]]:
    """Each pool whenever it had grown. `of_classes`: segments for large blocks, then those for small ones, which the
    allocator never mixes."""
    orders: dict[str, list[Grown]] = {}
    live: dict[str, dict[int, tuple[bool, int]]] = {}
    came: dict[int, tuple[int, int]] = {}
    for step, event in trace.steps():
        if isinstance(event, SegmentAllocated):
            addresses = live.setdefault(event.pool, {})
            addresses[event.segment] = of_classes and event.size == SMALL_SEGMENT, event.address
            came[event.segment] = step, sum(each == step for each, _ in came.values())
            by_address = sorted(addresses, key=lambda segment: addresses[segment])
            orders.setdefault(event.pool, []).append(Grown(step, [came[segment] for segment in by_address]))
        elif isinstance(event, SegmentFreed):
            for addresses in live.values():
                addresses.pop(event.segment, None)
    return orders


def _communicators(disparity: Disparity) -> bool:
    """Whether a pool that keeps its index by the communicator's address met a re-created communicator."""
    if disparity.pool != "shared-at-exit" or disparity.fact not in PLACED:
        return False
    steps = disparity.first.scenario.steps
    first = next((index for index, step in enumerate(steps) if isinstance(step, Recreate)), None)
    return first is not None and all(
        each.where.step == ANYWHERE or each.where.step > first for each in disparity.differences
    )


def _segments(disparity: Disparity) -> bool:
    """Whether a pool that never forgets an address got one again on one side and not on the other."""
    if disparity.pool not in BY_SNAPSHOT or disparity.fact not in PLACED:
        return False
    traces = zip(disparity.first.traces, disparity.second.traces, strict=True)
    return any(_used_again(here) != _used_again(there) for here, there in traces)


def _used_again(trace: Trace) -> list[int | None]:
    """For each segment, which earlier one, counted as they came, had the same address."""
    found: list[int | None] = []
    last: dict[int, int] = {}
    for event in trace.events:
        if isinstance(event, SegmentAllocated):
            found.append(last.get(event.address))
            last[event.address] = len(found) - 1
    return found


def _bootstrap(disparity: Disparity) -> bool:
    """Whether ranks that entered different numbers of registrations hang on one side, and on the other NCCL noticed."""
    if disparity.fact != "findings" or {each.where.thing for each in disparity.differences} - {"hang", "rank-crash"}:
        return False
    draws = disparity.first, disparity.second
    crashed = [fate for draw in draws for fate in draw.fates if fate.state == "crashed"]
    is_skewed = all(any(each.rule == "registration-skew" for each in judge(draw)) for draw in draws)
    return is_skewed and bool(crashed) and all(TRUNCATED in fate.how for fate in crashed)


REASONS: tuple[Reason, ...] = (
    Reason(
        "addresses in another order",
        "PyTorch before 2.13 gives out, of free blocks of one size, the one at the lowest address, and NCCL's segments "
        "lie in any order; where ranks differ, `deferred` starts a fresh pool. A snapshot lists segments by address, "
        "and `snapshot-once` and `per-unique-id` register in that order",
        _addresses,
    ),
    Reason(
        "communicator address reused",
        "`shared-at-exit` knows communicators by address; a re-created one has the old address on sim always, on nccl "
        "only if malloc gives it again",
        _communicators,
    ),
    Reason(
        "segment address reused",
        "`snapshot-once` and `per-unique-id` skip an address that they have seen; a new segment has a freed one's "
        "address on sim always, on nccl only if the driver gives it again",
        _segments,
    ),
    Reason(
        "registration met another call",
        "ranks that wait in a registration for one that does not come hang; on nccl that rank may open its connections "
        "meanwhile, and ends with an error where their messages meet",
        _bootstrap,
    ),
)


def explain(disparity: Disparity, reasons: Sequence[Reason] = REASONS) -> list[str]:
    """The names of the reasons that a disparity has; empty if there is none for it."""
    return [reason.name for reason in reasons if reason.holds(disparity)]
