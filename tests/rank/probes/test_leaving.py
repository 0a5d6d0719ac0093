"""What leaving a pool's context costs: how often it is measured, and which figure counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from harness.rank.probes.leaving import SECONDS, median_of_leaving
from harness.world.world import World
from tests.tools.clock import FakeClock


class Contexts:
    """Contexts that take a second to enter, and to leave as long as they are told, the last for all further ones."""

    def __init__(self, *seconds: float) -> None:
        self.time, self.left = FakeClock(), 0
        self._seconds = seconds

    def enter(self) -> AbstractContextManager[None]:
        @contextmanager
        def context() -> Iterator[None]:
            self.time.advance(1)
            yield
            self.time.advance(self._seconds[min(self.left, len(self._seconds) - 1)])
            self.left += 1

        return context()

    def median(self, repeats: int) -> float:
        return median_of_leaving(self.enter, repeats, self.time.clock)


def test_the_median_is_of_leaving_alone() -> None:
    assert Contexts(0.5, 3, 0.25, 7, 2).median(5) == 2


def test_a_context_that_is_slow_to_leave_is_left_five_times() -> None:
    contexts = Contexts(SECONDS)
    contexts.median(300)
    assert contexts.left == 5


def test_fewer_repeats_than_five_are_all_there_are() -> None:
    contexts = Contexts(SECONDS)
    contexts.median(3)
    assert contexts.left == 3


@pytest.mark.parametrize("pool", ["deferred", "snapshot-once"])
def test_a_design_is_measured_at_each_number_of_segments(simulation: World, pool: str) -> None:
    replies = simulation.call("harness.rank.probes.leaving:measure", [pool], [1, 3], 5, False)
    assert [(row["pool"], row["segments"], row["history"]) for row in replies[0]] == [
        (pool, 1, False),
        (pool, 3, False),
    ]
    assert all(row["seconds"] > 0 and row["own"] > 0 for row in replies[0])
