"""What steps ask to fail on one rank: its next segment (`Deny`), or the registration of one segment (`Refuse`).

Invariant: one step refuses at most one segment, and the refusal is recorded.
"""

from __future__ import annotations

from harness.substrate.recorder import Recorder
from harness.trace import events as trace


class Denial:
    """Whether this rank's next segment is refused."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.is_due = False

    def refuses(self, pool: str, size: int) -> bool:
        """Whether `pool` gets no segment of `size` bytes; one refusal uses the step up."""
        if not self.is_due:
            return False
        self.is_due = False
        self._recorder.record(trace.SegmentDenied(pool, size))
        return True


class Refusal:
    """Which segments this rank cannot register: for each `Refuse` step the first that it then wants a window over."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.is_due = False
        self._segments: set[int] = set()

    def start(self) -> None:
        """Begin a draw, in which nothing is refused."""
        self.is_due = False
        self._segments.clear()

    def refuses(self, segment: int) -> bool:
        """Whether a segment is refused, now and at every later time; one segment uses the step up."""
        if self.is_due:
            self.is_due = False
            self._segments.add(segment)
            self._recorder.record(trace.Unregistrable(segment))
        return segment in self._segments
