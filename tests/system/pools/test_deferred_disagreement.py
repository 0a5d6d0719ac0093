"""`deferred` where ranks disagree: one is refused memory, they grow differently, or their addresses do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.oracle.judge import judge
from harness.scenario.layouts.groups import Group, GroupId
from harness.scenario.steps import Deny, Recreate, Refuse, Release, Step
from harness.system.context import ProcessGroup
from harness.system.pools.deferred import BITS, REFUSED, UNREGISTRABLE, _digest, _disagreement
from harness.trace.events import (
    Exhausted,
    Ran,
    Registered,
    RegistrationFailed,
    SegmentAllocated,
    Skipped,
    Unregistrable,
)
from harness.world.world import World
from tests.tools.deferred_on_ranks import BLOCK
from tests.tools.designs import (
    APART,
    LARGE,
    OWN_SEGMENT,
    TWO_FREE_SEGMENTS,
    allocate,
    events,
    gather,
    run,
)

# deferred: one rank is refused memory

REFUSAL = (
    allocate("kept", "tp"),
    Deny(1),
    allocate("lost", "tp", LARGE),
    gather("lost", "tp"),
    allocate("next", "tp", LARGE),
    gather("next", "tp"),
    gather("kept", "tp"),
)


def test_deferred_breaks_no_rule_where_one_rank_is_refused_memory(ranks: World) -> None:
    assert judge(run(ranks, *REFUSAL)) == []


def test_deferred_tells_every_rank_of_the_group_that_one_was_refused_memory(ranks: World) -> None:
    assert events(run(ranks, *REFUSAL), Exhausted) == [[Exhausted("lost", LARGE)]] * 4


def test_deferred_lets_every_rank_skip_the_collective_of_a_buffer_that_one_has_not(ranks: World) -> None:
    draw = run(ranks, *REFUSAL)
    skipped = [[step for step, event in trace.steps() if isinstance(event, Skipped)] for trace in draw.traces]
    ran = [[step for step, event in trace.steps() if isinstance(event, Ran)] for trace in draw.traces]
    assert (skipped, ran) == ([[3]] * 4, [[5, 6]] * 4)


def test_deferred_owns_what_comes_after_a_refusal_and_what_came_before(ranks: World) -> None:
    paths = events(run(ranks, *REFUSAL), Ran)
    assert [[event.path for event in each] for each in paths] == [["symmetric"] * 2] * 4


def test_deferred_goes_on_with_a_fresh_pool_after_a_refusal(ranks: World) -> None:
    draw = run(ranks, *REFUSAL)
    names = [[event.pool for event in each] for each in events(draw, SegmentAllocated)]
    old, new = "0-1-2-3#0", "0-1-2-3#1"
    assert names == [[old, new] if rank == 1 else [old, old, new] for rank in range(4)]


def test_deferred_goes_on_after_the_first_allocation_of_all_was_refused(ranks: World) -> None:
    steps = Deny(1), allocate("lost", "tp"), gather("lost", "tp"), allocate("next", "tp"), gather("next", "tp")
    draw = run(ranks, *steps)
    assert (judge(draw), [len(each) for each in events(draw, Ran)]) == ([], [1] * 4)


def test_deferred_goes_on_after_two_refusals(ranks: World) -> None:
    lost = Deny(1), allocate("lost", "tp"), Deny(3), allocate("lost too", "tp")
    draw = run(ranks, *lost, allocate("next", "tp"), gather("next", "tp"))
    exhausted = [[event.buffer for event in each] for each in events(draw, Exhausted)]
    assert (judge(draw), exhausted) == ([], [["lost", "lost too"]] * 4)


def test_deferred_leaves_a_group_alone_that_has_not_the_refused_rank(ranks: World) -> None:
    draw = run(ranks, Deny(1), allocate("c", "cp"), gather("c", "cp"))
    lost, ran = [len(each) for each in events(draw, Exhausted)], [len(each) for each in events(draw, Ran)]
    assert (judge(draw), lost, ran) == ([], [0, 1, 0, 1], [1, 0, 1, 0])


def test_deferred_tells_a_group_without_windows_that_one_rank_was_refused_memory(ranks: World) -> None:
    draw = run(ranks, Deny(1), allocate("lost", "tp"), gather("lost", "tp"), topology=APART)
    assert judge(draw) == []


# deferred: one rank cannot register


UNREGISTRABLE_ON_ONE = (REFUSAL[0], Refuse(1), *REFUSAL[2:])


def test_deferred_breaks_no_rule_where_one_rank_cannot_register(ranks: World) -> None:
    draw = run(ranks, *UNREGISTRABLE_ON_ONE)
    assert judge(draw) == []
    assert events(draw, Exhausted) == [[Exhausted("lost", LARGE)]] * 4


def test_deferred_enters_no_registration_that_would_fail_on_one_rank(ranks: World) -> None:
    draw = run(ranks, *UNREGISTRABLE_ON_ONE)
    assert [len(each) for each in events(draw, Unregistrable)] == [0, 1, 0, 0]
    assert events(draw, RegistrationFailed) == [[]] * 4
    assert [len(each) for each in events(draw, Registered)] == [2] * 4


def test_deferred_goes_on_in_a_fresh_pool_where_one_rank_could_not_register(ranks: World) -> None:
    draw = run(ranks, *UNREGISTRABLE_ON_ONE)
    names = [[event.pool for event in each] for each in events(draw, SegmentAllocated)]
    assert names == [["0-1-2-3#0", "0-1-2-3#0", "0-1-2-3#1"]] * 4
    assert [[event.path for event in each] for each in events(draw, Ran)] == [["symmetric"] * 2] * 4


def test_deferred_goes_on_where_two_ranks_could_not_register(ranks: World) -> None:
    lost = Refuse(1), Deny(3), allocate("lost", "tp"), Refuse(0), allocate("lost too", "tp")
    draw = run(ranks, *lost, allocate("next", "tp"), gather("next", "tp"))
    exhausted = [[event.buffer for event in each] for each in events(draw, Exhausted)]
    assert (judge(draw), exhausted) == ([], [["lost", "lost too"]] * 4)


def test_deferred_survives_a_refusal_when_it_registers_with_a_new_communicator(ranks: World) -> None:
    steps = allocate("a", "tp"), Recreate("tp"), Refuse(2), allocate("lost", "tp"), allocate("b", "tp")
    draw = run(ranks, *steps, gather("b", "tp"))
    exhausted = [[event.buffer for event in each] for each in events(draw, Exhausted)]
    assert (judge(draw), exhausted) == ([], [["lost"]] * 4)


# deferred: ranks grow by different segments

DIFFERENT = {
    "sizes": [[BLOCK], [BLOCK], [BLOCK], [4 << 20]],
    "numbers": [[BLOCK], [BLOCK, 4 << 20], [BLOCK], [BLOCK]],
    "orders": [[BLOCK, 4 << 20], [BLOCK, 4 << 20], [4 << 20, BLOCK], [BLOCK, 4 << 20]],
}


@pytest.fixture(scope="module")
def grown(ranks: World) -> dict[str, list[dict[str, Any]]]:
    """What each rank saw where ranks grew by different segments, and where they grew by the same."""
    sizes = {**DIFFERENT, "nothing": [[BLOCK, 4 << 20]] * 4}
    return {name: ranks.call("tests.tools.deferred_on_ranks:grow", each) for name, each in sizes.items()}


def of(grown: dict[str, list[dict[str, Any]]], name: str, fact: str) -> list[Any]:
    return [rank[fact] for rank in grown[name]]


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_is_out_of_memory_on_every_rank_where_segments_differ(grown: Any, name: str) -> None:
    assert of(grown, name, "error") == ["the pool of tp[0,1,2,3] is given up: its ranks grew by different segments"] * 4


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_registers_none_of_the_segments_that_differ(grown: Any, name: str) -> None:
    assert of(grown, name, "first") == [["exchange"]] * 4
    assert [any(owned) for owned in of(grown, name, "owned first")] == [False] * 4


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_goes_on_with_a_fresh_pool_where_segments_differed(grown: Any, name: str) -> None:
    assert of(grown, name, "place") == [("0-1-2-3#1", 0)] * 4
    assert (of(grown, name, "then"), of(grown, name, "owned then")) == ([["exchange", "register"]] * 4, [True] * 4)


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_closes_the_pool_that_was_given_up(grown: Any, name: str) -> None:
    assert of(grown, name, "left") == [0] * 4


def test_deferred_registers_segments_that_every_rank_grew_by_at_once(grown: Any) -> None:
    assert of(grown, "nothing", "error") == [""] * 4
    assert of(grown, "nothing", "first") == [["exchange", "register", "register"]] * 4
    assert of(grown, "nothing", "owned first") == [[True, True]] * 4


def test_deferred_keeps_the_pool_that_every_rank_grew_alike(grown: Any) -> None:
    assert (of(grown, "nothing", "place"), of(grown, "nothing", "then")) == ([("0-1-2-3#0", BLOCK)] * 4, [[]] * 4)


@pytest.mark.parametrize("other", [(), (2,), (2, 20, 2), (20, 2), (2, 21), (220,)])
def test_a_digest_tells_lists_apart(other: tuple[int, ...]) -> None:
    assert _digest([2, 20]) != _digest(other)


def test_two_digests_are_a_word_that_ranks_can_exchange_and_never_a_refusal() -> None:
    digests = [_digest(range(count)) for count in range(100)]
    assert all(0 <= digest < 1 << BITS for digest in digests)
    assert all(0 <= digest << BITS | digest < 1 << 63 for digest in digests)


# ranks whose addresses lie in different orders


def test_deferred_takes_a_fresh_pool_where_addresses_lie_in_different_orders(ranks: World) -> None:
    draw = run(ranks, *TWO_FREE_SEGMENTS, pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert [[segment.pool for segment in each] for each in events(draw, SegmentAllocated)] == [
        ["0-1-2-3#0", "0-1-2-3#0", "0-1-2-3#1"]
    ] * 4


def test_deferred_keeps_its_pool_where_segments_of_another_kind_lie_in_different_orders(ranks: World) -> None:
    """No block of the one can be taken for a block of the other."""
    steps = allocate("a", "tp", OWN_SEGMENT), allocate("b", "tp", 256), allocate("c", "tp", OWN_SEGMENT)
    draw = run(ranks, *steps[:2], Release("a"), steps[2], gather("c", "tp"), pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert [{segment.pool for segment in each} for each in events(draw, SegmentAllocated)] == [{"0-1-2-3#0"}] * 4


def test_deferred_gives_former_pools_back_when_nothing_in_them_is_in_use(ranks: World) -> None:
    steps = [step for index in range(8) for step in again(index)]
    draw = run(ranks, *steps, pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert max(trace.most_held for trace in draw.traces) <= 4 * (14 << 20)


def again(index: int) -> tuple[Step, ...]:
    """Two buffers that take a segment each, come and go."""
    names = f"a{index}", f"b{index}"
    return (*(allocate(name, "tp", OWN_SEGMENT) for name in names), *(Release(name) for name in names))


def test_deferred_enters_no_agreement_where_memory_is_wanting_elsewhere(ranks: World) -> None:
    assert ranks.call("tests.tools.deferred_on_ranks:run_out_elsewhere") == [[]] * 4


def group(rank: int = 0, ranks: Group = (0, 4, 2)) -> ProcessGroup:
    substrate: Any = SimpleNamespace(rank=rank)
    return ProcessGroup(substrate, "tp", GroupId(ranks))


def test_a_disagreement_names_the_ranks_that_were_refused_memory() -> None:
    text = _disagreement(group(), [7, REFUSED, REFUSED])
    assert text == "the pool of tp[0,4,2] is given up: memory was refused to rank 4 and rank 2"


def test_a_disagreement_names_the_ranks_that_cannot_register() -> None:
    text = _disagreement(group(), [UNREGISTRABLE, REFUSED, 7])
    why = "memory was refused to rank 4, and registering is refused to rank 0"
    assert text == f"the pool of tp[0,4,2] is given up: {why}"


def test_a_disagreement_without_a_refusal_is_one_on_segments() -> None:
    text = _disagreement(group(), [7, 7, 8])
    assert text == "the pool of tp[0,4,2] is given up: its ranks grew by different segments"
