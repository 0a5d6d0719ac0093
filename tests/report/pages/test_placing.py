"""Rows of a grid hold nothing twice at one place, and equal bytes have equal columns on every rank."""

from __future__ import annotations

from itertools import pairwise

import pytest

from harness.report.pages.placing import Item, lanes_view, memory_view
from harness.report.pages.scale import Axis, size_text
from tests.report.pages.conftest import SEEDS, Accounts

every_rule = pytest.mark.parametrize("rule", SEEDS)


def overlaps(items: tuple[Item, ...]) -> list[Item]:
    """Items that begin before the one in front of them in their row ends."""
    rows = sorted(items, key=lambda item: (item.row, item.begin))
    return [after for before, after in pairwise(rows) if before.row == after.row and after.begin < before.end]


@every_rule
def test_nothing_in_a_row_lies_over_another(accounts: Accounts, rule: str) -> None:
    account = accounts[rule]
    assert not overlaps(lanes_view(account).items)
    assert account.memory is not None
    for rank in memory_view(account.memory).ranks:
        assert not any(overlaps(segment.items) for segment in rank.segments)


def test_equal_bytes_stand_in_equal_columns(accounts: Accounts) -> None:
    memory = accounts["offset-mismatch"].memory
    assert memory is not None
    first, second = (rank.segments[0].items for rank in memory_view(memory).ranks)
    operand = next(item for item in first if item.classes == "operand")
    lands = next(item for item in second if item.classes == "reached")
    assert (operand.begin, operand.end) == (lands.begin, lands.end)


def test_more_bytes_are_never_drawn_narrower() -> None:
    widths = Axis([0, 4, 512, 1 << 20, 1 << 30]).widths
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (580, "580 B"), (2 << 20, "2 MiB"), (1049612, "1,049,612 B"), (1 << 30, "1 GiB")]
)
def test_a_size_is_in_the_largest_unit_that_is_whole(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


def test_the_text_of_a_narrow_bar_stands_where_there_is_more_room(accounts: Accounts) -> None:
    memory = accounts["wrong-owner"].memory
    assert memory is not None
    view = memory_view(memory)
    columns = len(view.columns.split())
    for rank in view.ranks:
        labels = [item for segment in rank.segments for item in segment.items if item.classes.startswith("label")]
        assert labels
        assert all(item.end == columns + 1 or item.begin == 1 for item in labels)
