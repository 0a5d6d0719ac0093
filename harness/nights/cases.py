"""The cases of a night's findings, as seed files hold them, and which finding each of them is.

Invariant: that follows from the set of cases alone, as it does in a campaign that has met the smallest first. Neither
the order of the cases matters, nor which of them were joined before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import Seed, SeedError
from harness.campaign.settled import Settled, Settlement
from harness.campaign.symptoms import symptom
from harness.oracle.findings import Record


class Kept(NamedTuple):
    """A seed file, in the order of which of two stays: by ranks, steps, length, and then content."""

    size: tuple[int, int, int]
    data: bytes
    """What it says but for symptoms, which files of one case share."""
    name: str
    seed: Seed

    @property
    def record(self) -> Record | None:
        """The finding that the file is named after."""
        return self.seed.findings[self._number] if self.seed.findings else None

    @property
    def _number(self) -> int:
        scenario, found = self.seed.scenario, self.seed.findings
        named = (n for n, each in enumerate(found) if seeds.name_for(each.rule, scenario, each.cause) == self.name)
        return next(named, 0)

    @property
    def key(self) -> str:
        """What it is a case of: a signature where there is one. One without is a case of itself."""
        return self.seed.signature or self.name

    @property
    def by_rule(self) -> str:
        """The same, where one without a signature is what has its rule and cause."""
        return self.seed.signature or (self.record.key if self.record else self.name)

    @property
    def as_entry(self) -> dict[str, Any]:
        """A finding that no run's JSON names, as of a run that was killed."""
        record, seed = self.record, self.seed
        assert record is not None
        return {
            "rule": record.rule,
            **({"cause": record.cause} if record.cause else {}),
            **({"signature": seed.signature} if seed.signature else {}),
            "explanation": record.explanation,
            "seed_file": self.name,
            "world": seed.scenario.world,
            "steps": len(seed.scenario.steps),
            "draws_to_find": None,
            "found_at": None,
            "shrunk": "unfinished",
            "reruns": msgspec.to_builtins(seed.reruns),
            **({"stacks": msgspec.to_builtins(record.stacks)} if record.stacks else {}),
        }

    @property
    def settled(self) -> Settled:
        """The finding that it is signed as."""
        seed = self.seed
        found = Settled.of(seed.findings, seed.scenario, seed.signature, seed.symptoms, seed.is_smallest)
        return msgspec.structs.replace(found, signature=seed.signature)

    def among(self, settlement: Settlement) -> Settled | None:
        """The finding that a draw of this case counts as, if there is one."""
        seed, number = self.seed, self._number
        return settlement.of(symptom(seed.findings, number, seed.scenario), seed.findings[number], seed.scenario)


def read(folder: Path, problems: list[str]) -> Iterator[Kept]:
    """The seed files of a folder. What is wrong with a damaged one is noted."""
    for path in files(folder):
        try:
            seed = seeds.load(path)
        except SeedError as error:
            problems.append(str(error))
            continue
        scenario = seed.scenario
        size = scenario.world, len(scenario.steps), len(msgspec.json.encode(scenario))
        yield Kept(size, seeds.encoded(msgspec.structs.replace(seed, symptoms=())), path.name, seed)


def files(folder: Path) -> list[Path]:
    """JSON files of a folder, without those that are just being written."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def keep(cases: dict[str, Kept], key: str, kept: Kept) -> None:
    """Have the smallest case of a key, with the symptoms of all."""
    there = cases.get(key, kept)
    symptoms = seeds.union(there.seed.symptoms, kept.seed.symptoms)
    smallest = min(there, kept, key=lambda each: each[:3])
    cases[key] = smallest._replace(seed=msgspec.structs.replace(smallest.seed, symptoms=symptoms))


def findings(cases: Mapping[str, Kept], known: Iterable[Kept]) -> dict[str, str]:
    """By its key, the finding that each case is: a signature, else a rule and its cause.

    A case that was shrunk to its end is one of its own, unless it is larger than another by its layout alone. One that
    was not is the finding that its draw counts as, if there is one. So is one that a kill left unsigned; else it is one
    with others of its rule and cause.
    """
    own = sorted((kept for kept in cases.values() if kept.record is not None), key=lambda kept: kept[:3])
    signed = [kept for kept in own if kept.seed.signature]
    of_user = sorted((kept for kept in known if kept.seed.signature), key=lambda kept: kept[:3])
    settlement = Settlement([msgspec.structs.replace(each.settled, key="") for each in of_user])
    for kept in signed:
        if kept.seed.is_smallest and settlement.twin(kept.settled) is None:
            settlement.add(kept.settled)
    found = {each.key: each.key for each in settlement if each.key} | _larger(settlement)
    for kept in (kept for kept in signed if kept.key not in found):
        seen = settlement.twin(kept.settled) or kept.among(settlement) or kept.settled
        if seen.key == kept.key:
            settlement.add(seen)
        seen.symptoms |= kept.settled.symptoms
        found[kept.key] = seen.signature
    for kept in (kept for kept in own if not kept.seed.signature):
        counts_as = kept.among(settlement)
        found[kept.key] = counts_as.signature if counts_as else kept.by_rule
    return found


def _larger(settlement: Settlement) -> dict[str, str]:
    """Take out those that are larger than another by their layouts alone. Returns which are which."""
    found: dict[str, str] = {}
    for smaller in sorted(settlement, key=lambda each: len(each.traits)):
        for each in [*settlement.larger(smaller)] if smaller.signature not in found else ():
            if each.key:
                found[each.key] = smaller.signature
                smaller.symptoms |= each.symptoms
                settlement.remove(each)
    return found
