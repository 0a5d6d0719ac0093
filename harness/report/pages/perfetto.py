"""An account as a trace that Perfetto and chrome://tracing open: JSON of Chrome's trace-event format.

Invariant: a rank is a process, its steps are one thread of it, and each life of a segment, window or buffer is one.
Time is the number of a step, a millisecond each, as a draw knows the order of its steps and not their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from harness.report.pages.account import Account, Lane, Life

STEP = 1000
"""Microseconds that stand for a step."""
Event = dict[str, Any]


def trace(account: Account) -> dict[str, Any]:
    """The trace, ready for `json.dumps`."""
    events = [event for lane in account.lanes for event in _rank(account, lane)]
    about = {"headline": account.verdict.headline, "rule": account.verdict.rule, "seed": account.name}
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}


def _rank(account: Account, lane: Lane) -> Iterator[Event]:
    steps = len(account.program)
    yield _named("process_name", lane.rank, 0, f"rank {lane.rank}: {lane.fate}")
    yield _named("thread_name", lane.rank, 0, "steps")
    calls = {use.step: use for use in lane.uses}
    for cell in lane.cells:
        if cell.state in ("unreached", "idle"):
            continue
        line, use = account.program[cell.step], calls.get(cell.step)
        about = {"state": cell.state, "text": line.text, **({"path": use.path} if use else {})}
        name = f"{line.step} {line.kind}" + (" ✗" if cell.state == "fails" else "")
        yield _span(lane.rank, 0, name, cell.step, cell.step + 1, "step", about)
    places, threads = {}, count(1)  # 0 has the steps
    for kind in ("segment", "window", "buffer"):
        lives = [life for life in lane.lives if life.kind == kind]
        for place, life in enumerate(lives):
            thread = next(threads)
            places[kind, life.name, life.born] = thread
            yield _named("thread_name", lane.rank, thread, f"{kind}s {place}")
            facts: Event = {"size": life.size, "segment": life.segment, "of": life.owner}
            yield _span(lane.rank, thread, life.name, *_bounds(life, steps), kind, facts)
    yield from _flows(lane, places, steps)


def _flows(lane: Lane, places: dict[tuple[str, str, int], int], steps: int) -> Iterator[Event]:
    """An arrow from the registration of a window to each call that finds it."""
    number = 0
    for use in lane.uses:
        for name in use.windows:
            found = [life for life in lane.lives if life.kind == "window" and life.name == name]
            live = [life for life in found if life.born <= use.step]
            if live:
                life = live[-1]
                ident = (lane.rank + 1) * 1_000_000 + number
                number += 1
                about = {"name": "window to call", "cat": "use", "pid": lane.rank, "id": ident}
                thread = places["window", life.name, life.born]
                yield {**about, "ph": "s", "tid": thread, "ts": _bounds(life, steps)[0] * STEP + 1}
                yield {**about, "ph": "f", "bp": "e", "tid": 0, "ts": use.step * STEP + STEP // 2}


def _bounds(life: Life, steps: int) -> tuple[int, int]:
    """From where to where it is drawn: a step at least. What comes before the first step is in it, and the end of the
    draw is a step behind the last one."""
    begin = min(max(0, life.born), steps)
    return begin, max(begin + 1, steps + 1 if life.died is None else min(life.died, steps + 1))


def _named(what: str, rank: int, thread: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": rank, "tid": thread, "args": {"name": name}}


def _span(rank: int, thread: int, name: str, begin: int, end: int, category: str, about: dict[str, Any]) -> Event:
    times = {"ts": begin * STEP, "dur": (end - begin) * STEP - 1}
    return {"name": name, "cat": category, "ph": "X", "pid": rank, "tid": thread, **times, "args": about}
