"""`per-unique-id`: each communicator has windows of its own, over memory that the other groups shape."""

from __future__ import annotations

import pytest

from harness.oracle.judge import judge
from harness.scenario.steps import Deny
from harness.scenario.system import System
from harness.strategies.batches import sample
from harness.strategies.flows import Tokens, flows
from harness.trace.events import Deregistered
from harness.world.world import World
from tests.tools.designs import (
    OTHER_GROUPS_OFFSETS,
    OTHER_GROUPS_SEGMENTS,
    RECREATED,
    TRIMMED,
    TWO_GROUPS,
    allocate,
    causes,
    events,
    found,
    registered,
    run,
)
from tests.tools.scenes import rules

POOL = "per-unique-id"


@pytest.mark.parametrize("steps", [TWO_GROUPS, RECREATED], ids=["two groups", "recreated"])
def test_per_unique_id_is_sound_where_sizes_are_equal(ranks: World, steps: tuple[object, ...]) -> None:
    assert found(ranks, POOL, steps) == []  # type: ignore[arg-type]


def test_per_unique_id_registers_again_with_a_new_communicator_in_place_of_an_old_one(ranks: World) -> None:
    draw = run(ranks, *RECREATED, pool=POOL)
    generations = [[trace.comms()[event.comm].generation for event in each] for trace, each in registered(draw)]
    assert generations == [[0, 1]] * 4


def test_per_unique_id_deregisters_nothing_before_the_end(ranks: World) -> None:
    broken = found(ranks, POOL, TRIMMED)
    assert [(each.rule, each.step) for each in broken] == [("freed-while-registered", 3), ("stale-window", 5)]


def test_per_unique_id_leaves_nothing_behind(ranks: World) -> None:
    gone = events(run(ranks, *TWO_GROUPS, pool=POOL), Deregistered)
    assert [len(each) for each in gone] == [2] * 4


def test_per_unique_id_registers_what_other_groups_grew_by(ranks: World) -> None:
    assert rules(found(ranks, POOL, OTHER_GROUPS_SEGMENTS)) == ["registration-skew", "hang"]


def test_per_unique_id_puts_buffers_where_other_groups_left_room(ranks: World) -> None:
    assert causes(found(ranks, POOL, OTHER_GROUPS_OFFSETS)) == ["offset-mismatch"]


def test_a_rank_that_is_refused_memory_leaves_its_peers_in_the_registration(ranks: World) -> None:
    broken = found(ranks, POOL, (Deny(1), allocate("t", "tp")))
    assert rules(broken) == ["registration-skew", "hang"]


def broken_by(ranks: World, sites: str, tokens: Tokens) -> set[str]:
    drawn = flows(4, tokens=tokens, system=System(POOL, sites=sites), via="library")  # type: ignore[arg-type]
    return {each.rule for scenario in sample(drawn, 20, seed=3) for each in judge(ranks.run(scenario))}


def test_flows_of_engines_are_clean_where_batches_are_padded(ranks: World) -> None:
    assert broken_by(ranks, "explicit", "padded") == set()


def test_flows_of_uneven_batches_make_ranks_register_differently(ranks: World) -> None:
    assert "registration-skew" in broken_by(ranks, "explicit", "uneven")


def test_flows_over_implicit_sites_run_on_groups_without_a_window(ranks: World) -> None:
    assert broken_by(ranks, "implicit", "padded") == {"wrong-owner"}
