"""Rules on lifetime: no segment is freed under a live window, and nothing is left at the end.

Rules: freed-while-registered, leak.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.findings import Finding, FreedWhileRegistered, Leak
from harness.oracle.history import History
from harness.text import counted
from harness.trace.events import Leaked
from harness.trace.trace import TEARDOWN


def judge(case: Case) -> Iterator[Finding]:
    for history in case.histories:
        yield from _freed(case, history)
        leaked = [event for event in history.trace.events if isinstance(event, Leaked)]
        if leaked:
            left = "; ".join(_left(case, history, event) for event in leaked)
            yield Leak(
                f"rank {history.rank}: after the last buffer was released and the pool closed, there is still {left}.",
                step=TEARDOWN,
                ranks=(history.rank,),
            )


def _left(case: Case, history: History, event: Leaked) -> str:
    """A segment with its pool, or a window with its registration."""
    shown = f"{event.what} {event.ident} of {counted(event.size, 'byte')}"
    if event.what == "window":
        return f"{shown}, {case.window(history.windows[event.ident])}"
    segment = history.segments[event.ident]
    return f"{shown} in pool {segment.event.pool!r}, allocated at {case.at_step(segment.born)}"


def _freed(case: Case, history: History) -> Iterator[Finding]:
    names = {comm.comm: case.name(comm.id) for comm in history.comms.values()}
    for segment in history.segments.values():
        if segment.died is None or not segment.windows_at_death:
            continue
        windows = [history.windows[ident] for ident in segment.windows_at_death]
        owners = ", ".join(names[window.event.comm] for window in windows)
        yield FreedWhileRegistered(
            f"rank {history.rank}: segment {segment.event.segment} was freed at {case.at_step(segment.died)} while "
            f"{owners} still had a window over it, {case.window(windows[0])}.",
            step=segment.died,
            ranks=(history.rank,),
        )
