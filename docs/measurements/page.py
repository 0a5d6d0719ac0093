"""The page of current figures, `docs/measurements.md`, from the records beside this file.

A record is the JSON that a command writes with `--json`, and a part `run`: title, command, machine, commit, date. A
command without `--json` has its figures under `figures`. A record with `transcribed` was copied by hand from an earlier
page; it has only the fields that the page had.

Invariant: the page holds no figure that is not in a record. `make docs` writes it, and a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report import drawn
from harness.report.pages.scale import size_text

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "measurements.md"
Record = dict[str, Any]
POOLS = ("snapshot-once", "shared-at-alloc", "shared-at-exit", "per-unique-id", "per-group", "deferred")
VERSIONS = {
    "python": "Python",
    "torch": "torch",
    "triton": "Triton",
    "hypothesis": "Hypothesis",
    "nccl": "NCCL",
    "driver": "driver",
}
UNKNOWN = "—"

HEAD = """# Measurements

This page is generated: `make docs` writes it from the JSON in `docs/measurements/`. Each block gives its command,
commit, date and versions. Timings come from shared machines, so compare them within a block.
A block marked *transcribed* was copied by hand from an earlier page. There a — stands for a figure that the page did
not give, and the commit is the one that wrote the figure down where the page named none.
`symm fuzz` and `symm agree` without `--seed` ran with seed 0, which was the default then.
[Columns](#columns) are explained at the end. `docs/measurements/record.py` measures again.
"""

COLUMNS = """## Columns

| column | meaning |
| --- | --- |
| a second | draws a second, judged, without the time for shrinking |
| vacuous | draws that tested nothing: no collective over an owned buffer, or sizes that did not differ as meant |
| after draws | draws until the rule was first broken |
| shrunk to | ranks and steps of the smallest case |
| `rule (7; 2, 3)` | in a verdict matrix: first broken after 7 draws, smallest case 2 ranks and 3 steps |
| own time | time on leaving a pool's context, without the allocator's own context, which every design leaves too |
| most held | MiB of segments that one rank held at most over the same flows |
| accounted for | draws that differ between the substrates for a named reason |
| collectives, calls | of what is drawn: steps of programs, and each of their groups that runs one |
| of all, by | the unit that a histogram counts. By op, only reductions are counted |
| live buffers | most at one time in a draw; at a collective, those that are there |
| bytes | of the smaller operand, on the rank where that is largest; a bar goes up to the next power of two |
| offset | of the operand that is always given: near is up to 64 elements behind the start of its buffer |
| values | the kind of data that an operation, its type and its group get ([data](rules.md#what-the-data-shows)) |
| scenarios | of a night: different ones that ran on any of its shards |
| expected a second | a model: a shard with as many cores as one alone keeps busy draws as fast as that one |
| `2.7 (2.45)` | of a contender at a size: µs, and how many times faster than the library's best ([timing](bench.md)) |
| growth | times as long on the most ranks as on the fewest |
| to copies | times as long as copies of each rank to all its peers, on the most ranks |
| symmetric path | open, or the first reason why NCCL has no symmetric kernel for a call |
"""


def records(folder: Path = FOLDER) -> list[Record]:
    """Every record, by file name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def page(found: Sequence[Record]) -> str:
    """The whole page: a section a machine, those with fewer GPUs first, and a block a record."""
    machines = {record["run"]["machine"]: len(record["environment"].get("gpus") or ()) for record in found}
    sections = [HEAD]
    ordered = sorted(found, key=lambda record: [*KINDS].index(kind(record)))
    for machine in sorted(machines, key=lambda name: (machines[name], name)):
        blocks = [block(record) for record in ordered if record["run"]["machine"] == machine]
        sections += [f"## {machine[0].upper()}{machine[1:]}\n", *blocks]
    return "\n".join([*sections, COLUMNS])


def block(record: Record) -> str:
    """A title, where the figures come from, the figures, and a note."""
    run = record["run"]
    marks = [f"commit {run['commit']}", run["date"], versions(record["environment"])]
    marks += ["*transcribed*"] if run.get("transcribed") else []
    text = f"### {run['title']}\n\n`{run['command']}`\n\n{' · '.join(marks)}\n\n{figures(record)}"
    return f"{text}\n{run['note']}\n" if run.get("note") else text


def versions(environment: Record) -> str:
    """Such as `Python 3.12.3, torch 2.11.0, NCCL 2.32.3`."""
    return ", ".join(f"{shown} {environment[key]}" for key, shown in VERSIONS.items() if environment.get(key))


def kind(record: Record) -> str:
    """The key of `KINDS` that says which command wrote it."""
    for key in reversed(KINDS):
        if key in record:
            return key
    raise ValueError(f"no command writes such a record: {sorted(record)}")


def figures(record: Record) -> str:
    """The tables of a record."""
    return KINDS[kind(record)](record)


def others(record: Record) -> str:
    """A command without JSON of its own."""
    return table(("measure", "value"), record["figures"].items())


def campaign(record: Record) -> str:
    """`symm fuzz`."""
    head = ("draws", "seconds", "a second", "layouts", "groups", "collectives", "windows", "vacuous", "rules broken")
    keys = ("draws", "seconds", "draws_per_second", "layouts", "groups", "collectives", "windows", "vacuous")
    text = table(head, [[*(number(record.get(key)) for key in keys), len(record["findings"])]])
    rows = [
        (f"`{each['rule']}`", number(each.get("draws_to_find")), size(each.get("found_at")), size(each))
        for each in record["findings"]
    ]
    return text + "\n" + table(("rule", "after draws", "found at", "shrunk to"), rows) if rows else text


def matrix(record: Record) -> str:
    """`symm matrix`: a row for each topology, sites and tokens; a column for each design."""
    cells = {(cell["topology"], cell["sites"], cell["tokens"], cell["pool"]): cell for cell in record["cells"]}
    pools = measured(key[3] for key in cells)
    rows = [
        (*row, *(verdict(cells.get((*row, pool))) for pool in pools)) for row in dict.fromkeys(key[:3] for key in cells)
    ]
    return table(("topology", "sites", "tokens", *(f"`{pool}`" for pool in pools)), rows)


def measured(names: Iterable[str]) -> list[str]:
    """The designs that a record has: one from before a design was built in lacks it."""
    met = set(names)
    return [pool for pool in POOLS if pool in met]


def verdict(cell: Record | None) -> str:
    """Such as `wrong-owner (7; 2, 3), hang (9; 2, 2)`."""
    if cell is None:
        return UNKNOWN
    shown = []
    for each in cell["findings"]:
        found = [number(each["draws_to_find"])] if each.get("draws_to_find") else []
        smallest = [f"{each['world']}, {each['steps']}"] if each.get("world") else []
        shown.append(each["rule"] + (f" ({'; '.join(found + smallest)})" if found else ""))
    return ", ".join(shown) or "clean"


def faults(record: Record) -> str:
    """`symm faults`: a row for each fault, and the draws without any."""
    rows = [
        (
            f"{each['id']} {each['name']}",
            f"{each['found']} of {each['of']}",
            ", ".join(each["rules"]),
            number(each["median_draws"]),
            number(each.get("median_seconds")),
            f"{each['world']}, {each['steps']}",
        )
        for each in record["faults"]
    ]
    head = ("fault", "found with", "rules", "median draws", "median seconds", "largest: ranks, steps")
    text = table(head, rows)
    if record["clean"]["draws"]:
        expected = ", ".join(f"`{rule}` in {count}" for rule, count in record.get("expected", {}).items())
        clean = (number(record["clean"]["draws"]), len(record["clean"]["findings"]), expected or "none")
        text += "\n" + table(("draws without a fault", "findings", "expected"), [clean])
    return text


def agreement(record: Record) -> str:
    """`symm agree`."""
    accounted = ", ".join(f"{reason}: {count}" for reason, count in record["accounted"].items()) or "none"
    row = (number(record["draws"]), len(record["disagreements"]), accounted)
    return table(("draws", "disagreements", "accounted for"), [row])


def draws(record: Record) -> str:
    """`symm bench draws`."""
    memory = {key: value for key, value in record.items() if key.endswith(("_early", "_late"))}
    mib = {key: f"{number(value / (1 << 20))} MiB" for key, value in memory.items()}
    path = f", {record['latency_path']} path" if record.get("latency_path") else ""
    gather = f"all-gather of 1024 bf16 a rank{path}"
    rows = {
        "draws, draws with fresh ranks": f"{number(record['draws'])}, {record['spawns']}",
        "start of the world": seconds(record.get("start")),
        "median draw": seconds(record["draw"]),
        "median draw with fresh ranks": seconds(record["spawned"]),
        "times faster": number(round(record["ratio"])),
        "a second": number(record["rate"]),
        "parent's memory, second tenth and last": _both(mib, "parent"),
        "ranks' memory, second tenth and last": _both(mib, "ranks"),
        "start of eight ranks": seconds(record.get("eight_start")),
        "memory of eight ranks": f"{record['eight_memory'] >> 20} MiB" if record.get("eight_memory") else UNKNOWN,
        f"{gather}, each waited for": seconds(record.get("latency")),
        f"{gather}, fifty in a row": seconds(record.get("latency_in_a_row")),
        **{act: seconds(taken) for act, taken in record.get("costs", {}).items()},
        **{f"a draw in the parent: {part}": seconds(taken) for part, taken in record.get("parent", {}).items()},
        **{
            f"share of a draw: {part}": f"{100 * share:.0f} %"
            for part, share in record.get("parts", ())
            if share >= 0.005
        },
    }
    return table(("measure", "value"), rows.items())


def _both(mib: dict[str, str], process: str) -> str:
    return f"{mib.get(f'{process}_early', UNKNOWN)}, {mib.get(f'{process}_late', UNKNOWN)}"


def registration(record: Record) -> str:
    """`symm bench registration`: what leaving costs, and the memory that is held."""
    return "\n".join(filter(None, (leaving(record["leaving"]), held(record.get("held", ())))))


def leaving(rows: Sequence[Record]) -> str:
    """Own time by segments and design, and how many times longer the snapshot takes than `deferred`."""
    by = {(row["history"], row["segments"], row["pool"]): row for row in rows}
    pools = measured(key[2] for key in by)
    shown = [
        (
            "100,000 entries" if history else "none",
            segments,
            *(number(1e6 * by[history, segments, pool]["own"]) for pool in pools),
            number(round(by[history, segments, "snapshot-once"]["times"], 1)),
        )
        for history, segments in dict.fromkeys(key[:2] for key in by)
    ]
    head = ("allocator history", "segments", *(f"`{pool}`, µs" for pool in pools), "snapshot / deferred")
    return table(head, shown)


def held(rows: Sequence[Record]) -> str:
    """MiB that one rank held at most, by topology and design."""
    by = {(row["topology"], row["pool"]): row["most"] for row in rows}
    pools = measured(key[1] for key in by)
    shown = [
        (topology, *(f"{by[topology, pool] / (1 << 20):.0f}" for pool in pools))
        for topology in dict.fromkeys(key[0] for key in by)
    ]
    return table(("topology", *(f"`{pool}`, MiB" for pool in pools)), shown) if shown else ""


def hostile(record: Record) -> str:
    """`make hostile`: a row for each kind of act."""
    rows = [
        (each["kind"].replace("_", "-"), number(each["number"]), len(each["failures"]), each["demanded"])
        for each in record["hostile"]
    ]
    whole = (seconds(record["seconds"]), record["seed"], f"{record['share']:g}")
    text = table(("kind", "acts", "failures", "demanded"), rows)
    return text + "\n" + table(("in all", "seed", "share"), [whole])


def scaling(record: Record) -> str:
    """`docs/measurements/shards.py`: nights of some shards, and what follows for more."""
    measured = ("shards", "draws_per_second", "draws", "scenarios", "findings", "busy")
    rows = [[number(each[key]) for key in measured] for each in record["scaling"]]
    text = table(("shards", "a second", "draws", "scenarios", "findings", "cores a shard"), rows)
    keys = ("shards", "cores", "own_cores", "this_machine")
    expected = [[number(each[key]) for key in keys] for each in record["model"]]
    return text + "\n" + table(("shards", "cores they need", "expected a second", "on this machine"), expected)


def drawing(record: Record) -> str:
    """`symm fuzz --dry`: the totals, and a row for each histogram."""
    totals = [*drawn.UNITS, "layouts", "groups"]
    rows = [(unit, name, ", ".join(shares)) for unit, name, shares in drawn.rows(record)]
    text = table(totals, [[number(record[name]) for name in totals]])
    return text + "\n" + table(("of all", "by", "shares"), rows)


FUZZ = "findings"


def speeds(record: Record) -> str:
    """`symm bench collectives`: a table for each operation, a row for each size."""
    return "\n".join(_speeds(op, record["rows"]) for op in dict.fromkeys(row["op"] for row in record["rows"]))


def _speeds(op: str, rows: Sequence[Record]) -> str:
    cells = {(row["nbytes"], row["contender"]): row for row in rows if row["op"] == op}
    sizes, names = (dict.fromkeys(key[at] for key in cells) for at in (0, 1))
    lines = [(size_text(each), *(_speed(cells.get((each, name))) for name in names)) for each in sizes]
    return f"`{op}`\n\n" + table(("bytes", *names), lines)


def speeds_by_ranks(record: Record) -> str:
    """The same on several numbers of ranks: a table for each operation, a row for each size and contender."""
    points, why = record["by_ranks"], {table["world"]: table["why_not"] for table in record["worlds"]}
    tables = [
        _by_ranks(op, [point for point in points if point["op"] == op], why)
        for op in dict.fromkeys(point["op"] for point in points)
    ]
    reasons = dict.fromkeys(filter(None, why.values()))
    return "\n".join([*tables, *(f"\\* not comparable with other machines: {reason}\n" for reason in reasons)])


def _by_ranks(op: str, points: Sequence[Record], why_not: Mapping[int, str]) -> str:
    worlds = sorted({point["world"] for point in points})
    found = {(point["nbytes"], point["contender"], point["world"]): point for point in points}
    rows = []
    for nbytes, name in dict.fromkeys((point["nbytes"], point["contender"]) for point in points):
        line = [found.get((nbytes, name, world)) for world in worlds]
        at_most = [line[-1] and line[-1][key] for key in ("growth", "to_copies")]
        shown = [f"{value:.2f}" if value else UNKNOWN for value in at_most]
        rows.append((size_text(nbytes), name, *map(_speed, line), *shown))
    head = (
        "bytes",
        "by",
        *(f"{world}{'*' if why_not.get(world) else ''} ranks" for world in worlds),
        "growth",
        "to copies",
    )
    return f"`{op}`\n\n" + table(head, rows)


def _speed(row: Record | None) -> str:
    """Such as `2.7 (2.45)`: µs, and how many times faster than the library's best."""
    if row is None or not row["time"]:
        return row["state"] if row else UNKNOWN
    return f"{row['time'] * 1e6:.1f}" + (f" ({1 / row['ratio']:.2f})" if row["ratio"] else "")


KINDS = {
    FUZZ: campaign,
    "by_call": drawing,
    "cells": matrix,
    "leaving": registration,
    "spawned": draws,
    "faults": faults,
    "disagreements": agreement,
    "hostile": hostile,
    "scaling": scaling,
    "why_not": speeds,
    "by_ranks": speeds_by_ranks,
    "figures": others,
}
"""By the key that a command writes, in the order of the page. Asked for from the last on, since others may write
`findings` too."""


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in _lines(head, rows))


def _lines(head: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[Iterable[object]]:
    yield head
    yield ["---"] * len(head)
    yield from rows


def number(value: float | None) -> str:
    """A count whole, a measure with what matters of it; thousands apart."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def seconds(value: float | None) -> str:
    """In the unit that a person reads."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms" if value >= 1e-3 else f"{1e6 * value:.0f} µs"


def size(found: Record | None) -> str:
    """Such as `8 ranks, 11 steps`."""
    return f"{found['world']} ranks, {found['steps']} steps" if found and found.get("world") else UNKNOWN


if __name__ == "__main__":
    PAGE.write_text(page(records()))
