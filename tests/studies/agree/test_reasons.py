"""Differences that are right, each with a cause that shows in the draws; without it they are disagreements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Recreate, Release, Step, Trim
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.studies.agree.comparison import Agreement, Comparison, Worlds
from harness.studies.agree.facts import ANYWHERE, FACTS, Difference, Where
from harness.studies.agree.reasons import REASONS, Disparity, explain
from harness.trace.draw import Draw
from harness.trace.events import Began, Event, Mismatch, Ran, SegmentAllocated
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.elsewhere import Elsewhere, Retelling, verbatim
from tests.tools.scenes import explicit

PAIR = Topology("pair", "sglang", {"tp": 2})
OWN_SEGMENT = (10 << 20) // 4
"""Elements of a buffer that gets a segment of its own."""
TWO_FREE_SEGMENTS: tuple[Step, ...] = (
    *(Allocate("a", "tp", OWN_SEGMENT), Allocate("b", "tp", OWN_SEGMENT), Release("a"), Release("b")),
    *(Allocate("c", "tp", OWN_SEGMENT), AllGather("tp", View("c"), 16)),
)
AGAIN: tuple[Step, ...] = (Allocate("b", "tp", 64), AllGather("tp", View("b"), 16))
RECREATED: tuple[Step, ...] = (Allocate("a", "tp", 64), Release("a"), Recreate("tp"), *AGAIN)
TRIMMED: tuple[Step, ...] = (Allocate("a", "tp", 64), Release("a"), Trim(), *AGAIN)
OF_BOTH_CLASSES: tuple[Step, ...] = (
    *(Allocate("a", "tp", OWN_SEGMENT), Recreate("tp"), Allocate("b", "tp", 64)),
    AllGather("tp", View("b"), 16),
)
"""A segment for large blocks, which the new communicator registers beside one for small blocks."""
ADDRESSES, COMMUNICATORS, SEGMENTS, MESSAGES = (reason.name for reason in REASONS)


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(2, "sim", evidence=("digests",)) as world:
        yield world


@pytest.fixture
def compare(ranks: World, tmp_path: Path) -> Callable[..., Agreement]:
    """Compares one scenario with the same one elsewhere."""

    def run(steps: tuple[Step, ...], pool: str, second: Any, facts: tuple[str, ...] = tuple(FACTS)) -> Agreement:
        return Comparison(Worlds(ranks, second), tmp_path, facts=facts).run([Scenario(PAIR, steps, System(pool))])

    return run


def accounted(agreement: Agreement) -> list[str]:
    return [reason for reason, count in agreement.accounted.items() if count]


def other_path(event: Event) -> list[Event]:
    return [msgspec.structs.replace(event, path="legacy") if isinstance(event, Ran) else event]


def symmetric(event: Event) -> list[Event]:
    return [msgspec.structs.replace(event, path="symmetric") if isinstance(event, Ran) else event]


def moved(retell: Retelling) -> Retelling:
    """Segments but the first of a draw at addresses of their own, and the rest as `retell` has it."""
    seen: list[int] = []

    def told(event: Event) -> Iterator[Event]:
        if event == Began(0):
            seen.clear()
        if isinstance(event, SegmentAllocated):
            seen.append(event.address)
            event = msgspec.structs.replace(event, address=event.address + (1 << 40) * (len(seen) > 1))
        yield from retell(event)

    return told


# addresses in another order


@pytest.mark.parametrize(("pool", "elsewhere"), [("per-group", "PerGroup"), ("deferred", "Deferred")])
def test_buffers_elsewhere_are_accounted_for_where_addresses_lie_in_another_order(
    compare: Callable[..., Agreement], ranks: World, pool: str, elsewhere: str
) -> None:
    second = Elsewhere(ranks, pool=f"tests.tools.scattered:{elsewhere}")
    agreement = compare(TWO_FREE_SEGMENTS, pool, second)
    assert (accounted(agreement), agreement.found) == ([ADDRESSES], {})


def test_the_order_of_large_and_small_segments_counts_where_a_snapshot_is_registered(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    second = Elsewhere(ranks, pool="tests.tools.scattered:PerUniqueId")
    facts = ("registrations", "place", "findings")
    agreement = compare(OF_BOTH_CLASSES, "per-unique-id", second, facts)
    assert (accounted(agreement), agreement.found) == ([ADDRESSES], {})


def test_their_order_explains_nothing_elsewhere(compare: Callable[..., Agreement], ranks: World) -> None:
    second = Elsewhere(ranks, other_path, pool="tests.tools.scattered:PerGroup")
    agreement = compare(OF_BOTH_CLASSES, "per-group", second, ("path",))
    assert (accounted(agreement), agreement.found.keys()) == ([], {"path"})


def test_the_order_of_addresses_does_not_explain_a_path_that_deferred_takes(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    second = Elsewhere(ranks, other_path, pool="tests.tools.scattered:Deferred")
    assert "path" in compare(TWO_FREE_SEGMENTS, "deferred", second).found


def test_equal_orders_of_addresses_explain_nothing(compare: Callable[..., Agreement], ranks: World) -> None:
    agreement = compare(TWO_FREE_SEGMENTS, "per-group", Elsewhere(ranks, other_path))
    assert (accounted(agreement), agreement.found.keys() >= {"path"}) == ([], True)


def test_an_order_is_that_of_segments_which_live_together(compare: Callable[..., Agreement], ranks: World) -> None:
    """The second segment of `TRIMMED` has another address elsewhere; the first one is gone by then."""
    agreement = compare(TRIMMED, "per-group", Elsewhere(ranks, moved(other_path)))
    assert (accounted(agreement), "path" in agreement.found) == ([], True)


def test_an_order_that_came_later_explains_nothing(compare: Callable[..., Agreement], ranks: World) -> None:
    """The path differs at step 1; another segment comes, elsewhere, at step 2."""
    steps = (*AGAIN, Allocate("c", "tp", OWN_SEGMENT))
    agreement = compare(steps, "per-group", Elsewhere(ranks, moved(other_path)), ("path",))
    assert (accounted(agreement), agreement.found.keys()) == ([], {"path"})


def test_an_order_explains_no_wrong_data_of_an_operand_in_place(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    def spoilt(event: Event) -> list[Event]:
        wrong = Mismatch("d", 1, 32, 0, 0, "1", "2")
        return [event, wrong] if isinstance(event, Ran) else [event]

    steps = (*TWO_FREE_SEGMENTS[:4], Allocate("d", "tp", 64), AllGather("tp", View("d"), 16))
    second = Elsewhere(ranks, spoilt, pool="tests.tools.scattered:PerGroup")
    agreement = compare(steps, "per-group", second, ("data",))
    assert (accounted(agreement), agreement.found.keys()) == ([], {"data"})


def test_the_order_counts_where_one_rank_has_a_segment_more() -> None:
    """A new communicator registers another rank's windows beside it: the last segment of one rank alone lies lower."""
    groups = explicit(pair=((0, 1),), all=((0, 1, 2),), ends=((0, 2),))
    steps = (
        *(Allocate(name, family, OWN_SEGMENT) for name, family in (("z", "all"), ("a", "pair"), ("b", "ends"))),
        AllGather("ends", View("b"), 16),
    )
    with World(3, "sim", deadline=5) as three:
        first = three.run(Scenario(groups, steps, System("per-unique-id")))

    def low(trace: Trace) -> Trace:
        last = [event for event in trace.events if isinstance(event, SegmentAllocated)][-1]
        moved = msgspec.structs.replace(last, address=4096)
        return msgspec.structs.replace(trace, events=tuple(moved if each is last else each for each in trace.events))

    def reasons(second: Draw) -> list[str]:
        rule = Difference(Where(ANYWHERE, ANYWHERE, "segment-mismatch"), "nothing", "ranks 0, 2")
        return explain(Disparity("findings", [rule], first, second))

    assert reasons(first) == []
    assert reasons(msgspec.structs.replace(first, traces=(low(first.traces[0]), *first.traces[1:]))) == [ADDRESSES]


