"""The refusal of a segment that a `Deny` step asks for.

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
