"""What each rank of a draw did, step by step, what lived on it from when to when, and how each rank registered.

Invariant: a step counts as run where the trace says that the rank went on after it, and not because others did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.oracle.case import Case, memory
from harness.oracle.findings import Finding, Record
from harness.oracle.history import History
from harness.oracle.waits import AtEnd, AtStep, InCall, Situation, Waits
from harness.report.pages.account import Cell, Lane, Life, State, Turn, Turns, Use, Wait
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.text import ordinal
from harness.trace.draw import Draw, Fate
from harness.trace.events import Exhausted, Raised, Skipped
from harness.trace.trace import TEARDOWN

ENDS = {
    "finished": "ran to the end",
    "raised": "raised an exception",
    "crashed": "its process ended",
    "hung": "hung",
    "stopped": "was stopped, as another rank could not go on",
}


def lanes(case: Case, draw: Draw, leading: Finding | None, found: Sequence[Finding]) -> tuple[Lane, ...]:
    """A lane for each rank. `found`: every finding of the draw, one for each rank that shows it."""
    made = []
    for history in case.histories:
        own = [each.record() for each in found if history.rank in each.ranks]
        marked = next((each for each in own if leading is not None and _is_of(each, leading)), None)
        fate = draw.fates[history.rank]
        cells = tuple(_cells(draw.scenario, history, fate, marked, own))
        lives, uses = tuple(_lives(case, history)), tuple(_uses(case, history))
        made.append(Lane(history.rank, cells, lives, uses, _end(fate, shown(marked, own, TEARDOWN))))
    return tuple(made)


def _is_of(record: Record, leading: Finding) -> bool:
    return (record.key, record.step) == (leading.key, leading.step)


def shown(leading: Record | None, records: Sequence[Record], step: int) -> str:
    """Which of these findings shows at a step, or at the end, as a clause; empty where none does."""
    if leading is not None and (leading.step == step or step == TEARDOWN <= leading.step):
        return "the finding shows here"
    rules = dict.fromkeys(each.rule for each in records if each.step == step or step == TEARDOWN <= each.step)
    return f"{' and '.join(rules)} {'show' if len(rules) > 1 else 'shows'} here" if rules else ""


def _end(fate: Fate, shows: str) -> str:
    end = fate.how or ENDS[fate.state]
    return f"✗ {end}; {shows}" if shows else end


def _cells(
    scenario: Scenario, history: History, fate: Fate, leading: Record | None, records: Sequence[Record]
) -> Iterator[Cell]:
    trace = history.trace
    last, closing = trace.last_step, trace.is_closing
    failed = {
        step: "could not allocate" if isinstance(event, Exhausted) else "left out: its buffer is missing"
        for step, event in trace.steps()
        if isinstance(event, Exhausted | Skipped)
    }
    raised = any(isinstance(event, Raised) for event in trace.events)
    for index, step in enumerate(scenario.steps):
        shows = shown(leading, records, index)
        state, text = _state(scenario, step, history.rank, index, last)
        if index == last and not closing and fate.state != "finished" and last < TEARDOWN:
            state, text = "waits", "raised here" if raised else _inside(trace.blocked_in)
        elif index in failed:
            state, text = "skipped", failed[index]
        if shows and state in ("done", "idle"):
            state, text = "fails", shows
        yield Cell(index, state, text)


def _inside(blocked: object) -> str:
    call = getattr(blocked, "call", "")
    return f"never came out of {call}" if call else "never came out of this step"


def _state(scenario: Scenario, step: Step, rank: int, index: int, last: int) -> tuple[State, str]:
    if index > last:
        return "unreached", "not reached"
    is_idle = step.family is not None and step.kind != "recreate" and scenario.group_of(step, rank) is None
    if is_idle or step.rank not in (None, rank):
        return "idle", "no part in it"
    return "done", ""


def _lives(case: Case, history: History) -> Iterator[Life]:
    for ident, segment in history.segments.items():
        event = segment.event
        yield Life("segment", f"segment {ident}", event.pool, segment.born, segment.died, ident, event.size)
    for window in history.windows.values():
        name = f"window {window.ordinal} of {case.name(window.comm.id)}"
        died = window.died if window.died is not None else window.segment_freed_at
        place = window.event.segment
        yield Life("window", name, case.name(window.comm.id), window.born, died, place, window.event.size,
                   window.event.is_null)  # fmt: skip
    for name, buffer in history.buffers.items():
        yield Life("buffer", name, "", buffer.born, buffer.died, buffer.event.segment, buffer.event.size)


def _uses(case: Case, history: History) -> Iterator[Use]:
    for use in history.uses:
        found = (sight.window for sight in (use.source, use.output))
        names = (f"window {each.ordinal} of {case.name(each.comm.id)}" for each in found if each is not None)
        path = use.ran.path if use.ran is not None else "never returned"
        yield Use(use.step, f"{use.called.kind} on {case.name(use.comm.id)}", path, tuple(dict.fromkeys(names)))


def turns(case: Case, ranks: tuple[int, ...]) -> tuple[Turns, ...]:
    """The order of registrations of every communicator that one of these ranks is in and that has more than one."""
    keys = dict.fromkeys((comm.id, comm.generation) for history in case.histories for comm in history.comms.values())
    found = []
    for key in keys:
        members = [rank for rank in key[0].ranks if rank < len(case.histories)]
        rows = {rank: tuple(_turns(case, case.histories[rank], key)) for rank in members}
        if len(members) > 1 and set(members) & set(ranks) and any(rows.values()):
            again = f", after its {ordinal(key[1] - 1)} re-creation" if key[1] else ""
            found.append(Turns(f"{case.name(key[0])}{again}", rows))
    return tuple(found)


def _turns(case: Case, history: History, key: tuple[object, int]) -> Iterator[Turn]:
    made = history.made(key)  # type: ignore[arg-type]
    for window in made:
        null = ", no window" if window.event.is_null else ""
        yield Turn(f"{memory(window.event.segment)}, {case.at_step(window.born)}{null}")
    numbers = history.numbers(key)  # type: ignore[arg-type]
    if sum(history.entered.get(comm, 0) for comm in numbers) > len(made):
        yield Turn(f"entered at {case.at_step(history.trace.last_step)}, waits for the others", is_made=False)


def waits(case: Case) -> tuple[Wait, ...]:
    """Where the ranks of a hung draw are, and for whom they wait."""
    if not any(fate.state == "hung" for fate in case.seen.fates):
        return ()
    found = Waits(case)
    return tuple(Wait(found.ranks(each), _place(case, each), found.awaited(each)) for each in found.situations)


def _place(case: Case, situation: Situation) -> str:
    match situation:
        case InCall(call, group, _, entry):
            return f"in {call} of {case.name(group)}, entered for the {ordinal(entry - 1)} time"
        case AtStep(step):
            return f"at {case.at_step(step)}, in no call"
        case AtEnd():
            return "through with every step"
