"""Joins the folders that runs left, such as the shards of a night, into one of the same form.

Invariant: joining is idempotent, and neither order nor grouping of the folders matters: what the target holds already
is one of them. Of several cases of one finding the smallest stays. A damaged file is named and left out, and what is
beside it is joined. Files are written before the JSON that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import SeedError, write_whole
from harness.errors import UsageError
from harness.nights import cases, joined
from harness.nights.cases import Kept
from harness.nights.folder import RunFolder
from harness.nights.joined import Facts
from harness.nights.known import MET
from harness.scenario.topology import parse, read_file

SCHEMA = 1
"""Of a run's JSON (`harness.report.data`)."""
MOST_BYTES = 256 << 20
"""Bytes of a run's JSON. A joined one holds those of all shards, with pictures of its findings."""
NOT_OF_A_RUN = ("findings", "cases", "gone", "shards", "missing", "found_by")
"""Fields that are joined by themselves."""
OF_ALL = ("draws", "rate", "ran")
"""Fields of a known finding that follow from all runs."""


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
    """By what they are cases of."""
    known: dict[str, Kept] = field(default_factory=dict)
    corpus: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What could not be read, each by its name."""

    @property
    def missing(self) -> list[Facts]:
        """The shards that left nothing."""
        return joined.missing(self.runs)

    @cached_property
    def counts_as(self) -> dict[str, str]:
        """By key of each case, the finding that it is. To be asked once all is read."""
        return cases.findings(self.seeds, self.known.values())

    @cached_property
    def standing(self) -> dict[str, Kept]:
        """The seed files that stand for a finding: that of its signature, else the smallest of its rule and cause."""
        found: dict[str, Kept] = {}
        for key, finding in self.counts_as.items():
            if finding == self.seeds[key].by_rule:
                found[finding] = min(found.get(finding, self.seeds[key]), self.seeds[key], key=lambda kept: kept[:3])
        return found

    def facts(self, into: RunFolder) -> Facts:
        """The JSON of the joined run, with a finding for each key."""
        findings = [self._finding(key, into) for key in self.keys]
        signatures = {str(each.get("signature")) for each in findings}
        gone = [
            {**self.gone[each], "rate": joined.met(self.runs, each).get("rate")}
            for each in sorted(self.gone)
            if each not in signatures
        ]
        return {
            **joined.join(self.runs),
            "findings": findings,
            "cases": [self._entry(kept, kept.key, into.place_of(kept.seed.signature)) for kept in self.others],
            **({"gone": gone} if self.gone else {}),
            "missing": self.missing,
            "found_by": {key: sorted(self.found_by[key]) for key in sorted(self.found_by)},
            "shards": self.runs,
        }

    @property
    def keys(self) -> list[str]:
        """Of all findings, in the order of the JSON: those that a run names, and those of seed files."""
        return sorted({*(self.counts_as.get(key, key) for key in self.entries), *self.counts_as.values()})

    @property
    def others(self) -> list[Kept]:
        """The seed files beside those that stand for a finding."""
        standing = {kept.key for kept in self.standing.values()}
        return [self.seeds[key] for key in sorted(self.counts_as) if key not in standing]

    def kept(self, key: str) -> Kept | None:
        """The seed file of a finding: a run's own, else that of a known one."""
        return self.standing.get(key) or self.known.get(key)

    def _finding(self, key: str, into: RunFolder) -> Facts:
        kept = self.kept(key)
        entry = self._entry(kept, key, into.seeds if key in self.standing else into.known)
        seen = joined.met(self.runs, key) if entry.get("status") in MET else {}
        all_of_it = {key, *(case for case, finding in self.counts_as.items() if finding == key)}
        shards = set().union(*(self.found_by.get(each, set()) for each in all_of_it))
        return {**entry, **seen, "shards": sorted(shards)}

    def _entry(self, kept: Kept | None, key: str, folder: Path) -> Facts:
        """What the runs say of a case; of one that none names, as that of a run that was killed, what its file says."""
        if kept is None:
            return min(self.entries[key], key=joined.text)
        of_case = (*self.entries.get(kept.key, ()), *self.entries.get(key, ()))
        of_file = [each for each in of_case if each["seed_file"] == kept.name]
        # one that was made of a seed file alone knows less than a run's own
        entry = min(of_file, key=lambda each: (each.get("draws_to_find") is None, joined.text(each)), default=None)
        return {**(entry or kept.as_entry), "seed_file": str(folder / kept.name)}


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
    without = [kept for kept in found.seeds.values() if kept.record is None]
    _write([*found.standing.values(), *without], target.seeds)
    for place in (target.cases, target.unsigned):
        _write([kept for kept in found.others if target.place_of(kept.seed.signature) == place], place)
    _write(found.known.values(), target.known)
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
    here = [kept for each in (folder.seeds, folder.cases, folder.unsigned) for kept in cases.read(each, found.problems)]
    known = [*cases.read(folder.known, found.problems)]
    for run in facts.get("shards", [facts] if facts else []):
        found.runs.append(_of_run(run))
    found_here = {name: {*shards} for name, shards in facts.get("found_by", {}).items()}
    shards = {joined.place(facts)[0]} if facts.get("shard") else set()
    for entry in (*facts.get("findings", ()), *facts.get("cases", ())):
        name, is_met = Path(entry["seed_file"]).name, entry.get("status") in MET
        key = _key(entry, name, known if is_met else here)
        file = next((kept for kept in (known if is_met else here) if key in (kept.key, kept.by_rule)), None)
        if name and file is None:
            place = folder.known if is_met else folder.seeds
            found.problems.append(f"{place / name}: the run names it, and it is not there")
        follows = {"shards", *(OF_ALL if is_met else ())}
        of_case = {field: value for field, value in entry.items() if field not in follows}
        if file is not None and file.seed.signature:
            of_case["signature"] = file.seed.signature
        found.entries.setdefault(key, []).append({**of_case, "seed_file": name if file else ""})
        found_here.setdefault(key, {*entry.get("shards", shards)})
    for kept in here:
        found_here.setdefault(kept.key, {*shards})
        cases.keep(found.seeds, kept.key, kept)
    for kept in known:
        cases.keep(found.known, kept.by_rule, kept)
    for key, by in found_here.items():
        found.found_by.setdefault(key, set()).update(by)
    for each in facts.get("gone", ()):
        gone = {field: value for field, value in each.items() if field not in OF_ALL}
        found.gone[each["signature"]] = min(found.gone.get(each["signature"], gone), gone, key=joined.text)
    for path in cases.files(folder.corpus):
        if data := _scenario(path, found.problems):
            found.corpus[path.name] = min(found.corpus.get(path.name, data), data, key=lambda each: (len(each), each))


