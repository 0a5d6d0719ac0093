"""What is wrong in one sentence, how it came about, and what it costs: for a reader who does not know the harness.

Invariant: each sentence rests on what the draw shows. The oracle's own argument stands beside it, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.oracle.case import Case, ranks_text
from harness.oracle.findings import RULES, Record
from harness.oracle.history import Use
from harness.oracle.lives import SegmentLife
from harness.oracle.pool_history import first_difference
from harness.oracle.rules.data import origin_text
from harness.oracle.sight import Sight
from harness.report.pages.account import Verdict
from harness.report.pages.moments import roles
from harness.scenario.bases import Role
from harness.text import counted
from harness.trace.events import Mismatch

BOTH = 2
OWNERSHIP = (
    *("wrong-owner", "unregistered", "partly-registered", "null-window", "stale-window"),
    *("segment-mismatch", "offset-mismatch", "half-registered"),
)
HEADLINES = {
    "freed-while-registered": "A segment was freed while a communicator still had a window over it.",
    "oversized-window": "A window reaches past the end of the memory that it was registered for.",
    "double-registration": "The same memory was registered twice with one communicator.",
    "hot-path-growth": "A registration happens in steady state, where the pools should not grow any more.",
    "overlapping-buffers": "The pool handed out memory that another buffer still holds.",
    "captured-reuse": "A CUDA graph writes memory at each replay that belongs to another buffer by now.",
    "slow-path": "A call that could take NCCL's fast path took the slow one, or relied on a path that it cannot take.",
    "race": "Two ranks use the same bytes, one of them writes, and nothing orders the two.",
    "result-overwritten": "The result of a call was written over before the program had used it.",
    "stale-peer-address": "A kernel uses the address of a peer's window that is gone.",
    "out-of-bounds": "A call wrote memory that is not its own.",
    "source-changed": "A call changed its own input.",
    "wrong-data": "A call returned wrong data.",
    "leak": "Memory or a window is left after everything was closed.",
}
"""Where no sentence is made of the case itself."""
SAY_IT_THEMSELVES = ("registration-skew", "hang", "registered-in-capture", "raised", "rank-crash")
"""The rules whose argument begins with the cause."""
OF_CALLS = {
    "wrong-owner": "{call} uses memory that was registered with {owners} and not with {own}.",
    "without-flag": "{call} uses a window that was registered without the flag for symmetric kernels.",
    "beside": "{call} uses memory that no window covers: {what} lies beside the window.",
    "unregistered": "{call} uses memory that was registered with no communicator: {what}.",
    "partly-registered": "{call} uses a buffer that reaches past the end of its window: {what}.",
    "null-window": "{call} uses memory whose registration succeeded and yet gave no window: {what}.",
    "stale-window": "{call} uses memory whose window of {own} is gone: {what}.",
    "offset-mismatch": "{call} finds {name} at another offset of the window on each rank: {places}.",
    "segment-mismatch": "{call} finds {name} in another window on each rank: {places}.",
    "wrong-data": "{call} returned wrong data on {ranks}.",
    "out-of-bounds": "{call} wrote memory that is not its own, on {ranks}.",
    "source-changed": "{call} changed its own input on {ranks}.",
}
"""Where a call shows it."""
EFFECTS = {
    **dict.fromkeys(
        ("segment-mismatch", "offset-mismatch"),
        "Each rank applies its own place to its peers' memory. On the symmetric path it reads and writes other bytes "
        "than it means.",
    ),
    "registration-skew": "A registration needs every rank of the communicator and has no timeout. The rank that "
    "registers waits for ever.",
    "captured-reuse": "Each replay destroys what the other buffer holds.",
    "wrong-data": "The caller goes on with wrong numbers.",
    "source-changed": "The caller's input is lost.",
    "result-overwritten": "The caller goes on with wrong numbers.",
    "out-of-bounds": "What lay there is lost. That shows later, and elsewhere.",
    "hang": "Nothing goes on until the job is killed.",
    "race": "Whether the data is right depends on which rank is faster.",
    "hot-path-growth": "A registration stops all ranks of the group for milliseconds, in the middle of serving.",
    "leak": "Memory is lost with every such program.",
    "registered-in-capture": "The capture fails, or the graph holds an address that no window covers.",
    "stale-window": "The look-up finds nothing, or memory that is not there any more.",
}


def verdict(case: Case | None, records: Sequence[Record], leading: Record, ranks: tuple[int, ...] = ()) -> Verdict:
    """The verdict on a leading finding, others of the same draw beside it. `ranks`: all that show it."""
    use = None if case is None else use_of(case, leading)
    headline, why, effect = HEADLINES.get(leading.rule, leading.explanation), "", EFFECTS.get(leading.rule, "")
    if case is not None and use is not None:
        headline = _headline(case, use, leading, ranks or leading.ranks) or headline
        why = _why(case, use, leading)
        effect = _effect(case, use, leading, [record.rule for record in records]) or effect
    if leading.rule in SAY_IT_THEMSELVES:
        headline, why = _first_sentence(leading.explanation)
    means = ((RULES[leading.rule].__doc__ or "") if leading.rule in RULES else "").strip()
    if case is not None and leading.rule == "registration-skew":
        why = f"{why} {_growth(case, leading)}".strip()
    why = why or (means if leading.rule in SAY_IT_THEMSELVES else "")
    others = tuple(f"{each.rule}: {each.explanation}" for each in records if each != leading)
    also: dict[str, str] = {}
    for each in (each for each in records if each.rule != leading.rule):
        also.setdefault(each.rule, _first_sentence(each.explanation)[0])
    return Verdict(leading.rule, means, headline, why, effect, leading.explanation, others, tuple(also.items()))


def use_of(case: Case, record: Record) -> Use | None:
    """The call at the step of a finding, on the first rank that shows it."""
    for rank in record.ranks:
        for use in case.histories[rank].uses if rank < len(case.histories) else ():
            if use.step == record.step:
                return use
    return None


def _growth(case: Case, record: Record) -> str:
    """Which pools took a segment at the step of a finding, and which did not; empty where all did alike."""
    segments = {rank: case.histories[rank].segments.values() for rank in sorted(record.ranks)}
    took = {rank: sum(life.born == record.step for life in lives) for rank, lives in segments.items()}
    if len({*took.values()}) < 2:
        return ""
    each = (f"rank {rank} took {counted(many, 'new segment') if many else 'none'}" for rank, many in took.items())
    return f"At {case.at_step(record.step)} {', '.join(each)}."


def _first_sentence(text: str) -> tuple[str, str]:
    """The first sentence, and the others."""
    first, _, rest = text.partition(". ")
    return f"{first[:1].upper()}{first[1:].rstrip('.')}.", rest


def _headline(case: Case, use: Use, record: Record, ranks: tuple[int, ...]) -> str:
    own, role, sight = case.name(use.comm.id), *_focus(case, use, record)
    which = record.rule
    if which == "unregistered":
        which = "without-flag" if sight.window is not None else "beside" if sight.beside else which
    return OF_CALLS.get(which, "").format(
        call=f"The {use.called.kind} on {own}",
        own=own,
        what=f"its {role} {case.operand(sight)}",
        name=case.operand(sight),
        owners=" and ".join(dict.fromkeys(case.name(window.comm.id) for window in sight.others)),
        places=_places(case, use, record),
        ranks=_on(use.comm.group, ranks),
    )


def _on(group: tuple[int, ...], ranks: tuple[int, ...]) -> str:
    """Those of a group's ranks, in words."""
    own = tuple(rank for rank in ranks if rank in group)
    if len(own) == len(group) > 1:
        return "both its ranks" if len(group) == BOTH else "every rank"
    return ranks_text(own or ranks)


