"""Rules on the registrations of one rank: inside a segment, each memory once, and none in steady state.

Rules: oversized-window, double-registration, hot-path-growth. `oracle.rules.skew` compares ranks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from harness.oracle.case import Case
from harness.oracle.findings import DoubleRegistration, Finding, HotPathGrowth, OversizedWindow
from harness.oracle.history import History
from harness.oracle.lives import SegmentLife, WindowLife
from harness.oracle.spans import Spans
from harness.text import counted
from harness.trace.events import Began, Entered
from harness.trace.trace import TEARDOWN


def judge(case: Case) -> Iterator[Finding]:
    for history in case.histories:
        yield from _oversized(case, history)
        yield from double(case, history)
        if case.program.steady:
            yield from _late(case, history)


def _late(case: Case, history: History) -> Iterator[Finding]:
    """The first registration entered in each stretch of steady state."""
    since: int | None = None
    for step, event in history.trace.steps():
        if isinstance(event, Began):
            if step in case.program.steady:
                since = step if case.program.steady[step] else None
        elif since is not None and isinstance(event, Entered) and event.call == "register":
            yield HotPathGrowth(
                f"rank {history.rank} entered a registration with {case.name(history.comms[event.comm].id)} at "
                f"{case.at_step(step)}, in steady state since {case.at_step(since)}: the same sizes had been allocated "
                f"and released twice before.",
                step=step,
                ranks=(history.rank,),
            )
            since = None


def _oversized(case: Case, history: History) -> Iterator[Finding]:
    """A window that ends past its segment. What lies there is the allocator's to give and to take.

    In NCCL's dev_runtime.cc, 2.28 keeps the size that it was given and maps the one allocation at the start; 2.29
    refuses a range over several allocations; from 2.30.3 on all of them are mapped.
    """
    found = [
        (window, window.segment)
        for window in history.windows.values()
        if not window.event.is_null and window.segment is not None and window.end > window.segment.end
    ]
    segments = _by_span(history) if found else Spans()
    for window, own in found:
        past = window.end - own.end
        beyond = _behind(segments, window)
        into = "" if beyond is None else f", into {case.segment(beyond)}"
        yield OversizedWindow(
            f"rank {history.rank}: the window {case.window(window)} reaches {counted(past, 'byte')} past the end of "
            f"its segment {window.event.segment}, which has {counted(own.event.size, 'byte')}{into}. "
            f"NCCL 2.28 maps the segment alone on the peers, 2.29 refuses the window, and from 2.30 on it takes in "
            f"what lies behind.",
            step=window.born,
            ranks=(history.rank,),
        )


class _Lives(NamedTuple):
    """The segments of one span, in order, and the last step until which any of those so far was there."""

    segments: list[SegmentLife]
    until: list[int]

    def add(self, segment: SegmentLife) -> None:
        self.segments.append(segment)
        self.until.append(max([_gone(segment.died), *self.until[-1:]]))


def _by_span(history: History) -> Spans[_Lives]:
    """All segments that there ever were."""
    found: Spans[_Lives] = Spans()
    for segment in history.segments.values():
        span = segment.event.address, segment.end
        if (lives := found.get(span)) is None:
            found.put(span, lives := _Lives([], []))
        lives.add(segment)
    return found


def _behind(segments: Spans[_Lives], window: WindowLife) -> SegmentLife | None:
    """The first other segment into which a window reaches while both are there."""
    met = (_first(lives, window) for _, lives in segments.meeting(window.event.address, window.end))
    return min((segment for segment in met if segment is not None), key=lambda segment: segment.turn, default=None)


def _first(lives: _Lives, window: WindowLife) -> SegmentLife | None:
    """The first segment of a span, but for the window's own, that was there with it."""
    until = _gone(window.died)
    for place in range(bisect_left(lives.until, window.born), len(lives.segments)):
        segment = lives.segments[place]
        if segment.born > until:
            return None
        if segment is not window.segment and _gone(segment.died) >= window.born:
            return segment
    return None


def _gone(died: int | None) -> int:
    return TEARDOWN if died is None else died


def _end(window: WindowLife) -> int:
    """Where a window ends, as far as its segment reaches: what it covers past that is another rule's."""
    return window.end if window.segment is None else min(window.end, window.segment.end)


def double(case: Case, history: History) -> Iterator[Finding]:
    """Two windows of one communicator that overlap while both live."""
    for later in history.windows.values():
        for earlier in () if later.event.is_null else history.doubled.get(later.event.window, ()):
            if _end(later) <= earlier.event.address or _end(earlier) <= later.event.address:
                continue
            yield DoubleRegistration(
                f"rank {history.rank}: {case.at_step(later.born)} registered segment {later.event.segment} with "
                f"{case.name(later.comm.id)} while its window from {case.at_step(earlier.born)} was still live.",
                step=later.born,
                ranks=(history.rank,),
            )
