"""Rules on data: outputs are exact, and nothing beside them changes.

Rules: wrong-data, out-of-bounds.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case, ranks_text
from harness.oracle.findings import Finding, OutOfBounds, WrongData
from harness.oracle.history import History, Use
from harness.text import counted
from harness.trace.events import (
    Changed,
    Differs,
    Event,
    Mismatch,
    Origin,
    Overwritten,
    PadOverwritten,
    Replayed,
    Strayed,
    WorkspaceOverwritten,
)

Events = list[tuple[int, Event]]
"""With the step of each."""
BESIDE = {"front": "in front of its start", "guard": "behind its end", "fence": "beside the output view"}
ON_DATA = (Changed, Differs, Mismatch, Overwritten, Replayed, Strayed)
OWN = {"all_reduce": "in what every rank gets", "reduce": "in what the root gets"}
"""Where an element of a reduction lies, unless in a chunk of the rank's own."""
SURE = 24
"""Bits in a row that no wrong result has by chance."""
OF_A_PEER = (Changed, Differs, Mismatch)
"""Those that may follow from a peer that never came. No absence writes beside an output or moves memory."""


def judge(case: Case) -> Iterator[Finding]:
    seen = [(history, _on_data(case, history)) for history in case.histories]
    for history, events in seen:
        yield from _exact(case, history.rank, events)
    for uses in case.calls.values():
        yield from _unlike(case, uses)
    for history in case.histories:
        for step, event in history.beside():
            if isinstance(event, PadOverwritten):
                yield _beside_pad(case, history.rank, step, event)
            else:
                yield _beside_workspace(case, history.rank, step, event)
    for history, events in seen:  # after the exact data, which says more about the same call
        yield from _cross_checked(case, history.rank, events)


def _on_data(case: Case, history: History) -> Events:
    return [
        (step, event)
        for step, event in history.trace.steps()
        if isinstance(event, ON_DATA)
        and not (case.raised and isinstance(event, OF_A_PEER) and _is_left_alone(case, history.rank, step))
    ]


def _is_left_alone(case: Case, rank: int, step: int) -> bool:
    """Whether a member of the call at a step never came through it, as the system raised there or before."""
    members = (use.comm.group for use in case.histories[rank].uses if use.step == step)
    return any(case.raised.get(member, step + 1) <= step for group in members for member in group)


def _exact(case: Case, rank: int, events: Events) -> Iterator[Finding]:
    """Outputs that are not the exact result or did not stay, and canaries that changed."""
    captured: dict[int, int] = {}
    for step, event in events:
        match event:
            case Replayed():
                captured[step] = event.captured
            case Mismatch():
                yield _wrong(case, rank, step, event, captured.get(step, step))
            case Changed():
                yield _changed(case, rank, step, event)
            case Overwritten():
                yield _overwritten(case, rank, step, event)


def _unlike(case: Case, uses: list[Use]) -> Iterator[Finding]:
    """Ranks that hold different results of one all-reduce, each within the bound."""
    held = {use.rank: use.ran.alike for use in uses if use.ran is not None and use.ran.alike is not None}
    is_whole = len(held) == len(uses[0].comm.group)
    if is_whole and len({*held.values()}) > 1 and not any(_is_wrong(case, use) for use in uses):
        first, *_ = held
        others = tuple(rank for rank, word in held.items() if word != held[first])
        yield WrongData(
            f"{case.call(uses[0])}: {ranks_text(others)} {'holds' if len(others) == 1 else 'hold'} other bits than "
            f"rank {first}. Each lies within the bound of an average, and an all-reduce leaves the same on every rank; "
            f"{case.path(uses[0])}.",
            step=uses[0].step,
            ranks=others,
        )


def _is_wrong(case: Case, use: Use) -> bool:
    """Whether what a call left on this rank is wrong by itself, or the call was left alone there."""
    wrong = (step for step, event in case.histories[use.rank].trace.steps() if isinstance(event, Mismatch | Changed))
    return use.step in wrong or (bool(case.raised) and _is_left_alone(case, use.rank, use.step))


