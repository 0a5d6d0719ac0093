"""What runs of `symm fuzz` did, read from the JSON that they wrote, and several of them as one report.

Invariant: a field that a run's file lacks is left out of the report, and not guessed. Equal signatures are one finding.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.campaign import seeds
from harness.errors import UsageError
from harness.nights import known
from harness.nights.known import MET
from harness.report.pages import telling
from harness.report.pages.account import Account
from harness.scenario.topology import parse, read_file
from harness.text import counted

COUNTS = "layouts", "groups", "collectives", "windows"
STATUSES = "new", "flaky", "known"


class Night(msgspec.Struct, frozen=True):
    """One run."""

    name: str
    draws: int
    seconds: float
    vacuous: int = 0
    shrinking: int = 0
    seed: str = ""
    shard: str = ""
    substrate: str = ""
    host: str = ""
    started: str = ""
    ended: str = ""
    command: str = ""
    interrupted: bool = False
    counts: dict[str, int] = {}
    """Such as layouts and collectives."""
    oracles: tuple[str, ...] = ()
    speed: tuple[tuple[float, float], ...] = ()
    environment: dict[str, str] = {}
    options: dict[str, str] = {}

    rate: float = 0.0
    """Draws a second, of all shards together where it is joined of them."""


class Found(msgspec.Struct, frozen=True):
    """A finding, in all runs that have it. `status` is empty where no run was told which are known."""

    rule: str
    explanation: str
    status: str
    signature: str
    rate: str
    size: str
    seed_file: str
    command: str
    runs: tuple[str, ...]
    account: Account | None = None


class Gone(msgspec.Struct, frozen=True):
    """A known finding that was looked for and did not come."""

    rule: str
    signature: str
    seed_file: str


class Covered(msgspec.Struct, frozen=True):
    """Of one kind: what was met, with how often, and what never was."""

    kind: str
    met: dict[str, int]
    never: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """Runs as one report."""

    headline: str
    nights: tuple[Night, ...]
    found: tuple[Found, ...]
    gone: tuple[Gone, ...]
    coverage: tuple[Covered, ...]
    states: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether there is a finding that is not known, flaky or not."""
        return any(each.status not in MET for each in self.found)


