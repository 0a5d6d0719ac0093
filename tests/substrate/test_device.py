"""The part of a device that both substrates share."""

from __future__ import annotations

from harness.substrate.sim.device import SimDevice


class Waiting(SimDevice):
    """Notes that it was waited for."""

    waits = 0

    def synchronize(self) -> None:
        self.waits += 1


def test_blocks_of_other_streams_are_reclaimed_after_the_device_was_waited_for() -> None:
    device = Waiting()
    device.reclaim()
    assert device.waits == 1
