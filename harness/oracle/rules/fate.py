"""Rules on the ranks themselves: they neither die nor wait for ever, and the system under test raises nothing on them.
The fates come from the parent (`world.watch`).

Rules: rank-crash, raised, hang.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.oracle.case import Case, ranks_text
from harness.oracle.explanation import explain
from harness.oracle.findings import PRINTED, RAISED, TRACEBACK, Finding, Hang, Raised, RankCrash, StackRecord
from harness.trace.draw import Fate
from harness.trace.events import PadOverwritten, WorkspaceOverwritten
from harness.trace.raising import Raising

LINES = 12
"""Of what a rank printed."""
FATAL = re.compile(r"^Fatal Python error: .*\n(?:.+\n)?\n(?:Current t|T)hread 0x", re.MULTILINE)
"""How that begins what Python writes when a signal kills it. A plug-in's own traceback or dump of threads does not."""

FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
LIBRARIES = re.compile(
    r"^<frozen |/(?:site|dist)-packages/(?:numpy|torch|triton)/|/lib/python3\.\d+/(?!(?:site|dist)-packages/)"
    r"|/harness/substrate/sim/(?:spins|schedules/interpreted)\.py$"
)
"""Files of what runs a plug-in's code, as Triton's interpreter does and what stands before it, and of Python's own
library."""
ENTRY = "rank/main.py"
"""The file in which a rank begins, behind the folder of the harness."""


def judge(case: Case) -> Iterator[Finding]:
    for fate in case.seen.fates:
        if fate.state == "crashed":
            how = fate.how or "ended"
            yield RankCrash(
                f"rank {fate.rank} {how} at {_stands(case, fate.rank)}{_last_frame(fate)}.",
                step=_step(case, fate.rank),
                ranks=(fate.rank,),
                stacks=tuple(_printed(fate)),
            )
    yield from _raised(case)
    hung = tuple(fate.rank for fate in case.seen.fates if fate.state == "hung")
    if hung:
        yield _hang(case, hung)


def _raised(case: Case) -> Iterator[Finding]:
    """One finding for each exception and place, with all ranks that raised it."""
    same: dict[str, dict[int, Raising]] = {}
    for fate in case.seen.fates:
        if fate.raising is not None:
            cause = f"{fate.raising.kind}{_at_place(fate.raising)}"
            same.setdefault(cause, {})[fate.rank] = fate.raising
    for cause, raised in same.items():
        ranks, (rank, raising) = tuple(raised), next(iter(raised.items()))
        yield Raised.by(cause)(
            f"{raising.where} {case.program.name_of(raising.where)!r} raised {raising.text}{_at_place(raising)} on "
            f"{ranks_text(ranks)} at {_stands(case, rank)}.",
            step=min(_step(case, each) for each in ranks),
            ranks=ranks,
            stacks=(
                StackRecord(rank, RAISED, tuple(map(str, raising.own))),
                StackRecord(rank, TRACEBACK, raising.traceback),
            ),
        )


def _at_place(raising: Raising) -> str:
    """The innermost frame of the system under test, if there is one."""
    return f" in {raising.own[0].short}" if raising.own else ""


def _hang(case: Case, hung: tuple[int, ...]) -> Hang:
    """The smallest explanation first, then who waits for whom, then where every rank stood."""
    found = explain(case)
    after = f"after {case.seen.seconds:.1f} s " if case.seen.seconds else ""
    stood = f"{after}{ranks_text(hung)} had not finished: {_everyone(case)}."
    refusals = case.refusals(rank for rank in range(len(case.histories)) if rank not in found.refused)
    refusals += case.declines() + _pads(case)
    return Hang(
        f"{found.text} {stood[:1].upper()}{stood[1:]}{refusals}" if found.text else f"{stood}{refusals}",
        step=min(_step(case, rank) for rank in hung),
        ranks=hung,
        stacks=tuple(
            StackRecord(fate.rank, fate.witness, tuple(fate.stack.splitlines()))
            for fate in case.seen.fates
            if fate.stack
        ),
    )


def _pads(case: Case) -> str:
    """A sentence on the ranks whose pads were written over, so that they may wait for signals that are gone."""
    pads = {
        f"the {_beside_what(event)} of {case.name(event.group)} on rank {history.rank}": None
        for history in case.histories
        for _, event in history.beside()
    }
    return f" Something wrote over or beside {' and '.join(pads)} before, so signals may be lost." if pads else ""


def _beside_what(event: PadOverwritten | WorkspaceOverwritten) -> str:
    return event.pad if isinstance(event, PadOverwritten) else event.what


def _printed(fate: Fate) -> Iterator[StackRecord]:
    """The last of what a rank printed before it died, without what Python adds to that."""
    own = _by_itself_and_by_python(fate)[0].splitlines()
    if any(line not in ("stdout:", "stderr:") for line in own):
        yield StackRecord(fate.rank, PRINTED, tuple(own[-LINES:]))


def _last_frame(fate: Fate) -> str:
    """The innermost line of the system under test, else of Python, if the rank could still write it when it died."""
    _, _, dump = _by_itself_and_by_python(fate)[1].partition("\nCurrent thread ")
    frames = FRAME.findall(dump.partition("\n\n")[0])
    ours = next((file.removesuffix(ENTRY) for file, _, _ in reversed(frames) if file.endswith(ENTRY)), None)
    theirs = [frame for frame in frames if not LIBRARIES.search(frame[0])]
    own = [frame for frame in theirs if ours is None or not frame[0].startswith(ours)]
    for file, line, name in (own or theirs or frames)[:1]:
        return f", in {name} ({file.rpartition('/')[2]}:{line})"
    return ""


def _by_itself_and_by_python(fate: Fate) -> tuple[str, str]:
    """What a rank printed, and what Python added when it died."""
    begins = [found.start() for found in FATAL.finditer(fate.printed)]
    end = begins[-1] if begins else len(fate.printed)
    return fate.printed[:end], fate.printed[end:]


def _step(case: Case, rank: int) -> int:
    return case.histories[rank].trace.last_step


def _everyone(case: Case) -> str:
    """Where every rank stood, ranks at the same place together."""
    places: dict[str, list[int]] = {}
    for fate in case.seen.fates:
        place = "done" if fate.state == "finished" else f"at {_stands(case, fate.rank)}"
        places.setdefault(place, []).append(fate.rank)
    return "; ".join(f"{ranks_text(tuple(ranks))} {place}" for place, ranks in places.items())


def _stands(case: Case, rank: int) -> str:
    history = case.histories[rank]
    step, blocked = case.at_step(history.trace.last_step), history.trace.blocked_in
    if blocked is None:
        return step
    return f"{step} in {blocked.call} of {case.name(history.comms[blocked.comm].id)}"
