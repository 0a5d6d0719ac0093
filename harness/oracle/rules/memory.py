"""Rules on memory beside outputs: live buffers do not overlap, and a call changes nothing but its output.

Rules: overlapping-buffers, out-of-bounds, source-changed. A change in the output of another call that came out wrong is
that call's: there a peer was early, or late.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from harness.oracle.case import Case
from harness.oracle.findings import Finding, OutOfBounds, OverlappingBuffers, SourceChanged
from harness.oracle.history import History, Use
from harness.oracle.lives import BufferLife
from harness.oracle.sight import Sight
from harness.text import counted
from harness.trace import events as trace

Span = tuple[int, int]
"""First address, and the one behind the last."""


def judge(case: Case) -> Iterator[Finding]:
    for history in case.histories:
        yield from _overlapping(case, history)
        wrong = _wrong_outputs(history)
        called: dict[int, int] = {}
        """The step of the call that a replay runs again."""
        for step, event in history.trace.steps():
            match event:
                case trace.Replayed():
                    called[step] = event.captured
                case trace.Touched() if not _is_anothers((event.address, event.end), step, wrong):
                    yield _touched(case, history, step, event)
                case trace.SourceChanged():
                    yield from _source(case, history, step, event, called.get(step, step), wrong)


# buffers that overlap


def _overlapping(case: Case, history: History) -> Iterator[Finding]:
    """Pairs of buffers of which the later one came while the earlier one was live, over a part of its memory."""
    for first, second in combinations(history.buffers.values(), 2):
        (start, end), (low, high) = _whole(first), _whole(second)
        begin, shared = max(start, low), min(end, high) - max(start, low)
        if shared > 0 and (first.died is None or first.died > second.born):
            old, new = first.event.buffer, second.event.buffer
            yield OverlappingBuffers(
                f"rank {history.rank}: {new!r}, allocated at {case.at_step(second.born)}, shares "
                f"{counted(shared, 'byte')} with {old!r}, which was allocated at {case.at_step(first.born)} and is "
                f"still live: byte {begin - low} of {new!r} is byte {begin - start} of {old!r}, in "
                f"{_pool(case, history, second.event.segment)}.",
                step=second.born,
                ranks=(history.rank,),
            )


def _whole(life: BufferLife) -> Span:
    """A buffer with its guards."""
    return life.event.address, life.event.address + life.event.size


def _pool(case: Case, history: History, segment: int) -> str:
    """Such as `segment 3 of pool 'tp'`."""
    life = history.segments.get(segment)
    return "ordinary memory" if life is None else case.segment(life)


# what changed


def _wrong_outputs(history: History) -> list[tuple[int, Span]]:
    """The outputs that were wrong, or that changed after their call, each with its step."""
    steps = {step for step, event in history.trace.steps() if isinstance(event, trace.Mismatch | trace.Changed)}
    return [(use.step, _view(use.output)) for use in history.uses if use.step in steps]


def _is_anothers(span: Span, step: int, wrong: list[tuple[int, Span]]) -> bool:
    """Whether a change lies in a wrong output of a call at another step."""
    return any(other != step and low <= span[0] and span[1] <= high for other, (low, high) in wrong)


def _view(sight: Sight) -> Span:
    return sight.operand.address, sight.operand.address + sight.operand.size


def _touched(case: Case, history: History, step: int, event: trace.Touched) -> Finding:
    use = next((use for use in history.uses if use.step == step and event.when == "call"), None)
    during, may = {
        "call": (f"{case.call(use)}: " if use else "", "the call may not write"),
        "replay": (f"{case.at_step(step)}: ", "the graph may not write"),
        "flight": (f"by {case.at_step(step)}: ", "no call in flight may write"),
        "between": (_between(case, history, step), "no call may write"),
    }[event.when]
    place, beside = _where(case, history, step, event), _beside(use, event)
    # a buffer that ends with the output needs one end alone
    place += "" if beside in place else f", {beside} the output"
    return OutOfBounds(
        f"{during}on rank {history.rank} {counted(event.changed, 'byte')} changed that {may}, the first {place}: from "
        f"0x{event.before} to 0x{event.after}{f'; {case.path(use)}' if use else ''}.",
        step=step,
        ranks=(history.rank,),
    )


def _between(case: Case, history: History, step: int) -> str:
    """Such as `between step 3 (all_gather) and step 4 (release): `."""
    calls = [at for at, event in history.trace.steps() if isinstance(event, trace.Ran | trace.Replayed) and at < step]
    return f"between {case.at_step(max(calls, default=-1))} and {case.at_step(step)}: "


def _where(case: Case, history: History, step: int, event: trace.Touched) -> str:
    """In which buffer, or how far from which buffer in memory of which segment that nobody holds."""
    if event.buffer:
        return _in_buffer(history, event)
    place = f"in memory of {_pool(case, history, event.segment)} that nobody holds"
    beside = [life for life in history.buffers.values() if life.event.segment == event.segment and _lives(life, step)]
    if not beside:
        return place
    nearest = min(beside, key=lambda life: abs(_distance(_body(life), event)))
    return f"{place}, {_far(_body(nearest), event)} {nearest.event.buffer!r}"


def _in_buffer(history: History, event: trace.Touched) -> str:
    start, end = body = _body(history.buffers[event.buffer])
    if start <= event.address < end:
        return f"at byte {event.address - start} of {event.buffer!r}"
    return f"{_far(body, event)} {event.buffer!r}"


def _lives(life: BufferLife, step: int) -> bool:
    return life.born <= step and (life.died is None or life.died >= step)


def _body(life: BufferLife) -> Span:
    """A buffer without its guards."""
    start = life.event.address + life.event.front
    return start, start + life.event.body


def _beside(use: Use | None, event: trace.Touched) -> str:
    """How far from an end of its call's output, if that is in the same segment or buffer."""
    if use is None:
        return ""
    segment = use.output.segment
    is_near = event.segment == segment.event.segment if segment else event.buffer == use.output.operand.buffer
    return _far(_view(use.output), event) if is_near else ""


def _far(span: Span, event: trace.Touched) -> str:
    """Such as `128 bytes behind the end of`."""
    distance = _distance(span, event)
    bytes_ = counted(abs(distance), "byte") if distance not in (0, -1) else "right"
    return f"{bytes_} behind the end of" if distance >= 0 else f"{bytes_} in front of the start of"


def _distance(span: Span, event: trace.Touched) -> int:
    """Bytes from the end of a span to the first that changed behind it; negative from its start to one in front."""
    return event.address - span[1] if event.address >= span[1] else event.address - span[0]


def _source(
    case: Case, history: History, step: int, event: trace.SourceChanged, called: int, wrong: list[tuple[int, Span]]
) -> Iterator[Finding]:
    use = next(use for use in history.uses if use.step == called)
    start, end = _view(use.source)
    first = start + event.index * ((end - start) // event.of)
    if _is_anothers((first, first + 1), step, wrong):
        return
    again = "" if step == called else f"{case.at_step(step)} of "
    are = "is" if event.of == 1 else "are"
    yield SourceChanged(
        f"{again}{case.call(use)}: source {event.buffer!r} of rank {history.rank} changed in {event.elements} of "
        f"{counted(event.of, 'element')} that {are} not output, the first at index {event.index}: from "
        f"{event.before} to {event.after}; {case.path(use)}.{case.taken(use, use.source)}",
        step=step,
        ranks=(history.rank,),
    )