def _cross_checked(case: Case, rank: int, events: Events) -> Iterator[Finding]:
    """Stamps that were not found, and second runs that left other bits."""
    for step, event in events:
        match event:
            case Strayed():
                yield _strayed(case, rank, step, event)
            case Differs():
                yield _differs(case, rank, step, event)


def _use(case: Case, rank: int, step: int) -> Use:
    """What a rank saw of the call at a step."""
    return next(use for use in case.histories[rank].uses if use.step == step)


def _wrong(case: Case, rank: int, step: int, event: Mismatch, called: int) -> Finding:
    """`called` is the step of the call, which a replay runs again."""
    use = _use(case, rank, called)
    sender = use.comm.group[event.chunk]
    chunk = f"in rank {sender}'s chunk" if use.called.op is None else OWN.get(use.called.kind, "in its own chunk")
    where = f"output {event.buffer!r} of rank {rank} is wrong in {_part(event)}"
    return WrongData(
        f"{_replay(case, step, called)}{case.call(use)}: {where}, the first at index {event.index}, {chunk}: expected "
        f"{event.expected}, found {event.found}{_poison(use, event)}; {case.path(use)}."
        f"{_origin(case, use, event)}{case.taken(use, use.output)}",
        step=step,
        ranks=(rank,),
    )


def _part(event: Changed | Differs | Mismatch) -> str:
    """Such as `3 of 200 elements`."""
    return f"{event.elements} of {counted(event.of, 'element')}"


def _poison(use: Use, event: Mismatch) -> str:
    """A clause for what the harness itself had written."""
    # before a call an output holds all-ones bits, which no legal input has (`harness.rank.values.poison`)
    if not event.untouched:
        return ""
    width = 4 * len(event.found.rpartition("(0x")[2].rstrip(")"))
    if use.called.op is None:
        ways = ["it was not written", "poison was copied over it"]
        if event.expected.startswith("nan"):  # all ones is what some conversions make of any NaN
            ways.append("a conversion on the way gave the NaN other bits")
    else:
        ways = ["it was not written", "poison was taken for an input"]
        if event.untouched * width < SURE:
            ways.append("the wrong result has these bits by chance")
    return f", which the harness had put there before the call: {', or '.join(ways)}"


def origin_text(case: Case, use: Use, event: Mismatch) -> str:
    """What the wrong elements of a call are, as far as that is known: what they equal, or poison; empty if not."""
    poison = _poison(use, event).replace(", which", "The first wrong element holds what", 1)
    return _origin(case, use, event).strip() or poison


def _origin(case: Case, use: Use, event: Mismatch) -> str:
    """A sentence on what the wrong elements equal."""
    if (origin := event.origin) is None:
        return ""
    if origin.wrong == 1:
        which = "That element"
    elif origin.matched < origin.wrong:
        first = "first" if origin.matched == 1 else f"first {origin.matched}"
        which = f"The {first} of the {origin.wrong} wrong elements from there on"
    else:
        which = f"The {origin.wrong} wrong elements from there on"
    text = _zeros(case, use, event, origin) if origin.kind == "zeros" else _equal(case, use, origin)
    return f" {which} {text}."


def _zeros(case: Case, use: Use, event: Mismatch, origin: Origin) -> str:
    text = f"{'is' if origin.matched == 1 else 'are'} zero"
    if event.had_poison:
        text += ", and zeros were written there"
    if origin.ranks:
        text += f"; rank {origin.ranks[0]} {_puts(use, origin)} in zero there at {case.at_step(origin.step)}"
    return text


def _equal(case: Case, use: Use, origin: Origin) -> str:
    rank, at = origin.ranks[0] if origin.ranks else -1, case.at_step(origin.step)
    op = use.called.op
    equal = "equals" if origin.matched == 1 else "equal"
    match origin.kind:
        case "without":
            return f"{equal} the {op} without {ranks_text(origin.ranks)}"
        case "twice":
            return f"{equal} the {op} with rank {rank} counted twice"
        case "mixed":
            return f"{equal} the {op} with what rank {rank} {_puts(use, origin)} in at {at}"
        case "result":
            what = f"the result for rank {rank}"
        case _:
            what = f"what rank {rank}{_group(case, use, rank)} {_puts(use, origin)} in"
    when = "" if origin.step < 0 else f" at {at}"
    far = counted(abs(origin.shift), "element")
    shift = f", {far} {'further on' if origin.shift > 0 else 'before'}" if origin.shift else ""
    return f"{equal} {what}{when}{shift}"


