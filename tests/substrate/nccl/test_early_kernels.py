"""What `tests.tools.early_kernels` makes of its rows."""

from __future__ import annotations

import pytest

from tests.tools.early_kernels import CHUNKS, FOUND, MODES, SETTINGS, tried, verdict


def seen(**wrong: int) -> list[list[list[list[str]]]]:
    """What two ranks saw with each setting. `wrong`: rounds, by case."""
    rows = [
        [mode, case, kind, str(chunk), "a kernel", str(wrong.get(case, 0)), "0"]
        for mode in MODES
        for case, kind in tried(mode)
        for chunk in CHUNKS
    ]
    return [[[["version"], *rows] for _ in range(2)] for _ in SETTINGS]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [({"witness": 20}, 0), ({"witness": 20, "feeds": 1}, 1), ({"witness": 20, "poisons": 1}, 1), ({}, 2)],
)
def test_right_calls_say_nothing_without_a_kernel_that_started_early(wrong: dict[str, int], status: int) -> None:
    text, said = verdict(seen(**wrong), 2)
    assert (said, text == FOUND) == (status, status == 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_witness_in_one_mode_is_none_of_the_other(mode: str) -> None:
    answers = seen(witness=20)
    for lines in answers[1]:
        for row in lines[1:]:
            row[5] = "0" if row[0] == mode else row[5]
    assert verdict(answers, 2)[1] == 2


def test_ranks_that_were_stopped_can_show_the_defect_and_not_that_there_is_none() -> None:
    for wrong, status in ({"witness": 20}, 2), ({"feeds": 20}, 1):
        answers = seen(**wrong)
        answers[0][1].pop()
        assert verdict(answers, 2)[1] == status
    assert verdict([ranks[:1] for ranks in seen(witness=20)], 2)[1] == 2