# communicator address reused


def test_a_recreated_communicator_is_accounted_for_with_an_index_by_address(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    agreement = compare(RECREATED, "shared-at-exit", Elsewhere(ranks, pool="per-group"))
    assert (accounted(agreement), agreement.found) == ([COMMUNICATORS], {})


def test_a_recreated_communicator_is_no_reason_for_another_design(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    agreement = compare(RECREATED, "per-group", Elsewhere(ranks, pool="shared-at-exit"))
    assert (accounted(agreement), "place" in agreement.found) == ([], True)


def test_a_difference_before_the_communicator_was_recreated_needs_another_reason(
    compare: Callable[..., Agreement], ranks: World
) -> None:
    steps = (*AGAIN, Recreate("tp"))
    agreement = compare(steps, "shared-at-exit", Elsewhere(ranks, other_path), ("path",))
    assert (accounted(agreement), agreement.found.keys()) == ([], {"path"})


# segment address reused


@pytest.mark.parametrize(("pool", "told"), [("snapshot-once", symmetric), ("per-unique-id", other_path)])
def test_an_address_used_again_on_one_side_is_accounted_for_with_a_pool_that_forgets_none(
    compare: Callable[..., Agreement], ranks: World, pool: str, told: Retelling
) -> None:
    agreement = compare(TRIMMED, pool, Elsewhere(ranks, moved(told)), ("path",))
    assert (accounted(agreement), agreement.found) == ([SEGMENTS], {})


def test_an_address_used_again_on_both_sides_explains_nothing(compare: Callable[..., Agreement], ranks: World) -> None:
    agreement = compare(TRIMMED, "snapshot-once", Elsewhere(ranks, symmetric), ("path",))
    assert (accounted(agreement), agreement.found.keys()) == ([], {"path"})


# registration met another call


SKEWED = System("harness.system.planted.pools:RegistersAlone")
MET = "ncclInternalError (Message truncated : received 40,40 bytes instead of 2,2)"
CRASH = Difference(Where(ANYWHERE, ANYWHERE, "rank-crash"), "nothing", "rank 1")


@pytest.mark.parametrize(
    ("pool", "how", "named"),
    [
        (
            SKEWED,
            "ncclInternalError (Message truncated : received 40,40 bytes instead of 2,2)",
            ["registration met another call"],
        ),
        (SKEWED, "ncclInternalError (Socket closed)", []),
        (System(), "ncclInternalError (Message truncated : received 40,40 bytes instead of 2,2)", []),
    ],
)
def test_a_crash_for_a_hang_needs_a_skew_and_messages_that_met(
    ranks: World, pool: System, how: str, named: list[str]
) -> None:
    first = ranks.run(Scenario(PAIR, (Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)), pool))
    crashed = msgspec.structs.replace(first.fates[1], state="crashed", how=how)
    second = msgspec.structs.replace(first, fates=(first.fates[0], crashed))
    assert explain(Disparity("findings", [CRASH], first, second)) == named


def test_a_reason_that_did_not_show_is_counted_as_none(compare: Callable[..., Agreement], ranks: World) -> None:
    assert compare(TRIMMED, "snapshot-once", Elsewhere(ranks, verbatim)).accounted == {
        reason.name: 0 for reason in REASONS
    }
