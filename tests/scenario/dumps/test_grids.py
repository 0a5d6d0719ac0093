"""Families as axes of a grid, and the blocks that they span."""

from __future__ import annotations

from harness.scenario.dumps.grids import Grid

TP = ((0, 1), (2, 3), (4, 5), (6, 7))
CP = ((0, 2), (1, 3), (4, 6), (5, 7))


def test_a_block_is_what_the_groups_reach() -> None:
    grid = Grid({"tp": TP, "cp": CP}, ("tp", "cp", "dp"))
    assert grid.blocks == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert (grid.product(5), grid.sizes(5), grid.groups_of(5)) == (4, "tp 2 · cp 2 = 4", ((4, 5), (5, 7)))


def test_a_block_of_which_a_part_is_not_shown_is_none() -> None:
    assert Grid({"tp": TP, "cp": CP[:3]}, ("tp", "cp")).blocks == [(0, 1, 2, 3)]


def test_groups_that_are_linked_late_are_one_block() -> None:
    assert Grid({"next": ((0, 1), (2, 3), (4, 5), (1, 2), (3, 4))}, ("next",)).blocks == [(0, 1, 2, 3, 4, 5)]


def test_families_that_are_not_shown_are_no_axes() -> None:
    assert Grid({"tp": TP}, ("cp", "dp")).blocks == []
