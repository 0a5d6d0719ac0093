"""Judging a draw or a recording: every rule is asked, and the findings come with causes before consequences.

Invariant: a verdict follows from what was seen alone; there is no I/O, and only the parent judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.oracle.case import Case
from harness.oracle.coverage import vacuity
from harness.oracle.findings import Finding, ordered
from harness.oracle.program import Seen
from harness.oracle.rules import (
    addresses,
    capture,
    data,
    fate,
    lifetime,
    memory,
    ownership,
    path,
    point_to_point,
    race,
    registration,
    results,
    skew,
)

JUDGES = (
    fate.judge,
    lifetime.judge,
    skew.judge,
    registration.judge,
    capture.judge,
    ownership.judge,
    path.judge,
    point_to_point.judge,
    race.judge,
    results.judge,
    addresses.judge,
    memory.judge,  # before the canaries of `data`, as it says more about the same change
    data.judge,
)


@dataclass(frozen=True)
class Verdict:
    """The outcome: the broken rules, causes before consequences, and why it tested nothing if it did."""

    findings: list[Finding]
    vacuous: str = ""
    """Why it tested nothing (`harness.oracle.coverage.vacuity`); empty where it tested something."""

    @property
    def is_vacuous(self) -> bool:
        """Whether it tested nothing."""
        return bool(self.vacuous)


def examine(seen: Seen) -> Verdict:
    """Judge a draw or a recording by every rule."""
    return examine_case(Case(seen))


def examine_case(case: Case) -> Verdict:
    """The same, where its case is there already."""
    return Verdict(ordered([*every(case)]), vacuity.reason(case))


def every(case: Case) -> Iterator[Finding]:
    """Every finding of every rule, several of a rule and step where several ranks show it."""
    return (finding for rules in JUDGES for finding in rules(case))


def judge(seen: Seen) -> list[Finding]:
    """Every broken rule of a draw or a recording, causes before consequences."""
    return examine(seen).findings


def is_vacuous(seen: Seen) -> bool:
    """Whether it tested nothing: no collective over an owned buffer of a group larger than one, or
    sizes that were meant to differ and did not."""
    return bool(vacuity.reason(Case(seen)))
