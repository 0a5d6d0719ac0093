"""The latency of a collective: between windows, on every rank, and by the clock that it is handed."""

from __future__ import annotations

import pytest

from harness.rank.probes import latency
from harness.world.world import World
from tests.tools.clock import FakeClock

MEASURE = "harness.rank.probes.latency:measure"


@pytest.mark.parametrize("elements", [1, 64])
def test_the_measured_calls_take_the_symmetric_path(simulation: World, elements: int) -> None:
    """Only a buffer in a window of the very communicator has it."""
    assert [reply["path"] for reply in simulation.call(MEASURE, elements, 1)] == ["symmetric"] * simulation.size


def test_every_rank_measures_both_ways_of_waiting(simulation: World) -> None:
    replies = simulation.call(MEASURE, 64, 3)
    assert len(replies) == simulation.size
    assert all(reply["waited"] > 0 and reply["in_a_row"] > 0 for reply in replies)


def test_a_measurement_leaves_no_communicator_pool_or_window(simulation: World) -> None:
    simulation.call(MEASURE, 64, 1)
    assert simulation.call("tests.tools.called:what_is_open") == [0] * simulation.size


class Ready:
    """A communicator whose ranks are all here, on a device that has nothing to wait for."""

    class device:  # noqa: N801
        class torch_device:  # noqa: N801
            type = "cpu"

    def barrier(self) -> None:
        pass


def test_a_figure_is_the_time_of_all_calls_over_their_number() -> None:
    time = FakeClock()
    assert latency.seconds_a_call(Ready(), lambda: time.advance(3), time.clock) == 3  # type: ignore[arg-type]
