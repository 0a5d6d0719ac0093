"""Joins the folders that runs left, such as the shards of a night, into one of the same form.

Invariant: joining is idempotent, and neither order nor grouping of the folders matters: what the target holds already
is one of them. Of several cases of one finding the smallest stays. A damaged file is named and left out, and what is
beside it is joined. Files are written before the JSON that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import Seed, SeedError, write_whole
from harness.errors import UsageError
from harness.nights import joined
from harness.nights.folder import RunFolder
from harness.nights.joined import Facts
from harness.nights.known import MET
from harness.oracle.findings import Record
from harness.scenario.topology import parse, read_file

SCHEMA = 1
"""Of a run's JSON (`harness.report.data`)."""
MOST_BYTES = 256 << 20
"""Bytes of a run's JSON. A joined one holds those of all shards, with pictures of its findings."""
NOT_OF_A_RUN = ("findings", "gone", "shards", "missing")
"""Fields that are joined by themselves."""


class Kept(NamedTuple):
    """A seed file, in the order of which of two stays: by ranks, steps, length, and then content."""

    size: tuple[int, int, int]
    data: bytes
    name: str
    seed: Seed

    @property
    def record(self) -> Record | None:
        """The finding that the file is named after."""
        scenario, found = self.seed.scenario, self.seed.findings
        named = (each for each in found if seeds.name_for(each.rule, scenario, each.cause) == self.name)
        return next(named, found[0] if found else None)

    @property
    def key(self) -> str:
        """What it is a case of: a signature where there is one, else a rule and its cause. A scenario that was kept
        without a finding is a case of itself."""
        signature = str(getattr(self.seed, "signature", "") or "")
        return signature or (self.record.key if self.record else self.name)


@dataclass
class Joined:
    """What folders hold together."""

    runs: list[Facts] = field(default_factory=list)
    entries: dict[str, list[Facts]] = field(default_factory=dict)
    """Findings as the JSON of runs has them, by the same keys as the seed files."""
    found_by: dict[str, set[int]] = field(default_factory=dict)
    """The shards that found each."""
    gone: dict[str, Facts] = field(default_factory=dict)
    seeds: dict[str, Kept] = field(default_factory=dict)
    known: dict[str, Kept] = field(default_factory=dict)
    corpus: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What could not be read, each by its name."""

    @property
    def missing(self) -> list[Facts]:
        """The shards that left nothing."""
        return joined.missing(self.runs)

    def facts(self, into: RunFolder) -> Facts:
        """The JSON of the joined run, with a finding for each key."""
        findings = [self._finding(key, into) for key in self.keys]
        signatures = {str(each.get("signature")) for each in findings}
        return {
            **joined.join(self.runs),
            "findings": findings,
            **(
                {"gone": [self.gone[each] for each in sorted(self.gone) if each not in signatures]} if self.gone else {}
            ),
            "missing": self.missing,
            "shards": self.runs,
        }

    @property
    def keys(self) -> list[str]:
        """Of all findings, in the order of the JSON: those that a run names, and those of seed files."""
        return sorted({*self.entries, *(key for key, kept in self.seeds.items() if kept.record is not None)})

    def kept(self, key: str) -> Kept | None:
        """The seed file of a finding: a run's own, else that of a known one."""
        return self.seeds.get(key) or self.known.get(key)

    def _finding(self, key: str, into: RunFolder) -> Facts:
        kept = self.kept(key)
        of_file = [each for each in self.entries.get(key, ()) if kept is None or each["seed_file"] == kept.name]
        # one that was made of a seed file alone knows less than a run's own
        entry = min(of_file, key=lambda each: (each.get("draws_to_find") is None, joined.text(each)), default=None)
        if entry is None and kept is not None:
            entry = _of_seed(kept)
        assert entry is not None
        path = str((into.seeds if key in self.seeds else into.known) / kept.name) if kept else ""
        return {**entry, "seed_file": path, "shards": sorted(self.found_by.get(key, ()))}


def merge(folders: Iterable[Path], into: Path) -> Joined:
    """Join what runs left in these folders, or in the folders directly below them, and in `into`, and write it there.

    Raises `UsageError` where no folder holds a run, or where `into` cannot be written.
    """
    target, found = RunFolder(into), Joined()
    for folder in (*(each for given in folders for each in _runs_below(given, found)), target):
        if folder.is_one:
            _read(folder, found)
    if not found.runs:
        raise UsageError(f"nothing to merge: {'; '.join(found.problems) or 'no folder holds a run'}")
    found.runs = joined.distinct(found.runs)
    _write(found.seeds, target.seeds)
    _write(found.known, target.known)
    for name, data in found.corpus.items():
        _write_if_new(target.corpus / name, data)
    write_whole(target.run, msgspec.json.format(msgspec.json.encode(found.facts(target)), indent=2) + b"\n")
    return found


def _runs_below(folder: Path, found: Joined) -> Iterator[RunFolder]:
    """The folder itself if a run left something there, else those directly below it."""
    below = [folder] if RunFolder(folder).is_one else sorted(folder.iterdir()) if folder.is_dir() else []
    runs = [RunFolder(path) for path in below if RunFolder(path).is_one]
    if not runs:
        found.problems.append(f"{folder}: {'it holds no run' if folder.is_dir() else 'no such folder'}")
    yield from runs


