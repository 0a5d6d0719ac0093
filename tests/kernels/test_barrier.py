"""The barrier: no rank leaves an epoch before the last has entered it, and none is locked out."""

from __future__ import annotations

import pytest

from tests.tools.interpreter import Interpreter


@pytest.mark.parametrize("size", [2, 3, 4])
def test_no_rank_leaves_an_epoch_before_the_last_has_entered_it(size: int, interpreter: Interpreter) -> None:
    assert interpreter("meet", size, 6 * size, True) == 0


def test_rank_that_leaves_early_would_be_noticed(interpreter: Interpreter) -> None:
    assert interpreter("meet", 2, 12, False) > 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_rank_signals_every_rank_in_its_own_word_alone(size: int, interpreter: Interpreter) -> None:
    rank, epoch = size - 1, 7
    pads = interpreter("signals", rank, size, epoch, [epoch] * size)
    others = [[0] * rank + [epoch, -1]] * (size - 1)
    assert pads == [*others, [epoch] * size + [-1]]


def test_peers_that_are_an_epoch_ahead_do_not_lock_a_rank_out(interpreter: Interpreter) -> None:
    assert interpreter("signals", 0, 3, 7, [0, 8, 8])[0] == [7, 8, 8, -1]
