"""`per-group`: sound where the ranks of a group ask for equal sizes, and broken by a rank that fails alone."""

from __future__ import annotations

import pytest

from harness.scenario.steps import Deny
from harness.world.world import World
from tests.tools.designs import (
    PROGRAMS,
    TWO_FREE_SEGMENTS,
    allocate,
    causes,
    found,
    gather,
)
from tests.tools.scenes import rules


@pytest.mark.parametrize(
    "name", ["two groups", "recreated", "trimmed", "segments of another group", "offsets of another group"]
)
def test_per_group_is_sound_where_the_ranks_of_a_group_ask_for_equal_sizes(ranks: World, name: str) -> None:
    assert found(ranks, "per-group", PROGRAMS[name]) == []


def test_per_group_hangs_where_one_rank_is_refused_memory(ranks: World) -> None:
    broken = found(ranks, "per-group", (Deny(1), allocate("a", "tp"), gather("a", "tp")))
    assert rules(broken) == ["registration-skew", "hang"]


def test_per_group_puts_a_buffer_in_different_windows_where_addresses_lie_in_different_orders(ranks: World) -> None:
    broken = found(ranks, "tests.tools.scattered:PerGroup", TWO_FREE_SEGMENTS)
    assert causes(broken) == ["segment-mismatch"]
    assert "rank 0 in window 0, rank 1 in window 1" in str(broken[0])
