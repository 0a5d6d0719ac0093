"""Keeps failing scenarios: of each finding, which is a symptom at first, the smallest so far, in a seed file.

Invariant: when `keep` returns, the scenario is on disk. Where it cannot be written, what was found is noted all the
same, without a file, and the reason is raised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import SCHEMA, Reruns, Seed, SeedFile
from harness.campaign.settled import Settled
from harness.campaign.symptoms import Symptom, shown, symptom
from harness.errors import PluginError, UsageError
from harness.oracle.findings import Finding, Record
from harness.scenario.scenario import Scenario

Shrunk = Literal["smallest", "race", "time", "unfinished"]
"""How shrinking ended: nothing smaller fails; unknown, since the case itself fails in some runs only; time was up; or
something ended it before."""


class Found(msgspec.Struct, frozen=True):
    """A broken rule: its smallest scenario, where that is saved, and after how many draws it was first seen."""

    finding: Record
    scenario: Scenario
    seed_file: str
    draws_to_find: int
    found_at: tuple[int, int]
    """Ranks and steps of the scenario in which it was first seen."""
    is_leading: bool = True
    """Whether its rule is the first of the scenario's findings, and so not the consequence of another."""
    shrunk: Shrunk = "unfinished"
    costs_ranks: bool = False
    """Whether its run left no rank alive, so that each further run of it had fresh ones."""
    reruns: Reruns | None = None
    """How often it failed on fresh ranks; None where that was not tried."""
    printed: tuple[str, ...] = ()
    """The end of what each rank printed in it. No seed file holds that."""
    signature: str = ""
    """Of the smallest case; empty until shrinking has ended."""

    @property
    def size(self) -> tuple[int, int, int]:
        """What shrinking makes small: ranks, steps, and the length of it all."""
        return *_size(self.scenario), len(msgspec.json.encode(self.scenario))

    def again(self, findings: Sequence[Finding], scenario: Scenario) -> Finding | None:
        """Of the findings of another scenario's run the one that has this symptom; the rule of one that led has to be
        the first there."""
        if self.is_leading and findings and findings[0].rule != self.finding.rule:
            return None
        own = shown(self.finding, self.scenario)
        return next((finding for finding in findings if shown(finding, scenario) == own), None)


def _size(scenario: Scenario) -> tuple[int, int]:
    return scenario.world, len(scenario.steps)