def _focus(case: Case, use: Use, record: Record) -> tuple[Role, Sight]:
    """The operand that a finding is about: the one that its argument names, or the first of the call."""
    wanted = roles(case, use)
    named = (role for role in wanted if f"{role} {case.operand(use.sight(role))} of rank" in record.explanation)
    role = next(named, wanted[0])
    return role, use.sight(role)


def _places(case: Case, use: Use, record: Record) -> str:
    role = roles(case, use)[0]
    found = []
    for each in case.calls[use.step, use.comm.group]:
        place = each.sight(role).place
        if place is not None:
            where = f"byte {place[1]:,}" if record.rule == "offset-mismatch" else f"window {place[0]}"
            found.append(f"{where} on rank {each.rank}")
    return ", ".join(found[:4]) + (", …" if len(found) > 4 else "")


def _why(case: Case, use: Use, record: Record) -> str:
    """How it came about, as far as the draw shows it; empty where the oracle's argument says it all."""
    if record.rule == "wrong-data":
        how = _origins(case, record) or case.taken(use, use.output).strip()
        return f"{_first_difference(case, record)} {how}".strip()
    if record.rule == "source-changed":
        return case.taken(use, use.source).strip()
    if record.rule not in OWNERSHIP:
        return ""
    role, sight = _focus(case, use, record)
    buffer = case.histories[use.rank].buffers.get(sight.operand.buffer)
    if buffer is None or sight.segment is None:
        return ""
    if record.rule in ("offset-mismatch", "segment-mismatch"):
        return first_difference(case, case.calls[use.step, use.comm.group], role).strip()
    return " ".join(_chain(case, use, sight, sight.segment, buffer.born))


