"""A night as a person reads it: its shards, what is missing of it, and its findings, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from harness.campaign import seeds
from harness.nights.joined import Facts, place
from harness.nights.known import MET
from harness.nights.merge import Joined
from harness.report import terminal
from harness.report.nights.news import took
from harness.text import counted


def show(console: Console, merged: Joined, facts: Facts, into: Path) -> None:
    """A table of the shards, a line on the whole, what is missing or damaged, and each finding with its replay.

    `facts` is the JSON of `merged`, as it was written to the folder `into`.
    """
    terminal.table(console, ("shard", "host", "draws", "draws/s", "seconds", "ended"), map(_row, facts["shards"]))
    found = facts["findings"]
    console.print(
        f"{counted(facts['draws'], 'draw')} ({facts['draws_per_second']:.1f}/s together), "
        f"{counted(len(found), 'finding') if found else 'no finding'}; kept in {terminal.plain(str(into))}.",
        highlight=False,
        soft_wrap=True,
    )
    for line in _notes(merged, facts):
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)
    for key, entry in zip(merged.keys, found, strict=True):
        _finding(console, merged, key, entry)


def _row(run: Facts) -> tuple[str, ...]:
    index, of = place(run)
    how = "interrupted" if run.get("interrupted") else "by itself"
    rate, seconds = f"{run.get('draws_per_second', 0):.1f}", f"{run.get('seconds', 0):.0f}"
    return f"{index} of {of}", str(run.get("host") or ""), str(run["draws"]), rate, seconds, how


def _notes(merged: Joined, facts: Facts) -> Iterator[str]:
    for lost in facts["missing"]:
        which = ", ".join(map(str, lost["shards"]))
        again = f"--shard {lost['shards'][0]}/{lost['of']} --seed {lost['seed']}"
        yield f"Missing: shard {which} of {lost['of']} left nothing. The same command with {again} draws it."
    if len({run.get("seed") for run in facts["shards"]}) > 1:
        yield "The runs have different seeds, so they are not shards of one night."
    if facts.get("known_seconds"):
        yield took(facts["known_seconds"])
    yield from (f"Left out: {problem}" for problem in merged.problems)


def _finding(console: Console, merged: Joined, key: str, entry: Facts) -> None:
    """A finding; of one that was known before, a line."""
    status = f"{entry['status']}: " if entry.get("status") else ""
    by = ", ".join(map(str, entry["shards"]))
    found_by = f"  {status}found by shard {by}" if by else f"  {status}found"
    kept = merged.kept(key)
    record = kept.record if kept else None
    again = f"\n  replay: {seeds.command(entry['seed_file'], kept.seed.scenario.system)}" if kept else ""
    if kept and record and entry.get("status") not in MET:
        terminal.finding(console, record, kept.seed.scenario)
        console.print(terminal.plain(f"{found_by}{again}\n"), highlight=False, soft_wrap=True)
    else:
        console.print(terminal.plain(f"{entry['rule']}\n{found_by}{again}\n"), highlight=False, soft_wrap=True)
