"""A trace: what one rank saw during one draw, as events, step by step.

Invariant: a trace that breaks off is as good as one that does not, up to its last event.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.trace.accesses import ORDERING
from harness.trace.events import (
    Awaited,
    Began,
    Closing,
    CommCreated,
    Entered,
    Event,
    Finished,
    PadOverwritten,
    Provided,
    Raised,
    Replayed,
    Returned,
    SegmentAllocated,
    SegmentFreed,
)

TEARDOWN = 1 << 20
"""The step number under which ranks give everything back, after the last step of any program."""


class Trace(msgspec.Struct, frozen=True):
    """One rank's events in order."""

    rank: int
    events: tuple[Event, ...] = ()
    after: tuple[PadOverwritten, ...] = ()
    """What the parent found in the rank's shared memory where the rank could not look any more."""

    def steps(self) -> Iterator[tuple[int, Event]]:
        """Every event with the number of the step it belongs to (-1 before the first)."""
        step = -1
        for event in self.events:
            if isinstance(event, Began):
                step = event.step
            elif isinstance(event, Awaited):
                step = event.call
            yield step, event

    def seen(self) -> Iterator[tuple[int, Event]]:
        """Every event with the step of the call that it was seen in: of a replay, the step that was captured."""
        replay = captured = -1
        for step, event in self.steps():
            if isinstance(event, Replayed):
                replay, captured = step, event.captured
            yield captured if step == replay else step, event

    @property
    def last_step(self) -> int:
        """The step the rank was in when it last wrote."""
        return next((event.step for event in reversed(self.events) if isinstance(event, Began)), -1)

    @property
    def has_finished(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    @property
    def blocked_in(self) -> Entered | None:
        """The call the rank had entered and not returned from; where it raised, the call it raised in."""
        through = 0
        """Calls inside of it that the rank came out of."""
        for event in reversed(self.events):
            match event:
                case _ if isinstance(event, (Raised, *ORDERING)):
                    pass
                case Provided() | Returned(call="signal pads"):
                    through += 1
                case Entered():
                    if not through:
                        return event
                    through -= 1
                case _:
                    return None
        return None

    @property
    def is_closing(self) -> bool:
        """Whether the rank has run every step, and waits for all others or has finished."""
        last = next((event for event in reversed(self.events) if not isinstance(event, ORDERING)), None)
        return isinstance(last, Closing | Finished)

    @property
    def most_held(self) -> int:
        """Most bytes of segments that the rank held at one time."""
        sizes: dict[int, int] = {}
        held = most = 0
        for event in self.events:
            if isinstance(event, SegmentAllocated):
                sizes[event.segment] = event.size
                held += event.size
                most = max(most, held)
            elif isinstance(event, SegmentFreed):
                held -= sizes[event.segment]
        return most

    def comms(self) -> dict[int, CommCreated]:
        """Communicators by their number on this rank."""
        return {event.comm: event for event in self.events if isinstance(event, CommCreated)}