def load(path: str) -> dict[str, Any]:
    """The facts of a run. Raises `UsageError` where the file is none of `symm fuzz --json`."""
    try:
        found = parse(read_file(path))
    except (ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"run {path}: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("findings"), list) or "draws" not in found:
        raise UsageError(f"run {path}: it holds no run of symm fuzz --json")
    return found


def report(runs: Mapping[str, dict[str, Any]]) -> Report:
    """The report of runs by their names. Raises `UsageError` for a field of another kind than symm writes."""
    try:
        nights = tuple(_night(name, run) for name, run in runs.items())
        found = tuple(_merged(runs))
        gone = tuple(_gone(runs, {each.signature for each in found}))
        return Report(_headline(nights, found, gone), nights, found, gone, tuple(_coverage(runs)), _states(runs))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{', '.join(runs)}: not of the form that symm fuzz --json writes ({error})") from error


def _night(name: str, run: dict[str, Any]) -> Night:
    shard, environment = run.get("shard"), run.get("environment") or {}
    counts = {str(each): int(run[each]) for each in COUNTS if each in run}
    return Night(
        name=name,
        draws=int(run["draws"]),
        seconds=float(run.get("seconds") or 0),
        rate=float(run.get("draws_per_second") or 0),
        vacuous=int(run.get("vacuous") or 0),
        shrinking=int(run.get("shrinking") or 0),
        seed=str(run.get("seed", "")),
        shard=f"{shard['index']} of {shard['of']}" if shard else "",
        substrate=str(environment.get("substrate", "")),
        host=_text(run.get("host")),
        started=_text(run.get("started")),
        ended=_text(run.get("ended")),
        command=_command(run.get("command")),
        interrupted=bool(run.get("interrupted")),
        counts=counts,
        oracles=tuple(map(str, run.get("oracles") or ())),
        speed=tuple((float(at), float(draws)) for at, draws in run.get("speed") or ()),
        environment={str(key): _text(value) for key, value in environment.items() if value not in (None, "", [])},
        options={str(key): _text(value) for key, value in (run.get("options") or {}).items() if value is not None},
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _command(value: object) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else _text(value)


def _merged(runs: Mapping[str, dict[str, Any]]) -> Iterator[Found]:
    """The findings of all runs, each once: new ones first."""
    same: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, run in runs.items():
        for finding in run["findings"]:
            key = finding.get("signature") or f"{finding['rule']} {finding.get('cause', '')} {finding['explanation']}"
            same.setdefault(key, []).append((name, finding))
    found = [_found(each, runs) for each in same.values()]
    yield from sorted(found, key=lambda each: STATUSES.index(each.status) if each.status in STATUSES else 0)


def _status(same: Sequence[tuple[str, dict[str, Any]]], runs: Mapping[str, dict[str, Any]]) -> str:
    """The status of equal findings. What is new to one shard of a night is new to the night; what any night knows is
    known."""
    nights: dict[object, set[str]] = {}
    for name, finding in same:
        run = runs[name]
        night = (run["seed"], (run.get("shard") or {}).get("of")) if "seed" in run else name
        nights.setdefault(night, set()).add(str(finding.get("status") or ""))
    statuses = [next((each for each in STATUSES if each in of_night), "") for of_night in nights.values()]
    return next((each for each in ("flaky", "known", "new") if each in statuses), "")


def _found(same: Sequence[tuple[str, dict[str, Any]]], runs: Mapping[str, dict[str, Any]]) -> Found:
    """Of equal findings the smallest."""
    _, finding = min(same, key=lambda each: (each[1].get("world", 0), each[1].get("steps", 0)))
    together = known.rate(each for _, each in same)
    rate = f"{together[0]} of {counted(together[1], 'run')}" if together else ""
    size = ""
    if "world" in finding and "steps" in finding:
        size = f"{counted(finding['world'], 'rank')}, {counted(finding['steps'], 'step')}"
    account = _account(finding)
    file = str(finding.get("seed_file") or "")
    return Found(
        str(finding["rule"]),
        str(finding["explanation"]),
        _status(same, runs),
        str(finding.get("signature") or ""),
        rate,
        size,
        file,
        account.command if account else shlex.join(["symm", "replay", file]) if file else "",
        tuple(dict.fromkeys(name for name, _ in same)),
        account,
    )


def _account(finding: dict[str, Any]) -> Account | None:
    """The finding's own account; that of its seed file, where it brings none and the file is there."""
    file = finding.get("seed_file")
    if finding.get("account"):
        account = msgspec.json.decode(msgspec.json.encode(finding["account"]), type=Account)
        return msgspec.structs.replace(account, command=_there(account.command, str(file or "")))
    if not file or not Path(file).is_file():
        return None
    try:
        return telling.of_file(file, seeds.load(file), "The run kept no pictures; symm show draws them.")
    except UsageError:
        return None


def _there(command: str, file: str) -> str:
    """The command with the file where it lies now: a joined night has copies of those of its shards."""
    moved = [file if Path(word).name == Path(file).name else word for word in shlex.split(command)]
    return shlex.join(moved) if file else command


def _gone(runs: Mapping[str, dict[str, Any]], seen: set[str]) -> Iterator[Gone]:
    """Known findings that no run met."""
    found = {
        str(each.get("signature")): Gone(str(each["rule"]), str(each.get("signature")), _text(each.get("seed_file")))
        for run in runs.values()
        for each in run.get("gone") or ()
    }
    yield from (each for signature, each in found.items() if signature not in seen)


def _coverage(runs: Mapping[str, dict[str, Any]]) -> Iterator[Covered]:
    """Counts of all runs, and what none of them met."""
    covers = [run["coverage"] for run in runs.values() if run.get("coverage")]
    kinds = dict.fromkeys(
        kind for each in covers for kind in (*(each.get("covered") or {}), *(each.get("never") or {}))
    )
    for kind in kinds:
        met: dict[str, int] = {}
        for each in covers:
            for name, count in ((each.get("covered") or {}).get(kind) or {}).items():
                met[str(name)] = met.get(str(name), 0) + int(count)
        never = dict.fromkeys(str(name) for each in covers for name in (each.get("never") or {}).get(kind) or ())
        ordered = dict(sorted(met.items(), key=lambda entry: -entry[1]))
        yield Covered(kind, ordered, tuple(name for name in never if name not in met))


def _states(runs: Mapping[str, dict[str, Any]]) -> str:
    """How many states of the oracle were met; of several runs each by itself, as files do not say which they share."""
    parts = []
    for name, run in runs.items():
        cover = run.get("coverage") or {}
        if "states" in cover:
            new = f", {cover['new_states']} of them new" if cover.get("new_states") is not None else ""
            kept = cover.get("corpus")
            corpus = f"; corpus of {counted(int(kept['tried']) + int(kept['added']), 'scenario')}" if kept else ""
            whose = f"{name}: " if len(runs) > 1 else ""
            parts.append(f"{whose}{counted(int(cover['states']), 'state')} of the oracle{new}{corpus}")
    return "; ".join(parts)


def _headline(nights: Sequence[Night], found: Sequence[Found], gone: Sequence[Gone]) -> str:
    draws = sum(night.draws for night in nights)
    where = f"in {draws:,} draws" + (f" of {counted(len(nights), 'run')}" if len(nights) > 1 else "")
    if draws and sum(night.vacuous for night in nights) == draws:
        return f"Nothing was tested: every draw {where} was vacuous."
    if not draws:
        return "Nothing was tested: no draw was made."
    counts = {status: sum(each.status == status for each in found) for status in (*STATUSES, "")}
    words = {"new": "new", "flaky": "flaky", "known": "known", "": ""}
    parts = [f"{counts[each]} {words[each]}".strip() for each in (*STATUSES, "") if counts[each]]
    lost = f" {counted(len(gone), 'known finding')} did not come again." if gone else ""
    if not parts:
        return f"Nothing was found {where}.{lost}"
    noun = "finding" if len(found) == 1 else "findings"
    return f"{' and '.join(parts)} {noun} {where}.{lost}"
