"""What a night says of findings that are known: counted, flaky, gone, and what was not tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from harness.campaign.tally import Tally
from harness.nights.known import Folder, Known, share
from harness.report.terminal import plain
from harness.text import counted

ONLY_KNOWN = "Nothing new was found: known findings alone are no failure, and the exit status is 0."


def unread(console: Console, folder: Folder) -> None:
    """A line for each file of the known ones that is no seed file."""
    for sentence in folder.unread:
        console.print(plain(f"not taken as known: {sentence}"), highlight=False, soft_wrap=True)


def show(console: Console, tally: Tally, folder: Folder, seconds: float) -> None:
    """How many findings are new, known, flaky and gone, a line for each that is not new, and the time that they took of
    so many seconds."""
    if not folder.is_given:
        return
    of = {status: [known for known in folder if known.status == status] for status in ("known", "flaky", "gone")}
    counts = ", ".join(f"{len(each)} {status}" for status, each in of.items())
    tried = sum(bool(known.runs) for known in folder)
    of_all = (
        f"of {counted(len(folder.all), 'known finding')}, {tried} ran again" if folder.all else "none was known before"
    )
    console.print(f"{len(tally.found)} new, {counts}; {of_all}.", highlight=False, soft_wrap=True)
    for status, each in of.items():
        for known in each:
            console.print(plain(f"  {status}: {_line(known)}"), highlight=False, soft_wrap=True)
    for known in (each for each in folder if each.refused):
        line = f"  not run again: {known.path}: {known.refused}"
        console.print(plain(line), highlight=False, soft_wrap=True)
    if folder.all:
        console.print(took(spent(tally, folder, seconds)), highlight=False, soft_wrap=True)
    if not tally.found and (of["known"] or of["flaky"]):
        console.print(ONLY_KNOWN, highlight=False, soft_wrap=True)


def took(seconds: Mapping[str, float]) -> str:
    """A sentence on the share of the time that went into known findings, of what `spent` gives."""
    draws = f"{100 * share(seconds, 'draws'):.1f}"
    return f"Known findings cost {100 * share(seconds):.1f} % of the time. The draws that showed one took {draws} %."


def spent(tally: Tally, folder: Folder, seconds: float) -> dict[str, float]:
    """The seconds of a night, and those of them that known findings took: their cases before it, the draws that met
    them, and shrinking that ended in one."""
    parts = {"replayed": folder.replayed, "draws": tally.known_draws, "shrinking": tally.known_shrinking}
    return {name: round(value, 3) for name, value in {**parts, "night": seconds}.items()}


def _line(known: Known) -> str:
    """Such as `wrong-owner 0123456789abcdef, in 12 draws, known/wrong-owner-0123.json`."""
    told = [f"{known.rule} {known.settled.signature}"]
    if known.settled.draws:
        told.append(f"in {counted(known.settled.draws, 'draw')}")
    if known.rate is not None and known.status == "flaky":
        told.append(f"its case fails in {known.rate[0]} of {counted(known.rate[1], 'run')}")
    if known.status == "gone":
        told.append(f"its case passed in {counted(known.runs, 'run')}")
    return ", ".join([*told, str(known.path)])


def added(facts: dict[str, Any], tally: Tally, folder: Folder, seconds: float) -> dict[str, Any]:
    """The facts of a campaign with what a night of so many seconds says of known findings: those that were met stand
    behind the new ones."""
    met = [_met(known) for known in folder.met]
    gone = [_gone(known) for known in folder if known.status == "gone"]
    known_seconds = spent(tally, folder, seconds)
    time = {"known_seconds": known_seconds, "known_share": share(known_seconds)} if folder.is_given else {}
    return {**facts, **time, "findings": [*facts["findings"], *met], "gone": gone}


def _gone(known: Known) -> dict[str, Any]:
    named = {"signature": known.settled.signature, "rule": known.rule, "seed_file": str(known.path)}
    return {**named, "rate": known.rate, "ran": (known.failed, known.runs)}


def _met(known: Known) -> dict[str, Any]:
    seed = known.seed
    record = seed.findings[0]
    return {
        "rule": record.rule,
        **({"cause": record.cause} if record.cause else {}),
        "explanation": record.explanation,
        "seed_file": str(known.path),
        "world": seed.scenario.world,
        "steps": len(seed.scenario.steps),
        "draws": known.settled.draws,
        "signature": known.settled.signature,
        "status": known.status,
        "rate": known.rate,
        "ran": (known.failed, known.runs),
    }
