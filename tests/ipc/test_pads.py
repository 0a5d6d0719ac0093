"""Pads between fences: what is written beside the words is seen once, and signals are not."""

from __future__ import annotations

import numpy as np
import pytest

from harness.ipc.pads import CANARY, FENCE, SIGNALS, fence, overwritten
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import PadOverwritten

GROUP = GroupId((4, 2, 7))
SIZE = len(GROUP.ranks)


def row(room: int = SIZE) -> np.ndarray:  # type: ignore[type-arg]
    """A pad of three words in a row with room for more ranks."""
    made = np.zeros(room + 2 * FENCE, dtype=np.int32)
    fence(made, SIZE)
    return made


@pytest.mark.parametrize("room", [SIZE, SIZE + 5])
def test_a_pad_is_zero_and_all_beside_it_is_fence(room: int) -> None:
    made = row(room)
    assert made[FENCE : FENCE + SIZE].tolist() == [0] * SIZE
    assert (made == CANARY).sum() == room - SIZE + 2 * FENCE


@pytest.mark.parametrize("word", [1, -1, CANARY])
def test_signals_are_no_damage(word: int) -> None:
    made = row()
    made[FENCE : FENCE + SIZE] = word
    assert overwritten(made, GROUP, SIGNALS) is None


@pytest.mark.parametrize("index", [-FENCE, -1, SIZE, SIZE + 4, SIZE + 4 + FENCE])
def test_a_word_beside_the_pad_is_found_once(index: int) -> None:
    made = row(SIZE + 5)
    made[FENCE + 1], made[FENCE + index] = 9, -2
    assert overwritten(made, GROUP, SIGNALS) == PadOverwritten(GROUP, SIGNALS, index, 1, "0xfffffffe")
    assert overwritten(made, GROUP, SIGNALS) is None
    assert made[FENCE + 1] == 9


def test_words_on_both_sides_are_counted() -> None:
    made = row()
    made[[FENCE - 2, FENCE + SIZE, FENCE + SIZE + 1]] = 5
    assert overwritten(made, GROUP, SIGNALS) == PadOverwritten(GROUP, SIGNALS, -2, 3, "0x5")


def test_the_pads_of_all_members_are_fenced_at_once() -> None:
    rows = np.zeros((2, 4, SIZE + 2 * FENCE), dtype=np.int32)
    fence(rows, SIZE)
    assert all(overwritten(each, GROUP, SIGNALS) is None for each in rows.reshape(8, -1))
