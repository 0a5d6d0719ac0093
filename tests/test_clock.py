"""Clocks: the machine's own, and the one of tests."""

from __future__ import annotations

import time

from harness.clock import CLOCK
from tests.tools.clock import FakeClock


def test_the_clock_of_the_machine_is_the_monotonic_one() -> None:
    before = time.monotonic()
    assert before <= CLOCK.now() <= time.monotonic()


def test_a_fake_clock_moves_by_what_is_slept_and_no_more() -> None:
    fake = FakeClock(5.0)
    fake.clock.sleep(2.5)
    assert (fake.clock.now(), fake.clock.now(), fake.slept) == (7.5, 7.5, [2.5])
