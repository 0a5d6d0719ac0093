"""Silence: how long no rank has written anything, and how much of it is ordinary."""

from __future__ import annotations

import pytest

from harness.ipc.journal import Journal
from harness.trace.events import Began, CommCreated
from harness.world.silence import LOOK, REMEMBERED, TIMES_THE_LONGEST, Patience, Silence
from tests.tools.clock import FakeClock

STEP = LOOK / 4


@pytest.fixture
def fake() -> FakeClock:
    return FakeClock()


def begun() -> Journal:
    journal = Journal(memoryview(bytearray(4096)))
    journal.append(Began(0))
    return journal


def pause(silence: Silence, fake: FakeClock, looks: int = 4) -> float:
    """Look at it a few times; the silence after that."""
    for _ in range(looks):
        fake.advance(STEP)
        silence.look()
    return silence.look()


def test_silence_lasts_from_the_last_event_of_any_journal(fake: FakeClock) -> None:
    journals = [begun(), begun()]
    silence = Silence(journals, fake.clock)
    silence.look()
    assert pause(silence, fake) == pytest.approx(4 * STEP)
    journals[1].append(Began(1))
    assert silence.look() == 0


def test_what_comes_before_every_rank_has_begun_is_no_silence(fake: FakeClock) -> None:
    journals = [begun(), Journal(memoryview(bytearray(4096)))]
    silence = Silence(journals, fake.clock)
    assert (pause(silence, fake), silence.longest) == (0, 0)
    journals[1].append(CommCreated(0, (0, 1), 0, True))
    assert (pause(silence, fake), silence.longest) == (0, 0)
    journals[1].append(Began(0))
    silence.look()
    assert pause(silence, fake) > 0


def test_stillness_counts_before_every_rank_has_begun_too(fake: FakeClock) -> None:
    journals = [begun(), Journal(memoryview(bytearray(4096)))]
    silence = Silence(journals, fake.clock)
    silence.look()
    pause(silence, fake)
    assert silence.stillness == pytest.approx(4 * STEP)
    journals[1].append(Began(0))
    silence.look()
    assert silence.stillness == 0


def test_the_longest_silence_is_remembered_when_it_is_broken(fake: FakeClock) -> None:
    journal = begun()
    silence = Silence([journal], fake.clock)
    silence.look()
    longest = pause(silence, fake)
    journal.append(Began(1))
    silence.look()
    assert silence.longest == longest > 0


def test_a_pause_between_two_looks_counts_for_one_look(fake: FakeClock) -> None:
    silence = Silence([begun()], fake.clock)
    silence.look()
    silence.look()
    fake.advance(100)
    assert silence.look() == LOOK


def test_patience_is_at_least_the_least() -> None:
    patience = Patience()
    patience.learn(0.01)
    assert patience.seconds(1.0) == 1.0


def test_patience_is_ten_times_the_longest_silence() -> None:
    patience = Patience()
    for silence in (0.2, 0.7, 0.1):
        patience.learn(silence)
    assert patience.seconds(1.0) == TIMES_THE_LONGEST * 0.7


def test_one_long_silence_is_forgotten_after_a_hundred_draws() -> None:
    patience = Patience()
    patience.learn(60)
    for _ in range(REMEMBERED - 1):
        patience.learn(0)
    before = patience.seconds(1)
    patience.learn(0)
    assert (before, patience.seconds(1)) == (600, 1)


def test_a_rank_that_beats_is_at_work_and_not_silent(fake: FakeClock) -> None:
    journals = [begun(), begun()]
    silence = Silence(journals, fake.clock)
    silence.look()
    assert pause(silence, fake) > 0
    journals[1].beat()
    assert (silence.look(), silence.stillness) == (0, 0)
    assert pause(silence, fake) == pytest.approx(4 * STEP)
