"""What a person sees: progress while drawing, findings as arguments, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.campaign.keeper import Found
from harness.campaign.tally import Tally
from harness.oracle.findings import Record
from harness.report.frames import places
from harness.report.listing import layout, listing
from harness.scenario.scenario import Scenario
from harness.scenario.topology import Topology
from harness.studies.agree.comparison import Agreement, Disagreement
from harness.studies.agree.facts import ANYWHERE
from harness.studies.faults.proof import Outcome
from harness.studies.matrix import Cell

LONGEST = 10
"""Lines of a disagreement that are shown."""


class Drawing(Protocol):
    """Scenarios being drawn and run, and by name what was found so far."""

    @property
    def draws(self) -> int: ...
    @property
    def shrinking(self) -> int: ...
    @property
    def draws_per_second(self) -> float: ...
    @property
    def found(self) -> Mapping[str, object]: ...


@contextmanager
def progress(console: Console, draws: int | None, nothing: str = "no finding") -> Iterator[Callable[[Drawing], None]]:
    """A bar with draws, draws a second and findings; call what is yielded after each draw.

    Where no terminal shows the bar, each finding becomes a line when it is found.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]:.1f} draws/s"),
        TextColumn("{task.fields[found]}"),
    )
    told: set[str] = set()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=draws, rate=0.0, found=nothing)

        def update(tally: Drawing) -> None:
            for new in [name for name in tally.found if name not in told]:
                told.add(new)
                if not console.is_terminal:
                    console.print(f"{new} after {tally.draws} draws", highlight=False)
            names = ", ".join(tally.found) or nothing
            what = f"drawing; {tally.shrinking} runs to shrink" if tally.found else "drawing"
            bar.update(task, completed=tally.draws, rate=tally.draws_per_second, found=names, description=what)

        yield update


def summary(console: Console, tally: Tally) -> None:
    """One paragraph on what a campaign covered, then its findings."""
    share = 100 * tally.vacuous / tally.draws if tally.draws else 0.0
    nothing = "no finding" if tally.vacuous < tally.draws else "nothing was tested"
    console.print(
        f"{tally.draws} draws in {tally.seconds:.1f} s ({tally.draws_per_second:.1f}/s): {len(tally.layouts)} layouts, "
        f"{len(tally.groups)} groups, {tally.collectives} collectives, {tally.windows} windows; "
        f"{tally.vacuous} vacuous ({share:.0f} %); "
        f"{f'path unknown in {tally.unseen} collectives; ' if tally.unseen else ''}"
        f"{f'{len(tally.found)} rule(s) broken' if tally.found else nothing}.",
        highlight=False,
    )
    if tally.settled is not None:
        console.print(f"It ended {tally.settled} draws after the first finding.", highlight=False)
    for found in tally.found.values():
        _found(console, found)


def _found(console: Console, found: Found) -> None:
    finding(console, found.finding, found.scenario)
    console.print(
        f"  {found.story}\n  replay: symm replay {found.seed_file}\n",
        highlight=False,
        soft_wrap=True,
    )


