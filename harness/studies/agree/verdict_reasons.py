"""Why the verdict on a variant may rightly be another one: named reasons, each of which has to show in the draws.

Invariant: a reason explains the rules that its cause can reach and no others. A new one needs a text in
`docs/decisions/studies.md`.
"""

from __future__ import annotations

from harness.oracle.case import Case
from harness.oracle.findings import (
    HalfRegistered,
    OffsetMismatch,
    OutOfBounds,
    PartlyRegistered,
    ResultOverwritten,
    SegmentMismatch,
    SlowPath,
    SourceChanged,
    Unregistered,
    WrongData,
    WrongOwner,
)
from harness.oracle.judge import judge
from harness.scenario.bases import CollectiveStep
from harness.scenario.steps import AllReduce
from harness.studies.agree.reasons import Disparity, Reason
from harness.trace.draw import Draw

DAMAGE = frozenset(rule.rule for rule in (OutOfBounds, ResultOverwritten, SourceChanged, WrongData))
"""Rules on what a call leaves behind."""
MISPLACED = frozenset(rule.rule for rule in (OffsetMismatch, SegmentMismatch, PartlyRegistered))
"""Rules on operands through which ranks reach memory that they do not mean."""
OWNERSHIP = frozenset(rule.rule for rule in (PartlyRegistered, Unregistered, WrongOwner))


def _races(disparity: Disparity) -> bool:
    return not disparity.repeats


def _misplaced(disparity: Disparity) -> bool:
    """Whether damage alone differs, after a call on a misplaced operand in both draws."""
    broken = [_first(draw, MISPLACED) for draw in (disparity.first, disparity.second)]
    return all(step is not None for step in broken) and _differ_in(disparity, DAMAGE)


def _window_ends(disparity: Disparity) -> bool:
    """Whether a call was split whose operand reaches past the end of its window, and ownership or damage differs."""
    is_split = disparity.fact == "split-calls"
    is_past = _first(disparity.first, frozenset({PartlyRegistered.rule})) is not None
    return is_split and is_past and _differ_in(disparity, OWNERSHIP | DAMAGE)


def _staged(disparity: Disparity) -> bool:
    """Whether a send was split of which NCCL stages the halves, and the whole was lost."""
    is_lost = _first(disparity.first, frozenset({HalfRegistered.rule})) is not None
    return disparity.fact == "split-calls" and is_lost and _differ_in(disparity, DAMAGE | {HalfRegistered.rule})


def _library_reduces(disparity: Disparity) -> bool:
    """Whether a plug-in makes calls in place of an all-reduce that the library made for it."""
    if disparity.fact != "compose-all-reduces":
        return False
    steps = disparity.first.scenario.steps
    wanted = {index for index, step in enumerate(steps) if isinstance(step, CollectiveStep) and step.via == "kernel"}
    uses = (use for history in Case(disparity.first).histories for use in history.uses)
    return any(
        use.step in wanted and use.called.kind == "all_reduce" and use.called.via == "library" for use in uses
    ) and _differ_in(disparity, DAMAGE)


def _averages(disparity: Disparity) -> bool:
    """Whether the path of an averaging all-reduce alone differs from that of the calls in its place."""
    if disparity.fact != "compose-all-reduces":
        return False
    steps = disparity.first.scenario.steps
    averaged = {index for index, step in enumerate(steps) if isinstance(step, AllReduce) and step.op == "avg"}
    return _differ_in(disparity, frozenset({SlowPath.rule})) and any(
        finding.rule == SlowPath.rule and finding.step in averaged for finding in judge(disparity.first)
    )


def _first(draw: Draw, rules: frozenset[str]) -> int | None:
    """The first step at which one of these rules was broken."""
    return min((each.step for each in judge(draw) if each.rule in rules), default=None)


def _differ_in(disparity: Disparity, rules: frozenset[str]) -> bool:
    return all(each.where.thing.split()[0] in rules for each in disparity.differences)


VERDICT_REASONS: tuple[Reason, ...] = (
    Reason(
        "verdict that does not repeat",
        "the two scenarios, run once more, did not differ in the same: a race, or an address that the driver chooses",
        _races,
    ),
    Reason(
        "damage by a misplaced operand",
        "a call on an operand at different places reaches other memory than it means; what lies there depends on sizes "
        "and addresses",
        _misplaced,
    ),
    Reason(
        "window ends inside the operand",
        "NCCL looks at an operand's start alone; the second half of a call may start behind the window in which the "
        "whole started",
        _window_ends,
    ),
    Reason(
        "half of a send is staged",
        "NCCL moves small sends through buffers of its own, whoever registered what; half of a large one may be small",
        _staged,
    ),
    Reason(
        "average of an all-reduce",
        "NCCL has symmetric kernels for the averages of reduce-scatters, and none for those of all-reduces",
        _averages,
    ),
    Reason(
        "all-reduce by the library",
        "a plug-in need not have an all-reduce; its reduce-scatter and all-gather are other code than the library's",
        _library_reduces,
    ),
)
