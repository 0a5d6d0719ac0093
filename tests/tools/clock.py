"""A clock that moves only when somebody sleeps by it, or a test advances it."""

from __future__ import annotations

from harness.clock import Clock


class FakeClock:
    """`clock` goes to what is tested; `seconds` is the time it shows, `slept` each pause that was asked for."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.seconds, self._sleep)

    def advance(self, seconds: float) -> None:
        """Let time pass without a pause."""
        self.seconds += seconds

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
