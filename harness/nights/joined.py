"""The facts of several runs as those of one, and the shards that are missing among them.

Invariant: runs are a set. In which order they come, and how often one of them, changes nothing; a run that is there
twice, once as it was while it went on, counts as it was at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from harness.nights.known import rate, share

Facts = dict[str, Any]
"""What the JSON of a run holds, without its findings."""
ADDED = (
    *("draws", "shrinking", "seconds", "draws_per_second", "collectives", "windows", "vacuous"),
    *("by_kernel", "fell_back", "unsupported", "paths_unknown", "paths_free"),
)
"""Figures that are sums. The rate of several runs is that of all of them side by side."""
MOST_OF_ONE = ("layouts", "groups")
"""Counts of different things, which runs share: there are at least as many as in one run."""
UNITED = ("oracles", "left")
COUNTED = ("vacuous_by_reason",)
"""Counts by name, which are sums name by name."""
POINTS = 60
"""Of a curve of draws over time."""


class Coverage(msgspec.Struct):
    """The part of a run's coverage that is joined; what else it holds is as in `agreed`."""

    covered: dict[str, dict[str, int]] = {}
    new_states: int | None = None
    never: dict[str, list[str]] = {}


class Met(msgspec.Struct):
    """What a run saw of a known finding, as its JSON says it."""

    draws: int | None = None
    rate: tuple[int, int] | None = None
    ran: tuple[int, int] | None = None


class Run(msgspec.Struct):
    """The fields of a run that joining relies on, by which a damaged file is seen."""

    schema: int
    draws: int
    seed: int | None = None
    shard: dict[str, Any] | None = None
    shrinking: int = 0
    seconds: float = 0.0
    draws_per_second: float = 0.0
    collectives: int = 0
    windows: int = 0
    vacuous: int = 0
    by_kernel: int = 0
    fell_back: int = 0
    unsupported: int = 0
    paths_unknown: int = 0
    paths_free: int = 0
    layouts: int = 0
    groups: int = 0
    oracles: list[str] = []
    left: list[dict[str, Any]] = []
    started: str | None = None
    ended: str | None = None
    interrupted: bool = False
    coverage: Coverage | None = None
    speed: list[tuple[float, float]] | None = None
    vacuous_by_reason: dict[str, int] = {}
    known_seconds: dict[str, float] | None = None
    met: dict[str, Met] = {}


class Entry(Met, kw_only=True):
    """What is relied on of a finding."""

    rule: str
    seed_file: str
    cause: str = ""
    signature: str = ""
    shards: list[int] = []


class Gone(Met, kw_only=True):
    """The same of a known one that did not come again."""

    signature: str


class WithFindings(msgspec.Struct):
    """The same of all findings of a run, or of runs that were joined."""

    findings: list[Entry]
    cases: list[Entry] = []
    gone: list[Gone] = []
    found_by: dict[str, list[int]] = {}


def place(run: Facts) -> tuple[int, int]:
    """(index, of) of the shard that it is; one that is none is the only one."""
    shard = run.get("shard") or {}
    return int(shard.get("index", 1)), int(shard.get("of", 1))


def distinct(runs: Iterable[Facts]) -> list[Facts]:
    """Each run once, in the order of the shards: of several files of one, that with the most draws."""
    best: dict[bytes, Facts] = {}
    for run in sorted(runs, key=lambda run: (run["draws"], text(run))):
        best[text([run.get("seed"), *place(run), *(run.get(name) for name in ("host", "started"))])] = run
    return sorted(best.values(), key=lambda run: (str(run.get("seed")), *place(run)[::-1], text(run)))


def join(runs: Sequence[Facts]) -> Facts:
    """The facts of runs that `distinct` gave, as those of one. Where they do not agree on a field that is no figure, it
    is None."""
    names = dict.fromkeys(name for run in runs for name in run if name != "met")
    rest = {name: agreed([run.get(name) for run in runs]) for name in names}
    return {
        **rest,
        "shard": None,
        **{name: _rounded(sum(run.get(name, 0) for run in runs)) for name in ADDED},
        **{name: max(run.get(name, 0) for run in runs) for name in MOST_OF_ONE},
        **{name: added([run.get(name) for run in runs]) for name in COUNTED if any(name in run for run in runs)},
        **{name: _united([each for run in runs for each in run.get(name, ())]) for name in UNITED},
        "interrupted": any(run.get("interrupted", False) for run in runs),
        **_ends(runs),
        **_where_known(runs, "coverage", covered),
        **_where_known(runs, "speed", speed),
        **_of_known(runs),
    }


