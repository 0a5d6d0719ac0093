"""What came of a hunt, a planted fault or a cell of the matrix, in a sentence."""

from __future__ import annotations

import statistics
from pathlib import Path

from harness.campaign.keeper import Found
from harness.studies.faults.proof import Hunt, Outcome
from harness.studies.matrix import Cell
from harness.studies.systems import Tried
from harness.text import counted
from harness.trace.trace import TEARDOWN

ENDS = {
    "smallest": "",
    "race": "; it fails in some runs only, so a smaller case may have been missed",
    "time": "; the time for making it smaller was up",
    "unfinished": "; making it smaller was not finished",
}
"""What is added to a finding, by how its shrinking ended."""


def story(found: Found) -> str:
    """How a finding was found and shrunk."""
    smallest = found.scenario.world, len(found.scenario.steps)
    world, steps = found.found_at
    shrunk = f", shrunk to {_size(*smallest)}" if smallest != found.found_at else ""
    after = counted(found.draws_to_find, "draw")
    found_on = f"found after {after} on {counted(world, 'rank')} in {counted(steps, 'step')}{shrunk}"
    return found_on + _end(found)


def _end(found: Found) -> str:
    """How shrinking ended, and how often the case failed on fresh ranks where it did not in every run."""
    reruns = found.reruns
    if reruns is None or reruns.failed == reruns.runs:
        return ENDS[found.shrunk]
    runs, ended = counted(reruns.runs, "run"), "" if found.shrunk == "race" else ENDS[found.shrunk]
    if reruns.failed:
        missed = ", so a smaller case may have been missed" if found.shrunk == "race" else ""
        return f"{ended}; it fails in {reruns.failed} of {runs} on fresh ranks{missed}"
    if reruns.after is None:
        return f"{ended}; not reproducible: 0 of {runs} on fresh ranks failed"
    return f"{ended}; reproducible after {counted(reruns.after, 'draw')}: alone, 0 of {runs} on fresh ranks failed"


def of_fault(outcome: Outcome) -> str:
    """With how many seeds a planted fault was found, and how soon, and what each other hunt ended with."""
    found, seeds = outcome.found, counted(len(outcome.hunts), "seed")
    others = "".join(_missed(seed, hunt) for seed, hunt in outcome.missed.items())
    if not found:
        return f"missed with {seeds}{others}"
    after = counted(statistics.median(hunt.draws for hunt in found), "draw")
    return f"found with {len(found)} of {seeds}, after {after} in the median{others}"


def _missed(seed: int, hunt: Hunt) -> str:
    after = counted(hunt.draws, "draw")
    if not hunt.rule:
        return f"; seed {seed}: no finding in {after}"
    return f"; seed {seed}: {hunt.rule} after {after}, in {hunt.seed_file}"


def of_cell(cell: Cell) -> str:
    """Clean, or each rule that was broken, with the smallest case and its seed file."""
    cut = "" if cell.is_complete else " (time was up)"
    if not cell.found:
        in_all = f"clean in {counted(cell.tested, 'draw')}" if cell.tested else f"nothing tested in {_draws(cell)}"
        return in_all + cut
    return "\n".join(
        f"{found.finding.rule} after {counted(found.draws_to_find, 'draw')}: "
        f"{counted(found.scenario.world, 'rank')}, {counted(len(found.scenario.steps), 'step')}{cut}\n"
        f"  {Path(found.seed_file).name}"
        for found in cell.found
    )


def _draws(cell: Cell) -> str:
    return counted(cell.draws, "draw")


def _size(ranks: int, steps: int) -> str:
    return f"{counted(ranks, 'rank')} and {counted(steps, 'step')}"


def of_system(tried: Tried) -> str:
    """Clean, or the rules that were broken on a system, each at its step."""
    if tried.refused:
        return f"not run: {tried.refused}"
    rules = (f"{each.key} at {'the end' if each.step >= TEARDOWN else f'step {each.step}'}" for each in tried.findings)
    return "\n".join(dict.fromkeys(rules)) or "clean"


def first_difference(tried: Tried, own: str) -> str:
    """Where a system first goes another way than `own`, and what it does there."""
    if tried.first is None:
        return "" if tried.system == own else "none seen"
    where, before, here = tried.first
    return f"{where}: {before} with {own}, {here} here"
