"""Rules on what calls have left: it stays until the program writes there.

Rules: result-overwritten. A loss that lies in the output of a later call that came out wrong is that call's: there a
peer was early.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.findings import Finding, ResultOverwritten
from harness.oracle.history import History, Use
from harness.text import counted
from harness.trace import events as trace

NAMED = 3
"""Calls between two looks that are named; of more, their number is."""


def judge(case: Case) -> Iterator[Finding]:
    for history in case.histories:
        wrong = {step for step, event in history.trace.steps() if isinstance(event, trace.Mismatch)}
        for step, event in history.trace.steps():
            if isinstance(event, trace.Lost) and not _is_anothers(history, event, wrong):
                yield _lost(case, history, step, event)


def _is_anothers(history: History, event: trace.Lost, wrong: set[int]) -> bool:
    """Whether a later call's output lies there, and was wrong."""
    outputs = (use.output.operand for use in history.uses if use.step in wrong and use.step > event.call)
    return any(output.address <= event.address < output.address + output.size for output in outputs)


def _lost(case: Case, history: History, step: int, event: trace.Lost) -> Finding:
    call = case.call(_use(history, event.call if event.captured < 0 else event.captured))
    if event.captured >= 0:
        call = f"{case.at_step(event.call)} of {call}"
    what = f"{event.role} {event.buffer!r}" if event.buffer else "the tensor that the plug-in returned"
    return ResultOverwritten(
        f"{call}: {what} on rank {history.rank} was lost: {event.elements} of {counted(event.of, 'element')} changed "
        f"after that call, the first at index {event.index}: from {event.before} to {event.after}, "
        f"{_when(case, history, step, event)}.",
        step=step,
        ranks=(history.rank,),
    )


def _when(case: Case, history: History, step: int, event: trace.Lost) -> str:
    """When it was lost, and to which call as far as that is known."""
    if event.by >= 0:
        by = next((case.call(use) for use in history.uses if use.step == event.by), case.at_step(event.by))
        return f"as {by} returned the same memory"
    if event.when == "call":
        return f"while {case.call(_use(history, step))} ran, which has no operand there"
    if event.when == "replay":
        return f"while {case.at_step(step)} ran, whose graph has no operand there"
    last = step if event.when in ("by", "flight") else step - 1
    ran = [use for use in history.uses if event.since < use.step <= last]
    between = f"between {case.at_step(event.since)} and {case.at_step(step)}, and the program wrote nothing there"
    if not ran:
        return f"{between}; no call ran in between"
    if len(ran) > NAMED:
        return f"{between}; {len(ran)} calls ran in between"
    return f"{between}; in between ran {', '.join(map(case.call, ran))}"


def _use(history: History, step: int) -> Use:
    return next(use for use in history.uses if use.step == step)