class Keeper:
    """Writes seed files into `folder`. `environment` is saved with each."""

    def __init__(self, folder: Path, environment: dict[str, Any]) -> None:
        self._folder, self._environment = folder, environment
        self._files: dict[str, SeedFile] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        """By error, the length of the scenario that is kept, and its file."""
        self._reasons: dict[str, tuple[Finding, ...]] = {}
        """All findings of the draw that is kept, by the same keys as `found`."""
        self._noted: dict[str, dict[str, Any]] = {}
        """What else the file says, by the same keys."""
        self.found: dict[str, Found] = {}
        """By symptom, with a number where there are several of one (`harness.campaign.symptoms.shown`)."""

    def keep(
        self,
        scenario: Scenario,
        first: Finding,
        findings: Sequence[Finding],
        draws: int = 0,
        printed: tuple[str, ...] = (),
        *,
        costs_ranks: bool = False,
        anyway: bool = False,
        key: str = "",
    ) -> Found:
        """Save the scenario if it is the smallest of `key`, or `anyway`; returns what is kept. Without a key it is the
        symptom of `first`. A rule that came first in `findings` stays first: a scenario that breaks another before it
        is another failure."""
        key = key or shown(first, scenario)
        known = self.found.get(key)
        found = Found(
            first.record(),
            scenario,
            known.seed_file if known else "",
            known.draws_to_find if known else draws,
            known.found_at if known else _size(scenario),
            is_leading=first.rule == findings[0].rule,
            costs_ranks=costs_ranks,
            printed=printed,
        )
        if (
            known is not None
            and known.seed_file
            and not anyway
            and (not known.is_leading, known.size) < (not found.is_leading, found.size)
        ):
            return known
        self.found.setdefault(key, found)
        path = self._save(first.rule, scenario, findings, first.cause, key, is_smallest=False)
        self._reasons[key] = tuple(findings)
        self._noted[key] = {"is_smallest": False}
        self.found[key] = msgspec.structs.replace(found, seed_file=path)
        return self.found[key]

    def keep_refused(self, scenario: Scenario, error: PluginError) -> str:
        """Save a scenario in which a plug-in showed that it has not its shape, unless the same error is kept with a
        smaller one; returns the file."""
        message = re.sub(r"\d+", "", str(error))  # without ranks, sizes and addresses
        size, known = len(msgspec.json.encode(scenario)), self._refused.get(message)
        if known is None or size <= known[0]:
            self._refused[message] = size, self._save("refused", scenario, (), message)
        return self._refused[message][1]

    def keep_interrupted(self, scenario: Scenario) -> str:
        """Save a scenario whose draw was ended from outside; returns its file."""
        return self._save("interrupted", scenario, ())

    def settle(self, key: str, how: Shrunk) -> None:
        """Note how shrinking the scenario that was found by `key` ended, and in its file whether at its end."""
        self.found[key] = msgspec.structs.replace(self.found[key], shrunk=how)
        self._note(key, is_smallest=how == "smallest")

    def rerun(self, key: str, reruns: Reruns, preceded_by: Sequence[Scenario] = ()) -> None:
        """Note in the seed file how often the scenario that was found by `key` failed on fresh ranks, and which draws
        went before it where it did not fail alone."""
        self.found[key] = msgspec.structs.replace(self.found[key], reruns=reruns)
        self._note(key, reruns=reruns, preceded_by=tuple(preceded_by))

    def settled(self, key: str) -> Settled:
        """The finding of `key` by its smallest case."""
        found = self.found[key]
        return Settled.of(self._reasons[key], found.scenario, key, is_smallest=found.shrunk == "smallest")

    def leading(self, key: str) -> tuple[Symptom, Finding, Scenario]:
        """The first finding of that case."""
        findings, scenario = self._reasons[key], self.found[key].scenario
        return symptom(findings, 0, scenario), findings[0], scenario

    def sign(self, key: str, settled: Settled) -> None:
        """Note in the seed file the signature of the finding of `key`, and the symptoms that are seen to be it. A file
        of that signature that another run has in the folder becomes its file."""
        own = self.found[key].seed_file
        there = seeds.signed(self._folder).get(settled.signature, own)
        if key in self._files and there == own:
            self.sign_own(key, settled)
            return
        with suppress(UsageError):  # it is not of this run: gone or read-only, it is left so
            seeds.sign(Path(there), settled.signature, settled.noted)
        if key in self._files:
            self._files.pop(key).drop()
        self.found[key] = msgspec.structs.replace(self.found[key], signature=settled.signature, seed_file=there)

    def sign_own(self, key: str, settled: Settled) -> None:
        """The same in the file of `key` that was made here, whatever others there are."""
        self.found[key] = msgspec.structs.replace(self.found[key], signature=settled.signature)
        self._note(key, signature=settled.signature, symptoms=settled.noted, is_smallest=settled.is_smallest)

    def drop(self, key: str) -> None:
        """Forget what was found by `key`, and its file: it is another finding once more."""
        del self.found[key]
        if key in self._files:
            self._files.pop(key).drop()

    def _note(self, key: str, **known: Any) -> None:
        """Add to what the seed file of `key` says."""
        noted = self._noted.setdefault(key, {})
        noted.update(known)
        found = self.found[key]
        if found.seed_file:
            self._save(found.finding.rule, found.scenario, self._reasons[key], found.finding.cause, key, **noted)

    def _save(
        self,
        what: str,
        scenario: Scenario,
        findings: Sequence[Finding],
        message: str = "",
        key: str = "",
        **known: Any,
    ) -> str:
        """Save in the file of what failed, which is that of `key`; `message` keeps apart the ways in which it can
        fail."""
        records = tuple(finding.record() for finding in findings)
        file = self._files.setdefault(key or what + message, SeedFile(self._folder, what, message))
        return file.save(Seed(SCHEMA, scenario, records, self._environment, **known))
