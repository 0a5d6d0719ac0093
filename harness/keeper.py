"""Keeps failing scenarios: for each rule the smallest so far, as one seed file that shrinks with it.

Invariant: when `keep` returns, the scenario is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness import seeds
from harness.findings import Finding, Record
from harness.program import Scenario


class Found(msgspec.Struct, frozen=True):
    """A broken rule: its smallest scenario, where that is saved, and after how many draws it was first seen."""

    finding: Record
    scenario: Scenario
    seed_file: str
    draws_to_find: int
    leads: bool = True
    """Whether it is the first of the scenario's findings, and so not the consequence of another."""

    @property
    def size(self) -> tuple[int, int, int]:
        """What shrinking makes small: ranks, steps, and the length of it all."""
        return self.scenario.world, len(self.scenario.steps), len(msgspec.json.encode(self.scenario))


class Keeper:
    """Writes seed files into `folder`. `environment` is saved with each."""

    def __init__(self, folder: Path, environment: dict[str, Any]) -> None:
        self._folder, self._environment = folder, environment
        self.found: dict[str, Found] = {}

    def keep(self, scenario: Scenario, first: Finding, findings: Sequence[Finding], draws: int = 0) -> Found:
        """Save the scenario if it is the smallest that breaks `first`'s rule; returns what is kept. A rule that came
        first in `findings` stays first: a scenario that breaks another before it is another failure."""
        known = self.found.get(first.rule)
        leads = first.rule == findings[0].rule
        path = known.seed_file if known else str(self._folder / seeds.name_for(first.rule, scenario))
        found = Found(first.record(), scenario, path, known.draws_to_find if known else draws, leads)
        if known is not None and (not known.leads, known.size) < (not leads, found.size):
            return known
        records = tuple(finding.record() for finding in findings)
        seeds.save(seeds.Seed(seeds.SCHEMA, scenario, records, self._environment), Path(path))
        self.found[first.rule] = found
        return found