def _of_run(run: Facts) -> Facts:
    """The facts of a run alone, with what it saw of known findings."""
    seen = [each for each in run.get("findings", ()) if each.get("status") in MET]
    met = {
        each["signature"]: {field: each[field] for field in OF_ALL if field in each}
        for each in (*seen, *run.get("gone", ()))
        if each.get("signature")
    }
    alone = {name: value for name, value in run.items() if name not in NOT_OF_A_RUN}
    return {**alone, "met": met} if met else alone


def _key(entry: Facts, name: str, files: Sequence[Kept]) -> str:
    """The key of what a run's JSON says of a case. It may be older than the file, which has a signature by now, or than
    the smaller case in its place."""
    if signature := entry.get("signature"):
        return str(signature)
    rule = " ".join(filter(None, (entry["rule"], entry.get("cause"))))
    of_name = [kept for kept in files if kept.name == name]
    of_rule = [kept for kept in files if name and kept.record is not None and kept.record.key == rule]
    likely = min(
        (*of_name, *of_rule), key=lambda kept: (kept.name != name, bool(kept.seed.signature), kept[:3]), default=None
    )
    return likely.key if likely else rule


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
        msgspec.convert(data, joined.WithFindings)
    except (ValueError, TypeError, RecursionError, UsageError) as error:
        problems.append(f"{path}: {error}")
        return {}
    return dict(data)


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


def _write(kept: Iterable[Kept], folder: Path) -> None:
    """Write seed files, and take away those that were larger, or are elsewhere by now."""
    names = set()
    for each in kept:
        names.add(each.name)
        _write_if_new(folder / each.name, seeds.encoded(each.seed))
    for other in [found for found in cases.files(folder) if found.name not in names]:
        try:
            seeds.load(other)
        except SeedError:
            continue  # it is damaged, and was named
        other.unlink(missing_ok=True)


def _write_if_new(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
