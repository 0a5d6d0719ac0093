"""How near ranks came to breaking a rule on registration, lifetime, graphs or their end, where the case shows it.

Invariant: a name begins with the rule. What is named broke nothing of it: one more thing would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from harness.oracle.case import Case
from harness.oracle.history import History, Key
from harness.oracle.lives import SegmentLife
from harness.trace.events import Called, Entered, Exhausted, Placed, Registered, RegistrationFailed
from harness.trace.trace import TEARDOWN


def seen(case: Case) -> Iterator[str]:
    for history in case.histories:
        yield from _of_segments(history)
        yield from _of_windows(history)
        yield from _of_steady_state(case, history)
        yield from _of_graphs(case, history)
        yield from _of_refusals(history)
        yield from _of_results(history)
    yield from _of_registrations(case)


def _of_segments(history: History) -> Iterator[str]:
    """Segments that are freed before the end, and what lies behind another."""
    starts = {segment.event.address: segment for segment in history.segments.values()}
    by_segment: dict[int, list[int | None]] = {}
    for window in history.windows.values():
        by_segment.setdefault(window.event.segment, []).append(window.died)
        if (behind := starts.get(window.end)) is not None and _are_together(window.segment, behind):
            yield "oversized-window: a segment lies right behind"
    for segment in history.segments.values():
        if segment.died is None or segment.died >= TEARDOWN or segment.windows_at_death:
            continue
        if segment.died in by_segment.get(segment.event.segment, ()):
            yield "freed-while-registered: deregistered in the step that frees"
        elif segment.event.segment in by_segment:
            yield "freed-while-registered: deregistered in a step before"


def _are_together(one: SegmentLife | None, other: SegmentLife) -> bool:
    """Whether two segments were there at one time."""
    if one is None:
        return False
    return all(first.died is None or first.died > second.born for first, second in ((one, other), (other, one)))


def _of_windows(history: History) -> Iterator[str]:
    """Memory that is registered more than once."""
    by_segment: dict[int, set[int]] = {}
    for window in history.windows.values():
        comms = by_segment.setdefault(window.event.segment, set())
        if window.event.comm in comms and not history.doubled.get(window.event.window):
            yield "double-registration: again after it was deregistered"
        elif comms:
            yield "double-registration: one segment, two communicators"
        comms.add(window.event.comm)
    addresses = [window.event.address for window in history.windows.values()]
    if len({*addresses}) < len(addresses):
        yield "double-registration: an address again"
    if any(window.is_null for window in (life.event for life in history.windows.values())):
        yield "null-window: a registration gave none"


def _of_steady_state(case: Case, history: History) -> Iterator[str]:
    """Allocations in steady state that needed no registration, and a growth right before it."""
    if not case.program.steady:
        return
    begins = sorted(step for step, is_begin in case.program.steady.items() if is_begin)
    ends = sorted(step for step, is_begin in case.program.steady.items() if not is_begin)
    stretches = [range(start, next((end for end in ends if end > start), TEARDOWN)) for start in begins]
    allocated = [step for step, event in history.trace.steps() if isinstance(event, Placed)]
    grown = [step for step, event in history.trace.steps() if isinstance(event, Registered)]
    for stretch in stretches:
        if any(step in stretch for step in allocated) and not any(step in stretch for step in grown):
            yield "hot-path-growth: allocated in steady state"
            if any(stretch.start - len(stretch) <= step < stretch.start for step in grown):
                yield "hot-path-growth: grown in the turn before"


def _of_graphs(case: Case, history: History) -> Iterator[str]:
    """Captures in which buffers came and no window did, and graphs whose memory was given back before a replay."""
    captures, replays = case.program.captures, case.program.replays
    if not captures:
        return
    grown = [step for step, event in history.trace.steps() if isinstance(event, Entered) and event.call == "register"]
    for graph, captured in captures.items():
        own = [life for life in history.buffers.values() if life.born in captured]
        if own and not any(step in captured for step in grown):
            yield "registered-in-capture: allocated in a capture"
            if any(captured.start - len(captured) - 1 <= step < captured.start for step in grown):
                yield "registered-in-capture: registered right before"
        for step in (step for step, name in replays.items() if name == graph):
            if any(life.died is not None and life.died < step for life in own):
                yield "captured-reuse: released before a replay"
            if any(captured.stop <= life.born < step for life in history.buffers.values()):
                yield "captured-reuse: allocated between capture and replay"


def _of_refusals(history: History) -> Iterator[str]:
    """Calls that came after a rank was refused memory or a window."""
    refused: type | None = None
    for _, event in history.trace.steps():
        match event:
            case Exhausted() | RegistrationFailed():
                refused = type(event)
            case Called() if refused is Exhausted:
                yield "hang: a call after memory was refused"
            case Called() if refused is RegistrationFailed:
                yield "hang: a call after a window was refused"


def _of_results(history: History) -> Iterator[str]:
    """Results that are still there when their communicator runs another call."""
    kept: dict[int, set[str]] = {}
    for use in history.uses:
        outputs = kept.setdefault(use.comm.comm, set())
        live = {
            name
            for name in outputs
            if (life := history.buffers.get(name)) and (life.died is None or life.died > use.step)
        }
        if live - {use.output.operand.buffer, use.source.operand.buffer}:
            yield "result-overwritten: a result is kept over the next call"
        outputs.add(use.output.operand.buffer)


def _of_registrations(case: Case) -> Iterator[str]:
    """Communicators whose ranks registered alike, between registrations with others in which they differ."""
    for key in dict.fromkeys((comm.id, comm.generation) for h in case.histories for comm in h.comms.values()):
        ranks = [rank for rank in key[0].ranks if rank < len(case.histories)]
        made = {rank: case.histories[rank].made(key) for rank in ranks}
        if len(ranks) < 2 or len({len(windows) for windows in made.values()}) > 1 or not made[ranks[0]]:
            continue
        if len({len(case.histories[rank].windows) for rank in ranks}) > 1:
            yield "registration-skew: some ranks register with other groups, too"
        if len({_between(case.histories[rank], key) for rank in ranks}) > 1:
            yield "registration-skew: other registrations in between on some ranks"
        sizes = [[window.event.size for window in windows] for windows in made.values()]
        if any(each != sizes[0] for each in sizes):
            yield "registration-skew: windows of different sizes"


def _between(history: History, key: Key) -> tuple[int, ...]:
    """How many registrations lie between one with this communicator and the next."""
    comms = [(window.comm.id, window.comm.generation) for window in history.windows.values()]
    turns = [place for place, comm in enumerate(comms) if comm == key]
    return tuple(later - earlier for earlier, later in pairwise(turns))