def missing(runs: Iterable[Facts]) -> list[Facts]:
    """For each night, known by its seed and its number of shards, those of which nothing is there: no file, or that of
    a run that was ended before its first draw."""
    nights: dict[tuple[Any, int], set[int]] = {}
    for run in runs:
        index, of = place(run)
        there = nights.setdefault((run.get("seed"), of), set())
        if run["draws"] or not run.get("interrupted"):
            there.add(index)
    return [
        {"seed": seed, "of": of, "shards": lost}
        for (seed, of), there in sorted(nights.items(), key=str)
        if (lost := [index for index in range(1, of + 1) if index not in there])
    ]


def agreed(values: Sequence[Any]) -> Any:
    """The value that all are; of objects, field by field; None where they differ."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, dict) for value in values):
        return {
            key: agreed([value.get(key) for value in values]) for key in dict.fromkeys(k for v in values for k in v)
        }
    return None


def met(runs: Iterable[Facts], signature: str) -> Facts:
    """The draws that met a known finding, its rate and its status, by all runs that know it; nothing where none
    does."""
    seen = [run["met"][signature] for run in runs if signature in run.get("met", {})]
    if not seen:
        return {}
    together = rate(seen)
    is_flaky = together is not None and together[0] < together[1]
    draws = sum(each.get("draws") or 0 for each in seen)
    return {"draws": draws, "rate": together, "status": "flaky" if is_flaky else "known"}


def covered(parts: Sequence[Facts]) -> Facts:
    """Coverage of several runs: counts are added, and what no run covered was never covered. As many states are new as
    in one run at least, since two may have met the same."""
    counts: dict[str, dict[str, int]] = added([part.get("covered") for part in parts]) or {}
    never = {
        kind: [name for name in names if name not in counts.get(kind, {})]
        for part in parts
        for kind, names in part.get("never", {}).items()
    }
    return {
        **{
            name: added([part.get(name) for part in parts]) for name in dict.fromkeys(n for part in parts for n in part)
        },
        "states": sum(map(len, counts.values())),
        "new_states": max(part.get("new_states") or 0 for part in parts),
        "covered": counts,
        "never": never,
    }


def added(values: Sequence[Any]) -> Any:
    """Numbers as their sum, objects name by name; what is neither, as in `agreed`. None adds nothing."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, dict) for value in known):
        names = dict.fromkeys(name for value in known for name in value)
        return {name: added([value.get(name) for value in known]) for name in names}
    if known and all(isinstance(value, int | float) for value in known):
        return sum(known)
    return agreed(values)


def speed(curves: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Draws over time of runs side by side, from the beginning of each."""
    times = sorted({moment for curve in curves for moment, _ in curve})
    total = [[moment, sum(_at(curve, moment) for curve in curves)] for moment in times]
    step = max(1, -(-len(total) // POINTS))
    return total[::-step][::-1]


def text(data: object) -> bytes:
    """Data in one way of writing, to be compared."""
    return msgspec.json.encode(data, order="deterministic")


def _at(curve: Sequence[Sequence[float]], moment: float) -> float:
    return max((draws for when, draws in curve if when <= moment), default=0)


def _ends(runs: Sequence[Facts]) -> Facts:
    """From the first start to the last end."""
    known = {name: [run[name] for run in runs if run.get(name)] for name in ("started", "ended")}
    found = {"started": min(known["started"], default=None), "ended": max(known["ended"], default=None)}
    return {name: value for name, value in found.items() if any(name in run for run in runs)}


def _where_known(runs: Sequence[Facts], name: str, how: Any) -> Facts:
    parts = [run[name] for run in runs if run.get(name)]
    return {name: how(parts)} if parts else {}


def _of_known(runs: Sequence[Facts]) -> Facts:
    """What known findings took of the runs that have been given some."""
    if not (parts := [run["known_seconds"] for run in runs if run.get("known_seconds")]):
        return {}
    seconds = {name: _rounded(value) for name, value in added(parts).items()}
    return {"known_seconds": seconds, "known_share": share(seconds)}


def _united(values: Iterable[Any]) -> list[Any]:
    return [*{text(value): value for value in values}.values()]


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 3)