def _first_difference(case: Case, record: Record) -> str:
    """The first wrong element, on the first rank of a finding that has one."""
    for rank in record.ranks:
        for step, event in case.histories[rank].trace.steps():
            if isinstance(event, Mismatch) and step == record.step:
                return (
                    f"First difference: rank {rank}, output {event.buffer!r}, element {event.index}: "
                    f"expected {event.expected}, found {event.found}."
                )
    return ""


def _origins(case: Case, record: Record) -> str:
    """Whose data lies in a wrong output, on the first rank where that is known."""
    others = (rank for rank in range(len(case.histories)) if rank not in record.ranks)
    for rank in (*record.ranks, *others):
        history = case.histories[rank]
        uses = {use.step: use for use in history.uses}
        for step, event in history.trace.steps():
            if not isinstance(event, Mismatch) or step != record.step or step not in uses:
                continue
            if text := origin_text(case, uses[step], event):
                made = " A kernel under test made the call." if uses[step].called.via == "kernel" else ""
                return f"Output {event.buffer!r} of rank {rank}: {text[:1].lower()}{text[1:].rstrip('.')}.{made}"
    return ""


def _chain(case: Case, use: Use, sight: Sight, segment: SegmentLife, born: int) -> Iterator[str]:
    """How the operand's buffer came to its memory, and what was registered over that."""
    history, name, where = case.histories[use.rank], case.operand(sight), case.segment(segment)
    first = next((each for each, life in history.buffers.items() if life.born == segment.born), "")
    if asked := case.asked_for(use, sight):
        yield asked.strip()
    if segment.born < born:
        by = f", for {first!r}" if first else ""
        yield (
            f"{where[:1].upper()}{where[1:]} came at {case.at_step(segment.born)}{by}. "
            f"At {case.at_step(born)} the pool put {name} into the same segment."
        )
    for window in (*sight.others, *sight.former)[:2]:
        is_gone = window.died is not None and window.died < use.step
        gone = f", and that window went at {case.at_step(window.died or 0)}" if is_gone else ""
        yield f"Segment {segment.event.segment} was {case.window(window)}{gone}."
    for window in sight.beside[:2]:
        start = window.event.address - segment.event.address
        yield f"The window that was {case.window(window)} covers bytes {start:,} to {start + window.event.size - 1:,}."
    if holders := case.earlier_holders(use, sight):
        yield holders.strip()


def _effect(case: Case, use: Use, record: Record, rules: Sequence[str]) -> str:
    if record.rule not in OWNERSHIP:
        return ""
    wrong = [rule for rule in ("wrong-data", "out-of-bounds", "hang") if rule in rules]
    if wrong:
        return f"{EFFECTS.get(record.rule, '')} Seen in the same run: {', '.join(wrong)}.".strip()
    if use.ran is not None and use.ran.path == "legacy":
        return "The data is right. The only symptom is time: NCCL took its slow path and said nothing."
    return EFFECTS.get(record.rule, "")
