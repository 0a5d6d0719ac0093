"""Turns: one rank runs at a time, by priority, and ranks that all wait are found."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest

from harness.ipc import turns
from harness.ipc.turns import Turns

Body = Callable[[Turns, Callable[[str], None], "Ground"], None]
PLACE = 8


class Ground:
    """The shared words of two ranks."""

    def __init__(self) -> None:
        self.words = np.zeros((turns.rows(2), turns.WIDTH), dtype=np.int64)
        self.counters = np.zeros((1, 2, 1), dtype=np.int64)
        self.memory = np.zeros(64, dtype=np.uint8)


def run(bodies: tuple[Body, Body], order: tuple[int, ...] = (0, 1), changes: tuple[int, ...] = ()) -> list[str]:
    """What two ranks did, in order; `stuck` at the end if neither could go on."""
    ground, done = Ground(), []
    turns.prepare(ground.words, order)

    def play(rank: int) -> None:
        mine = Turns(ground.words, ground.counters, ground.memory, rank, 2, changes)
        mine.begin()
        bodies[rank](mine, lambda what: done.append(f"{rank}{what}"), ground)
        mine.end()

    threads = [Thread(target=play, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not turns.is_stuck(ground.words):
            thread.join(0.01)
    return done + ["stuck"] * turns.is_stuck(ground.words)


def steps(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    for name in "abc":
        mine.point()
        note(name)


def test_the_rank_of_the_highest_priority_runs_to_its_end() -> None:
    assert run((steps, steps), (1, 0)) == ["1a", "1b", "1c", "0a", "0b", "0c"]


def test_a_rank_goes_behind_the_others_at_a_change() -> None:
    assert run((steps, steps), (0, 1), (2,)) == ["0a", "1a", "1b", "1c", "0b", "0c"]


def test_a_rank_that_goes_behind_twice_lets_the_other_run_in_between() -> None:
    assert run((steps, steps), (0, 1), (2, 4)) == ["0a", "1a", "0b", "0c", "1b", "1c"]


def waits(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    note("waits")
    mine.meet(0, 0, 1, 2)
    note("goes on")


def comes(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    mine.point()
    ground.counters[0, :, 0] = 1
    note("comes")


def test_a_rank_that_meets_others_goes_on_once_they_have_come() -> None:
    assert run((waits, comes)) == ["0waits", "1comes", "0goes on"]


def test_ranks_that_all_wait_are_stuck() -> None:
    assert run((waits, waits)) == ["0waits", "1waits", "stuck"]


def test_a_rank_that_waits_for_one_that_has_ended_is_stuck() -> None:
    assert run((waits, steps)) == ["0waits", "1a", "1b", "1c", "stuck"]


def polls(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    while not ground.memory[PLACE]:
        note("polls")
        mine.poll([PLACE], 4, [0])
    note("sees it")


def signals(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    mine.point()
    ground.memory[PLACE] = 1
    note("signals")
    mine.point()
    note("goes on")


def test_a_rank_that_polls_runs_again_as_soon_as_the_word_changes() -> None:
    assert run((polls, signals)) == ["0polls", "1signals", "0sees it", "1goes on"]


def test_ranks_that_poll_for_ever_are_stuck() -> None:
    done = run((polls, polls))
    assert done[-1] == "stuck"
    assert len(done) <= 2 * (turns.PATIENCE + 1) + 1


def again(mine: Turns, note: Callable[[str], None], ground: Ground) -> None:
    for _ in range(turns.PATIENCE // 2):
        mine.poll([PLACE], 4, [0])
    note("is through")


def test_a_rank_that_only_reads_a_word_again_is_not_stuck() -> None:
    assert run((again, again)) == ["0is through", "1is through"] or run((again, again)) == [
        "1is through",
        "0is through",
    ]


@pytest.mark.parametrize("value", [0, 1, 255, (1 << 63) - 1, -1])
def test_a_word_of_eight_bytes_is_a_number_that_fits(value: int) -> None:
    assert turns.word_of(np.frombuffer(value.to_bytes(8, "little", signed=True), dtype=np.uint8)) == value
