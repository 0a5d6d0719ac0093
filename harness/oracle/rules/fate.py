"""Rules on the ranks themselves: they neither die nor wait for ever. The fates come from the parent (`world.watch`).

Rules: rank-crash, hang.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from harness.oracle.case import Case, ranks_text
from harness.oracle.explanation import explain
from harness.oracle.findings import PRINTED, Finding, Hang, RankCrash, StackRecord
from harness.trace.draw import Fate

LINES = 12
"""Of what a rank printed."""
PYTHONS = ("Fatal Python error", "Current thread 0x", "Thread 0x", '  File "', "Extension modules:")
"""How the lines begin that Python's faulthandler writes when a signal kills the process."""


def judge(case: Case) -> Iterator[Finding]:
    for fate in case.draw.fates:
        if fate.state == "crashed":
            how = fate.how.splitlines()[0] if fate.how else "ended"
            yield RankCrash(
                f"rank {fate.rank} {how} at {_stands(case, fate.rank)}{_last_frame(fate)}.",
                step=_step(case, fate.rank),
                ranks=(fate.rank,),
                stacks=tuple(_printed(fate)),
            )
    hung = tuple(fate.rank for fate in case.draw.fates if fate.state == "hung")
    if hung:
        yield _hang(case, hung)


def _hang(case: Case, hung: tuple[int, ...]) -> Hang:
    """The smallest explanation first, then who waits for whom, then where every rank stood."""
    found = explain(case)
    stood = f"{ranks_text(hung)} made no progress: {_everyone(case)}."
    seconds = f"after {case.draw.seconds:.1f} s"
    refusals = case.refusals(rank for rank in range(len(case.histories)) if rank not in found.refused)
    return Hang(
        f"{found.text} {seconds.capitalize()} {stood}{refusals}" if found.text else f"{seconds} {stood}{refusals}",
        step=min(_step(case, rank) for rank in hung),
        ranks=hung,
        stacks=tuple(
            StackRecord(fate.rank, fate.witness, tuple(fate.stack.splitlines()))
            for fate in case.draw.fates
            if fate.stack
        ),
    )


def _printed(fate: Fate) -> Iterator[StackRecord]:
    """The last of what a rank printed before it died, without what Python adds to that."""
    lines = fate.how.splitlines()[1:]
    own = [*takewhile(lambda line: not line.startswith(PYTHONS), lines)]
    if any(line not in ("stdout:", "stderr:") for line in own):
        yield StackRecord(fate.rank, PRINTED, tuple(own[-LINES:]))


def _last_frame(fate: Fate) -> str:
    """The innermost line of Python, if the rank could still write it when it died."""
    frame = re.search(r'^Current thread .*\n  File "(?:.*/)?(.+)", line (\d+) in (.+)$', fate.how, re.MULTILINE)
    return f", in {frame[3]} ({frame[1]}:{frame[2]})" if frame else ""


def _step(case: Case, rank: int) -> int:
    return case.histories[rank].trace.last_step


def _everyone(case: Case) -> str:
    """Where every rank stood, ranks at the same place together."""
    places: dict[str, list[int]] = {}
    for fate in case.draw.fates:
        place = "done" if fate.state == "finished" else f"at {_stands(case, fate.rank)}"
        places.setdefault(place, []).append(fate.rank)
    return "; ".join(f"{ranks_text(tuple(ranks))} {place}" for place, ranks in places.items())


def _stands(case: Case, rank: int) -> str:
    history = case.histories[rank]
    step, blocked = case.at_step(history.trace.last_step), history.trace.blocked_in
    if blocked is None:
        return step
    return f"{step} in {blocked.call} of {case.name(history.comms[blocked.comm].group)}"
