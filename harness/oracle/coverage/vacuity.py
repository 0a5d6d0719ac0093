"""Why a draw or a recording tested nothing, and what to change.

Invariant: a draw that tested something has no reason. One that tested nothing has exactly one: that of the call which
came nearest to testing.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.oracle.case import Case
from harness.oracle.history import Use
from harness.oracle.rules import ownership
from harness.trace.events import Skipped

ADVICE = {
    "not owned": "no operand lay in a window of its communicator on every rank; look how the pool registers, or name "
    "another --pool",
    "declined": "the pool wanted none of the buffers; let its wants() take the sizes that are drawn",
    "no windows": "every group spans NVLink domains; draw on fewer --nodes, or in a larger --nvlink-domain",
    "plain memory": "every operand lay in ordinary memory; let steps allocate with role window",
    "uneven calls": "counts differed in every call, and no such call is symmetric; draw a --flow with --tokens padded",
    "no peer operand": "no call reaches its peers through windows; draw other kinds of calls",
    "not returned": "no call returned on every rank; see what raised or refused",
    "groups of one rank": "every call ran in a group of one rank; draw a larger --world, or another topology",
    "no memory": "buffers could not be allocated, so no call ran; draw smaller programs, or give more memory",
    "no collective": "the program has no collective; draw longer programs, or a --flow",
    "equal by mistake": "sizes that were meant to differ were equal; draw more tokens or ranks",
}
"""What to change, by reason. A call nearer to the head came nearer to testing something."""


def reason(case: Case) -> str:
    """Why nothing was tested: one of `ADVICE`, or empty where something was."""
    if case.program.is_even_by_mistake:
        return "equal by mistake"
    reasons = {_reason(case, group, uses) for (_, group), uses in case.calls.items()}
    if "" in reasons:
        return ""
    if not reasons:
        skipped = any(isinstance(event, Skipped) for trace in case.seen.traces for _, event in trace.steps())
        return "no memory" if skipped else "no collective"
    return min(reasons, key=[*ADVICE].index)


def _reason(case: Case, group: Sequence[int], uses: list[Use]) -> str:
    """Why a call tested nothing, or empty: an owned buffer, in a group larger than one, and a return on every rank."""
    if len(group) < 2:
        return "groups of one rank"
    if len(uses) < len(group) or not all(use.ran for use in uses):
        return "not returned"
    return "" if ownership.is_owned(case, uses) else _not_owned(case, uses)


def _not_owned(case: Case, uses: list[Use]) -> str:
    roles = case.peer_roles(uses)
    if not roles or uses[0].called.is_uneven:
        return "uneven calls" if roles else "no peer operand"
    if any(case.is_declined(use, role) for use in uses for role in roles):
        return "declined"
    if any(role not in use.called.meant for use in uses for role in roles):
        return "plain memory"
    return "not owned" if uses[0].comm.has_windows else "no windows"
