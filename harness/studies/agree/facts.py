"""What both substrates define alike, as plain data: one function a fact, and how two draws differ in one.

Invariant: a fact follows from a draw alone and holds no address, no time and no text of evidence, so
that equal behaviour gives equal data. Where a side cannot know a value it says None, and nothing is
compared there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from harness.oracle.case import Case, ranks_text
from harness.oracle.findings import OutOfBounds, Raised, ResultOverwritten
from harness.oracle.history import Use
from harness.oracle.judge import every
from harness.oracle.peers import peer_operands
from harness.oracle.sight import Sight
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import Awaited, Exhausted, Mismatch, Ran, Registered
from harness.trace.trace import TEARDOWN

ANYWHERE = -1
SOMEWHERE = "on some rank"
NOTHING = "nothing"
"""What stands for a side that has no value where the other has one."""


class Where(NamedTuple):
    """What a value is about: a step, a rank (each `ANYWHERE` if it is about none), and a thing."""

    step: int
    rank: int
    thing: str

    def __str__(self) -> str:
        step = "the end" if self.step >= TEARDOWN else f"step {self.step}"
        rank = "" if self.rank == ANYWHERE else f"rank {self.rank}"
        return ", ".join(filter(None, ("" if self.step == ANYWHERE else step, rank, self.thing)))


Facts = dict[Where, str | None]


class Difference(NamedTuple):
    """One value that two draws of a scenario do not share."""

    where: Where
    first: str
    second: str


def ownership(case: Case) -> Facts:
    """For each operand of each collective: the groups that have a live window over its start, and how far that goes."""
    return {
        Where(use.step, use.rank, name): _owners(use, sight)
        for use in _uses(case)
        for name, sight in (("source", use.source), ("output", use.output))
    }


def _owners(use: Use, sight: Sight) -> str:
    windows = [*sight.others, *([sight.window] if sight.window else [])]
    end = sight.operand.address + sight.operand.size
    whole = {window.comm.id for window in windows if window.end >= end}
    groups = sorted({window.comm.id for window in windows})
    owners = [f"{_shown(group)} {'whole' if group in whole else 'in part'}" for group in groups]
    return " and ".join(owners) or "no group"


def _shown(group: GroupId) -> str:
    """Such as `[0, 1]`, or `[0, 1] (1)` for the second communicator over these ranks."""
    return f"{list(group.ranks)}{f' ({group.number})' if group.number else ''}"


def place(case: Case) -> Facts:
    """Where the operand lies through which ranks reach each other."""
    facts: Facts = {}
    for use in _uses(case):
        for role in peer_operands(use.called.kind, use.called.via):
            found = use.sight(role).place
            nowhere = "declined by the policy" if case.is_declined(use, role) else "no window"
            shown = nowhere if found is None else f"window {found[0]} + {found[1]} bytes"
            facts[Where(use.step, use.rank, role)] = shown
    return facts


def registrations(case: Case) -> Facts:
    """What each communicator registered, in order."""
    return {
        Where(
            ANYWHERE,
            history.rank,
            f"{_shown(window.comm.id)}#{window.comm.generation} registration {window.ordinal}",
        ): f"{window.event.size} bytes{_without(window.event)}"
        for history in case.histories
        for window in history.windows.values()
    }


def _without(event: Registered) -> str:
    if event.is_null:
        return " without a window"
    return "" if event.is_symmetric else " without the symmetric flag"


def path(case: Case) -> Facts:
    """Which way each collective had to go; None where nothing shows it, or NCCL chose."""
    return {Where(use.step, use.rank, "path"): _had_to_take(use.ran) for use in _uses(case)}


def _had_to_take(ran: Ran | None) -> str | None:
    return None if ran is None or ran.path == "unknown" or ran.is_free else ran.path


def data(case: Case) -> Facts:
    """What each output held; None in a world without digests. The bytes of a wrong one may differ from run to run, so
    it is only `wrong`."""
    facts: Facts = {
        Where(use.step, use.rank, "output"): None if use.ran.digest is None else f"crc32 {use.ran.digest:08x}"
        for use in _uses(case)
        if use.ran is not None
    }
    for history in case.histories:
        for step, event in history.trace.steps():
            if isinstance(event, Awaited) and event.digest is not None:
                facts[Where(step, history.rank, "output")] = f"crc32 {event.digest:08x}"
            elif isinstance(event, Mismatch):
                facts[Where(step, history.rank, "output")] = "wrong"
    return facts


def findings(case: Case) -> Facts:
    """The broken rules, with where they show; None for a rule that one of the substrates may not have looked at."""
    ranks: dict[Where, set[int]] = {}
    for each in every(case):
        ranks.setdefault(Where(each.step, ANYWHERE, each.key), set()).update(each.ranks)
    # GPUs compare memory around the calls of some draws; the simulation does in all, and may find more, or earlier
    unsure = set() if case.program.is_watched else {OutOfBounds.rule, ResultOverwritten.rule}
    return {where: None if where.thing in unsure else _ranks(those) for where, those in ranks.items()}


def broken_rules(case: Case) -> Facts:
    """The broken rules of a draw that ended early. Where each rank then stood is a matter of time, and left out; so is
    how many of them still raised, once one had."""
    ranks: dict[str, set[int]] = {}
    for each in every(case):
        ranks.setdefault(each.key, set()).update(() if isinstance(each, Raised) else each.ranks)
    return {Where(ANYWHERE, ANYWHERE, key): _ranks(those) if those else SOMEWHERE for key, those in ranks.items()}


def _ranks(ranks: Iterable[int]) -> str:
    return ranks_text(tuple(sorted(ranks)))


def exhausted(case: Case) -> Facts:
    """Who was refused memory, and when."""
    return {
        Where(step, history.rank, event.buffer): "refused"
        for history in case.histories
        for step, event in history.trace.steps()
        if isinstance(event, Exhausted)
    }


def _uses(case: Case) -> Iterator[Use]:
    return (use for history in case.histories for use in history.uses)


FACTS: dict[str, Callable[[Case], Facts]] = {
    fact.__name__: fact for fact in (ownership, place, registrations, path, data, findings, exhausted)
}
"""Every fact by its name, causes before consequences as far as there are such."""


def differences(fact: str, first: Case, second: Case) -> tuple[Difference, ...] | None:
    """In what two draws of one scenario differ; None where they cannot be compared in this fact.

    Draws of which one ended early are compared in their broken rules alone.
    """
    if first.is_clean and second.is_clean:
        here, there = FACTS[fact](first), FACTS[fact](second)
    elif fact == "findings":
        here, there = broken_rules(first), broken_rules(second)
    else:
        return None
    return between(here, there)


def between(here: Facts, there: Facts) -> tuple[Difference, ...] | None:
    """In what two sides differ; None where nothing is known of both."""
    pairs = {where: (here.get(where, NOTHING), there.get(where, NOTHING)) for where in here | there}
    known = [Difference(where, a, b) for where, (a, b) in sorted(pairs.items()) if a is not None and b is not None]
    return None if pairs and not known else tuple(each for each in known if each.first != each.second)