def _read(folder: RunFolder, found: Joined) -> None:
    facts = _facts(folder.run, found.problems) if folder.run.exists() else {}
    for run in facts.get("shards", [facts] if facts else []):
        found.runs.append({name: value for name, value in run.items() if name not in NOT_OF_A_RUN})
    shards = {joined.place(facts)[0]} if facts.get("shard") else set()
    here = {kept.key: kept for kept in _seeds(folder.seeds, found.problems)}
    known_here = {kept.key: kept for kept in _seeds(folder.known, found.problems)}
    for entry in facts.get("findings", ()):
        name = Path(entry["seed_file"]).name
        key = str(entry.get("signature") or " ".join(filter(None, (entry["rule"], entry.get("cause")))))
        place, files = (folder.known, known_here) if entry.get("status") in MET else (folder.seeds, here)
        if name and key not in files:
            found.problems.append(f"{place / name}: the run names it, and it is not there")
        found.entries.setdefault(key, []).append({**entry, "seed_file": name if key in files else ""})
        found.found_by.setdefault(key, set()).update(entry.get("shards", shards))
    for key, kept in here.items():
        found.found_by.setdefault(key, set()).update(shards)
        _keep(found.seeds, key, kept)
    for key, kept in known_here.items():
        _keep(found.known, key, kept)
    for each in facts.get("gone", ()):
        known = found.gone.get(each["signature"], each)
        found.gone[each["signature"]] = min(known, each, key=joined.text)
    for path in _files(folder.corpus):
        if data := _scenario(path, found.problems):
            found.corpus[path.name] = min(found.corpus.get(path.name, data), data, key=lambda each: (len(each), each))


def _facts(path: Path, problems: list[str]) -> Facts:
    """The JSON of a run, or nothing where it is damaged."""
    try:
        data = parse(read_file(path, MOST_BYTES))
        if not isinstance(data, dict):
            raise ValueError("it holds no object")
        for run in (data, *data.get("shards", ())):
            if msgspec.convert(run, joined.Run).schema != SCHEMA:
                raise ValueError(f"it has schema {run['schema']!r}; this version reads {SCHEMA}")
            joined.place(run)
        msgspec.convert(data, _WithFindings)
    except (ValueError, TypeError, RecursionError, UsageError) as error:
        problems.append(f"{path}: {error}")
        return {}
    return dict(data)


class _Entry(msgspec.Struct):
    rule: str
    seed_file: str
    cause: str = ""
    signature: str = ""
    shards: list[int] = []


class _Gone(msgspec.Struct):
    signature: str


class _WithFindings(msgspec.Struct):
    """What is relied on of a run's findings."""

    findings: list[_Entry]
    gone: list[_Gone] = []


def _seeds(folder: Path, problems: list[str]) -> Iterator[Kept]:
    """The seed files of a folder; of several of one finding, which a kill leaves, the smallest."""
    found: dict[str, Kept] = {}
    for path in _files(folder):
        try:
            seed, data = seeds.load(path), read_file(path)
        except (SeedError, ValueError) as error:
            problems.append(str(error))
            continue
        scenario = seed.scenario
        size = scenario.world, len(scenario.steps), len(msgspec.json.encode(scenario))
        kept = Kept(size, data, path.name, seed)
        _keep(found, kept.key, kept)
    yield from found.values()


def _keep(known: dict[str, Kept], key: str, kept: Kept) -> None:
    if key not in known or kept[:3] < known[key][:3]:
        known[key] = kept


def _files(folder: Path) -> list[Path]:
    """JSON files of a folder, without those that are just being written."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _scenario(path: Path, problems: list[str]) -> bytes:
    """A file of a corpus, or nothing where it is damaged."""
    try:
        data = read_file(path)
        if not isinstance(parse(data), dict):
            raise ValueError("it holds no object")
    except (ValueError, RecursionError, UsageError) as error:
        problems.append(f"{path}: {error}")
        return b""
    return data


def _write(kept: dict[str, Kept], folder: Path) -> None:
    """Write seed files, and take away those of the same findings that were larger."""
    for each in kept.values():
        _write_if_new(folder / each.name, each.data)
    names = {each.name for each in kept.values()}
    for larger in [found for found in _files(folder) if found.name not in names]:
        try:
            seeds.load(larger)
        except SeedError:
            continue  # it is damaged, and was named
        larger.unlink(missing_ok=True)


def _write_if_new(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)


def _of_seed(kept: Kept) -> dict[str, Any]:
    """A finding that no run's JSON names, as of a run that was killed."""
    record, scenario, signature = kept.record, kept.seed.scenario, getattr(kept.seed, "signature", "")
    assert record is not None
    return {
        "rule": record.rule,
        **({"cause": record.cause} if record.cause else {}),
        **({"signature": signature} if signature else {}),
        "explanation": record.explanation,
        "seed_file": kept.name,
        "world": scenario.world,
        "steps": len(scenario.steps),
        "draws_to_find": None,
        "found_at": None,
        "shrunk": "unfinished",
        "reruns": msgspec.to_builtins(kept.seed.reruns),
        **({"stacks": msgspec.to_builtins(record.stacks)} if record.stacks else {}),
    }