def finding(console: Console, record: Record, scenario: Scenario) -> None:
    """A finding with the program it rests on, the step where it shows marked, and where ranks are that hung."""
    lines = [record.explanation, "", *listing(scenario, record.step)]
    stacks = [*places(record)]
    if stacks:
        lines += ["", *stacks]
    console.print(Panel(escape("\n".join(lines)), title=escape(record.rule), title_align="left", highlight=False))


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over things done one after another; call what is yielded with what came of each.

    Where no terminal shows the bar, each becomes a line.
    """
    counts = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    said_so_far = TextColumn("{task.description}")
    with Progress(*counts, said_so_far, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def advance(said: str) -> None:
            bar.update(task, advance=1, description=escape(said))
            if not console.is_terminal:
                console.print(said, highlight=False, markup=False, soft_wrap=True)

        yield advance


def matrix(console: Console, cells: Sequence[Cell]) -> None:
    """The verdict matrix: a table for each topology."""
    for name in dict.fromkeys(cell.topology for cell in cells):
        rows = [(c.sites, c.tokens, c.pool, c.verdict) for c in cells if c.topology == name]
        table(console, ("sites", "tokens", "pool", "verdict"), rows, title=name)


def faults(console: Console, outcomes: Sequence[Outcome], clean: Tally) -> None:
    """The planted faults, and the draws without any."""
    rows = []
    for outcome in outcomes:
        said = outcome.as_data()
        size = f"{said['world']}, {said['steps']}" if outcome.found else ""
        found = f"{said['found']} of {said['of']}"
        rules = "\n".join(map(str, outcome.rules))
        rows.append((said["id"], outcome.fault.name, found, rules, said["median_draws"], said["median_seconds"], size))
    columns = "fault", "name", "found", "rules", "draws", "seconds", "ranks, steps"
    if rows:
        table(console, columns, [["" if cell is None else str(cell) for cell in row] for row in rows])
    found = ", ".join(clean.found) or "no finding"
    if clean.draws:
        console.print(f"Without a fault: {clean.draws} draws, {found}.", highlight=False)
    for rule, draws in clean.expected.items():
        console.print(f"  expected in {draws} draw(s), of unequal sizes without agreement: {rule}", highlight=False)


def agreement(console: Console, compared: Agreement, names: tuple[str, str]) -> None:
    """What a comparison of two worlds covered, why draws differed that may, and the disagreements."""
    counts = ", ".join(f"{fact} {count}" for fact, count in compared.compared.items())
    console.print(
        f"{compared.draws} draws in {compared.seconds:.1f} s ({compared.draws_per_second:.1f}/s); compared: {counts}; "
        f"{f'{len(compared.found)} fact(s) disagree' if compared.found else 'no disagreement'}.",
        highlight=False,
    )
    for reason, count in compared.accounted.items():
        if count:
            console.print(f"  accounted for in {count} draw(s): {reason}", highlight=False)
    for found in compared.found.values():
        _disagreement(console, found, names)


def _disagreement(console: Console, found: Disagreement, names: tuple[str, str]) -> None:
    """What differs, side by side, and the program."""
    sides = Table("", *names, box=None, padding=(0, 2, 0, 0))
    for each in found.differences[:LONGEST]:
        sides.add_row(*map(escape, (str(each.where), each.first, each.second)))
    more = len(found.differences) - LONGEST
    marked = next((each.where.step for each in found.differences), ANYWHERE)
    lines = [f"and {more} more", ""] if more > 0 else [""]
    program = "\n".join(map(escape, [*lines, *listing(found.scenario, marked)]))
    console.print(Panel(Group(sides, program), title=escape(found.fact), title_align="left", highlight=False))
    console.print(
        f"  found after {found.draws_to_find} draws, shrunk to {found.scenario.world} ranks and "
        f"{len(found.scenario.steps)} steps\n"
        + "".join(f"  replay: symm replay {found.seed_file} --substrate {name}\n" for name in dict.fromkeys(names)),
        highlight=False,
        soft_wrap=True,
    )


def topology(console: Console, shown: Topology) -> None:
    """A topology's families as a table."""
    title = escape(f"{shown.name}: {shown.world} ranks ({shown.convention})")
    table = Table(title=title, title_justify="left")
    for column in ("family", "width", "groups"):
        table.add_column(column)
    for name, partition in shown.families.items():
        groups = " ".join(str(list(group)) for group in partition)
        table.add_row(name, str(len(partition[0])), escape(groups))
    console.print(table)
    if shown.note:
        console.print(shown.note, highlight=False, markup=False)


def topologies(console: Console, listed: Sequence[Topology]) -> None:
    """Topologies by name. What each stands for is told by `topology`."""
    rows = [(each.name, str(each.world), str(len(set(each.node_of))), layout(each)) for each in listed]
    table(console, ("name", "ranks", "nodes", "layout"), rows)
    console.print("symm show NAME tells what one stands for, and its groups", highlight=False)


def table(console: Console, columns: Iterable[str], rows: Iterable[Iterable[str]], title: str = "") -> None:
    """A plain table."""
    shown = Table(title=title or None, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, no_wrap=index == 0, overflow="fold", min_width=len(column))
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    console.print(shown)
