"""The findings that a campaign need not look for: those that it has, and those that its user knows.

Invariant: a draw counts as one of them only if it has the symptom of one, every trait of its smallest case, and the
parts of the system that go into its signature. So a second bug of one rule is met, unless all its draws look like the
first. A case that was not shrunk to its end has traits that a smaller one has not: then the symptom alone counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from harness.campaign.signatures import part, parts, signature
from harness.campaign.symptoms import OF_LAYOUTS, Symptom, symptom, traits
from harness.oracle.findings import Finding, Record
from harness.scenario.scenario import Scenario
from harness.scenario.system import System

MOST = 4
"""Findings of one symptom and system. A draw that is none of so many counts as the last: it may be a bug that shows in
ever other ways."""


class Settled(msgspec.Struct):
    """A finding by its smallest case. `key` is what the campaign has it by; empty for one that the user knows."""

    signature: str
    key: str
    system: System
    parts: tuple[str, ...]
    """Of the system, those that the finding is about."""
    traits: frozenset[str]
    symptoms: set[Symptom]
    is_smallest: bool = True
    draws: int = 0
    """Draws in which it was met since it is settled."""

    @staticmethod
    def of(
        findings: Sequence[Finding | Record],
        scenario: Scenario,
        key: str = "",
        noted: Sequence[str] = (),
        is_smallest: bool = True,
    ) -> Settled:
        """The finding of a smallest case. What else is found there follows from it, so that it is settled too. `noted`:
        further symptoms that were seen to shrink to it."""
        symptoms = {symptom(findings, number, scenario) for number in range(len(findings))}
        symptoms |= {Symptom.read(each) for each in noted}
        return Settled(
            signature(findings, scenario),
            key,
            scenario.system,
            parts(findings[0], scenario),
            traits(findings[0], scenario),
            symptoms,
            is_smallest,
        )

    @property
    def noted(self) -> tuple[str, ...]:
        """Its symptoms as text, in one order."""
        return tuple(sorted(map(str, self.symptoms)))

    def is_on(self, system: System) -> bool:
        """Whether a system has the parts that the finding is about."""
        return part(self.system, self.parts) == part(system, self.parts)


class Settlement:
    """All that is settled."""

    def __init__(self, known: Sequence[Settled] = ()) -> None:
        self._all = [*known]

    def __iter__(self) -> Iterator[Settled]:
        return iter(self._all)

    @property
    def has_hangs(self) -> bool:
        """Whether draws may hang of what is settled."""
        return any(seen.shown.startswith("hang") for each in self._all for seen in each.symptoms)

    def add(self, settled: Settled) -> None:
        self._all.append(settled)

    def remove(self, settled: Settled) -> None:
        self._all.remove(settled)

    def twin(self, settled: Settled) -> Settled | None:
        """The one of that signature, if there is one."""
        return next((each for each in self._all if each.signature == settled.signature), None)

    def larger(self, settled: Settled) -> Iterator[Settled]:
        """Those whose smallest case has all that this one has, and more of its layout alone: that depends on the
        layouts that were tried."""
        for each in self if settled.is_smallest else ():
            if (
                each.traits - settled.traits <= OF_LAYOUTS
                and each.parts == settled.parts
                and each.is_on(settled.system)
                and settled.traits < each.traits
                and settled.symptoms & each.symptoms
            ):
                yield each

    def of(self, seen: Symptom, record: Finding | Record, scenario: Scenario) -> Settled | None:
        """The one that a finding of a draw may be, if there is one."""
        alike = [each for each in self._all if seen in each.symptoms and each.is_on(scenario.system)]
        if not alike:
            return None
        here = traits(record, scenario)
        same = (each for each in alike if not each.is_smallest or each.traits <= here)
        return next(same, alike[-1] if len(alike) >= MOST else None)