def _puts(use: Use, origin: Origin) -> str:
    """The verb for this call, an earlier one, or one in which a peer is already."""
    if origin.step < 0:
        return "put"
    return "had put" if origin.step < use.step else "later puts"


def _group(case: Case, use: Use, rank: int) -> str:
    """Of a rank that takes no part in the call, where it belongs."""
    if rank in use.comm.group:
        return ""
    group = case.program.group_of(use.step, rank)
    return "" if group is None else f" of {case.name(group)}"


def _changed(case: Case, rank: int, step: int, event: Changed) -> Finding:
    use = _use(case, rank, step)
    return WrongData(
        f"{case.call(use)}: output {event.buffer!r} of rank {rank} changed after the call had returned, in "
        f"{_part(event)}, the first at index {event.index}: from {event.before} to "
        f"{event.after}. A peer still wrote there, so this rank left the call too early; {case.path(use)}.",
        step=step,
        ranks=(rank,),
    )


def _replay(case: Case, step: int, called: int) -> str:
    return "" if step == called else f"{case.at_step(step)} of "


def _overwritten(case: Case, rank: int, step: int, event: Overwritten) -> Finding:
    if event.where == "replay":
        return OutOfBounds(
            f"{counted(event.elements, 'element')} of {event.buffer!r} on rank {rank} changed during "
            f"{case.at_step(step)}, whose graph was not captured with it, the first at index {event.index}.",
            step=step,
            ranks=(rank,),
        )
    where = BESIDE[event.where]
    return OutOfBounds(
        f"{counted(event.elements, 'canary element')} of {event.buffer!r} on rank {rank}, {where}, had changed by "
        f"{case.at_step(step)}, the first at index {event.index}.",
        step=step,
        ranks=(rank,),
    )


def _beside_pad(case: Case, rank: int, step: int, event: PadOverwritten) -> Finding:
    whose, size = f"rank {rank}'s {event.pad} of {case.name(event.group)}", len(event.group.ranks)
    seen = f"had changed by {case.at_step(step)}"
    if 0 <= event.index < size:
        sender = event.group.ranks[event.index]
        what = f"word {event.index} of {whose} {seen}: rank {sender} had signalled there, and it holds {event.found}"
    else:
        many = counted(event.words, "word")
        what = f"{many} beside {whose} {seen}, the first at word {event.index}, which held {event.found}"
    explanation = f"{what}. The pad has words 0 to {size - 1}, one for each rank of its group."
    return OutOfBounds(explanation, step=step, ranks=(rank,))


def _beside_workspace(case: Case, rank: int, step: int, event: WorkspaceOverwritten) -> Finding:
    where = "in front of" if event.index < 0 else "behind"
    has = f"they have {event.nbytes // 4} words" if event.what == "flags" else f"it has {event.nbytes} bytes"
    whose = f"rank {rank}'s {event.what} of {case.name(event.group)}"
    return OutOfBounds(
        f"{counted(event.changed, 'byte')} {where} {whose} had changed by {case.at_step(step)}, the first at byte "
        f"{event.index}, where 0x{event.found} then lay; {has}.",
        step=step,
        ranks=(rank,),
    )


def _strayed(case: Case, rank: int, step: int, event: Strayed) -> Finding:
    return WrongData(
        f"before {case.at_step(step)} rank {rank} reached other memory than {event.buffer!r} of rank {event.peer} "
        f"through its peer pointer: the stamp that rank {event.peer} had written was not there, but {event.found}.",
        step=step,
        ranks=(rank,),
    )


def _differs(case: Case, rank: int, step: int, event: Differs) -> Finding:
    use = _use(case, rank, step)
    runs = "the symmetric and the legacy path" if event.is_by_path else "the call and a second run of it"
    return WrongData(
        f"{case.call(use)}: {runs} left different bits in {_part(event)} of {event.buffer!r} on rank {rank}, the "
        f"first at index {event.index}: {event.first} and {event.second}.",
        step=step,
        ranks=(rank,),
    )
