"""Families that no convention makes: ranks left out, groups that overlap or differ in size, equal groups apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from harness.scenario.layouts.groups import Groups, rank_in_two
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.families import explicit
from harness.strategies.topologies import topologies
from tests.tools.drawn import WORLD


@pytest.mark.parametrize("world", range(1, 10))
def test_any_picks_are_a_layout_of_no_more_ranks(world: int) -> None:
    for picks in product((0, 1, 2, 7, 38), repeat=6):
        assert explicit(world, picks).world <= world


def test_picks_of_nothing_are_one_group_of_all_ranks() -> None:
    assert explicit(4, [0] * 6).families == {"tp": ((0, 1, 2, 3),)}


def drawn() -> list[Topology]:
    return sample(topologies(WORLD, conventions=("explicit",)), 300)


def _leaves_out(groups: Groups, world: int) -> bool:
    return len({rank for group in groups for rank in group}) < world


@pytest.mark.parametrize(
    "is_so",
    [
        _leaves_out,
        lambda groups, world: rank_in_two(groups) is not None,
        lambda groups, world: len({*map(len, groups)}) > 1,
        lambda groups, world: any(list(group) != sorted(group) for group in groups),
        lambda groups, world: len(groups[0]) == 1 < max(map(len, groups)),
    ],
    ids=["left out", "overlapping", "of unequal size", "in another order", "first one alone"],
)
def test_every_kind_of_family_is_drawn(is_so: Callable[[Groups, int], bool]) -> None:
    found = [t for t in drawn() if any(is_so(groups, t.world) for groups in t.families.values())]
    assert len(found) >= 10


def test_equal_groups_are_drawn_with_one_communicator_and_with_two() -> None:
    twins = [t for t in drawn() if t.families.get("twin") == t.families["tp"]]
    shared = [t.ids["twin"] == t.ids["tp"] for t in twins]
    assert min(shared.count(True), shared.count(False)) >= 5


@pytest.mark.parametrize("width", [3, 5, 6, 7])
def test_odd_widths_are_drawn(width: int) -> None:
    everything = sample(topologies(WORLD), 300)
    with_it = [t for t in everything if any(len(group) == width for each in t.families.values() for group in each)]
    assert len(with_it) >= 10


def test_six_ranks_of_tp_and_three_of_cp_are_drawn() -> None:
    everything = sample(topologies(WORLD), 600)
    tp = [t for t in everything if any(len(group) == 6 for group in t.families.get("tp", ()))]
    cp = [t for t in everything if 3 in (t.degrees.get("attn_cp"), t.degrees.get("cp"), t.degrees.get("pcp"))]
    assert min(len(tp), len(cp)) >= 5
