"""The text of a hang: its smallest explanation, then who else waits for whom.

Such as "rank 3 registers for attn_cp[1,3] while ranks 0–2 wait in register of tp[0,1,2,3]." The first
part is the root, what the ranks do that others wait for. Ranks in one situation share a clause.

Invariant: the text holds only where ranks stood, and which memory they were refused before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.oracle.case import Case, ranks_text
from harness.oracle.waits import AtEnd, AtStep, InCall, Ranks, Situation, Waits
from harness.trace.trace import TEARDOWN


@dataclass(frozen=True)
class Explanation:
    """The explanation of a hang. `text` is empty where the traces show no rank that waits for another."""

    text: str = ""
    refused: Ranks = ()
    """The ranks that it names as refused memory."""


@dataclass(frozen=True)
class _Root:
    """The end of a chain: what `ranks` do that the situations in `waiting` wait for."""

    doing: Situation
    ranks: Ranks
    refusal: str
    waiting: tuple[Situation, ...]


def explain(case: Case) -> Explanation:
    """The smallest explanation of a hang, and who else waits, as sentences."""
    waits = Waits(case)
    roots = [_root(case, waits, situations) for situations in waits.roots()]
    if not roots:
        return Explanation()
    root = min(roots, key=lambda root: _weight(case, waits, root))
    first = _doing(case, waits, root) + _while(case, waits, root)
    others = "; ".join(_others(case, waits, root))
    text = f"{first}. {_capital(others)}." if others else f"{first}."
    return Explanation(text, root.ranks if root.refusal else ())


def _root(case: Case, waits: Waits, situations: tuple[Situation, ...]) -> _Root:
    """Of a cycle, the situation of fewest ranks. Of ranks in no call, those awaited; and of all, first those that
    were refused memory before anyone waited."""
    if all(waits.awaited(situation) for situation in situations):
        situations = tuple(sorted(situations, key=lambda situation: len(waits.ranks(situation))))
    doing, *waiting = situations
    ranks, until = waits.ranks(doing), TEARDOWN
    if waiting:
        awaited = {rank for situation in waiting for rank in waits.awaited(situation)}
        ranks = ranks if isinstance(doing, InCall) else tuple(rank for rank in ranks if rank in awaited)
        until = max(_step(case, waits, situation) for situation in waiting)
    refusals = {rank: case.refused(rank, until) for rank in ranks}
    refusal = next(filter(None, refusals.values()), "")
    return _Root(doing, tuple(rank for rank in ranks if refusals[rank] == refusal or not refusal), refusal, (*waiting,))


def _step(case: Case, waits: Waits, situation: Situation) -> int:
    """The furthest step at which a rank is in a situation."""
    return max(case.histories[rank].trace.last_step for rank in waits.ranks(situation))


def _weight(case: Case, waits: Waits, root: _Root) -> tuple[bool, int, int, int]:
    """Which root comes first: refused memory, then few ranks, then early steps, then low ranks."""
    named = [*root.ranks, *(rank for situation in root.waiting for rank in waits.ranks(situation))]
    return not root.refusal, len(named), min(case.histories[rank].trace.last_step for rank in named), min(named)


def _doing(case: Case, waits: Waits, root: _Root) -> str:
    """Such as `rank 3 registers for attn_cp[1,3]`."""
    who = ranks_text(root.ranks)
    if root.refusal:
        who += f" {root.refusal} and"
    many = len(root.ranks) > 1
    is_, has = ("are", "have") if many else ("is", "has")
    match root.doing:
        case AtEnd():
            return f"{who} {has} {case.program.done}"
        case AtStep(step):
            return f"{who} {is_} still {'giving everything back' if step >= TEARDOWN else f'at {case.at_step(step)}'}"
        case InCall() as call if not waits.awaited(call):
            return f"{who} {is_} still in {_call(case, call)}, which {_out(case, waits, call)}"
        case InCall(call="register", group=group):
            return f"{who} register{'' if many else 's'} for {case.name(group)}"
    return f"{who} {is_} in {_call(case, root.doing)}"


def _out(case: Case, waits: Waits, call: InCall) -> str:
    """What became of a call that every member has entered."""
    left = waits.left(call)
    if strays := tuple(rank for rank in left if _is_by_library(case, waits, call, rank)):
        makes = "make" if len(strays) > 1 else "makes"
        return f"{ranks_text(strays)} {makes} by the library instead, so that one call goes two ways"
    return f"{ranks_text(left)} {'have' if len(left) > 1 else 'has'} left" if left else "every one of its ranks entered"


def _is_by_library(case: Case, waits: Waits, call: InCall, rank: int) -> bool:
    """Whether a rank that entered a kernel's call is in the library's own, at the same step."""
    other = waits.of(rank)
    is_own = isinstance(other, InCall) and (f"{other.call} kernel", other.group) == (call.call, call.group)
    return is_own and case.histories[rank].trace.last_step == _step(case, waits, call)


def _while(case: Case, waits: Waits, root: _Root) -> str:
    clauses = [_waiting(case, waits.ranks(situation), situation) for situation in root.waiting]
    return f" while {' and '.join(clauses)}" if clauses else ""


def _waiting(case: Case, ranks: Ranks, situation: Situation, awaited: Ranks = ()) -> str:
    """Such as `ranks 0–2 wait in register of tp[0,1,2,3]`; with `awaited`, for whom."""
    whom = f" for {ranks_text(awaited)}" if awaited else ""
    return f"{ranks_text(ranks)} wait{'' if len(ranks) > 1 else 's'}{whom} {_place(case, situation)}"


def _others(case: Case, waits: Waits, root: _Root) -> Iterator[str]:
    """The calls that are no part of the root, with the ranks they wait for."""
    for situation in waits.situations:
        awaited = waits.awaited(situation)
        if situation not in (root.doing, *root.waiting) and awaited:
            yield _waiting(case, waits.ranks(situation), situation, awaited)


def _place(case: Case, situation: Situation) -> str:
    return f"in {_call(case, situation)}" if isinstance(situation, InCall) else "at the end"


def _call(case: Case, call: InCall) -> str:
    return f"{call.call} of {case.name(call.group)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
