"""What `tests.tools.stale_registrations` makes of its rows."""

from __future__ import annotations

import pytest

from tests.tools.stale_registrations import FOUND, ROUNDS, Row, table, verdict


def seen(first: str = "graph", wrong: int = 0, same: int = ROUNDS, before: int = 0) -> list[list[Row]]:
    """One row of each of two ranks, of which the second was right."""
    row = Row("all_reduce", "4", first, "0", "plain", "graph", "ring", str(same), str(wrong), str(before))
    return [[row], [row._replace(wrong="0", wrong_before="0")]]


@pytest.mark.parametrize(
    ("ranks", "status"),
    [(seen(), 0), (seen(wrong=1), 1), (seen(same=0), 2), (seen(before=1), 2), (seen("eager", wrong=1), 2)],
)
def test_a_verdict_needs_an_address_that_came_again_and_right_controls(ranks: list[list[Row]], status: int) -> None:
    text, said = verdict(ranks, is_whole=True)
    assert (said, text == FOUND) == (status, status == 1)


def test_ranks_that_were_stopped_can_show_the_defect_and_not_that_there_is_none() -> None:
    assert [verdict(seen(wrong=wrong), is_whole=False)[1] for wrong in (0, 1)] == [2, 1]


def test_a_line_has_the_rounds_of_every_rank() -> None:
    *_, line = table(seen(wrong=3))
    assert line == "all_reduce | 4 | graph | 0 | plain | graph | ring | 4/4 | 3/0"
