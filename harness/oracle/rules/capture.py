"""Rules on graphs: nothing is registered in a capture, and what a graph writes stays its own.

Rules: registered-in-capture, captured-reuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.oracle.case import Case
from harness.oracle.findings import CapturedReuse, Finding, RegisteredInCapture
from harness.oracle.history import History, Use
from harness.oracle.sight import Sight
from harness.trace.events import Entered, Overwritten


def judge(case: Case) -> Iterator[Finding]:
    captures, replays = case.program.captures, case.program.replays
    for history in case.histories:
        yield from _registered(case, history, captures)
        for step, graph in replays.items():
            if step <= history.trace.last_step:
                yield from _reused(case, history, graph, captures[graph], step)


def _registered(case: Case, history: History, captures: Mapping[str, range]) -> Iterator[Finding]:
    comms = history.comms
    for step, event in history.trace.steps():
        if not isinstance(event, Entered) or event.call != "register":
            continue
        capture = event.capture or _drawn(case, captures, step)
        if capture:
            yield RegisteredInCapture(
                f"rank {history.rank} entered a registration with {case.name(comms[event.comm].id)} at "
                f"{case.at_step(step)}, in {capture}.",
                step=step,
                ranks=(history.rank,),
            )


def _drawn(case: Case, captures: Mapping[str, range], step: int) -> str:
    """The capture of a draw that a step is in; empty for none."""
    graph = next((name for name, steps in captures.items() if step in steps), None)
    began = "" if graph is None else case.at_step(captures[graph].start)
    return began and f"the capture of graph {graph!r} that began at {began}"


def _reused(case: Case, history: History, graph: str, captured: range, replay: int) -> Iterator[Finding]:
    """The first operand of a graph whose memory was no longer the graph's at a replay."""
    for use in history.uses:
        for sight in (use.output, use.source) if use.step in captured else ():
            why = _freed(case, sight, replay) or _held(case, history, sight, captured, replay)
            if why:
                yield CapturedReuse(
                    f"graph {graph!r} writes at {case.at_step(replay)} what {case.call(use)} was captured with: "
                    f"{_role(use, sight)} {sight.operand.buffer!r} of rank {history.rank}"
                    f"{_let_go(case, history, sight)}; {why}.",
                    step=replay,
                    ranks=(history.rank,),
                )
                return


def _role(use: Use, sight: Sight) -> str:
    return "output" if sight is use.output else "source"


def _let_go(case: Case, history: History, sight: Sight) -> str:
    died = history.buffers[sight.operand.buffer].died
    return "" if died is None else f", released at {case.at_step(died)}"


def _freed(case: Case, sight: Sight, replay: int) -> str:
    segment = sight.segment
    if segment is None or segment.died is None or segment.died >= replay:
        return ""
    return f"its segment {segment.event.segment} was freed at {case.at_step(segment.died)}"


def _held(case: Case, history: History, sight: Sight, captured: range, replay: int) -> str:
    """Which buffer of outside the capture has the memory at the replay; empty if none has."""
    start, end = sight.operand.address, sight.operand.address + sight.operand.size
    for name, life in history.buffers.items():
        lives = life.born < replay and (life.died is None or life.died > replay)
        meets = life.event.address < end and start < life.event.address + life.event.size
        if lives and meets and life.born not in captured and name != sight.operand.buffer:
            changed = any(
                isinstance(event, Overwritten) and (step, event.buffer, event.where) == (replay, name, "replay")
                for step, event in history.trace.steps()
            )
            seen = ", and its contents changed" if changed else ""
            return f"{name!r} has held this memory since {case.at_step(life.born)}{seen}"
    return ""
