"""What a person sees: progress while drawing, findings as arguments, and tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import indent, wrap
from typing import NamedTuple, Protocol

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.campaign import seeds
from harness.campaign.keeper import Found
from harness.campaign.replay import Run
from harness.campaign.tally import Tally
from harness.clock import CLOCK, Clock
from harness.oracle.coverage.vacuity import ADVICE
from harness.oracle.findings import Record
from harness.report import verdicts
from harness.report.facts import Speed
from harness.report.frames import places
from harness.report.listing import layout, listing, owners, whereabouts
from harness.scenario.scenario import Scenario
from harness.scenario.topology import Topology
from harness.studies.agree.comparison import Agreement, Disagreement
from harness.studies.agree.facts import ANYWHERE
from harness.studies.faults.proof import Outcome
from harness.studies.matrix import Cell
from harness.text import counted, visible

SENTENCE = 2000
"""Most characters of a sentence that refuses a request."""
HEARTBEAT = 60.0
"""Seconds between two lines of a log that no terminal shows."""
LONGEST = 10
"""Lines of a disagreement that are shown."""
WIDEST = 10_000
"""Characters of a line that no table needs."""
NUMBER = re.compile(r"[-–]?[\d.,]*( %|[KMG])?\*?")
"""A number as tables have it, or a dash in its place."""


class Details(NamedTuple):
    """What is shown of a finding beyond the usual: all of its traceback, and what ranks printed."""

    traceback: bool = False
    output: bool = False


BRIEF = Details()


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
def progress(
    console: Console,
    draws: int | None,
    nothing: str = "no finding",
    minutes: float | None = None,
    speed: Speed | None = None,
    clock: Clock = CLOCK,
) -> Iterator[Callable[[Drawing], None]]:
    """A bar with draws, draws a second and findings; call what is yielded after each draw. `speed` notes each.

    Where no terminal shows the bar, each finding becomes a line when it is found, and a line a minute says how far it
    is: `draws` and `minutes` are what was asked for.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]:.1f} draws/s"),
        TextColumn("{task.fields[found]}"),
    )
    shown: set[str] = set()
    heart = Heartbeat(draws, minutes, nothing, clock)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=draws, rate=0.0, found=nothing)

        def update(tally: Drawing) -> None:
            if speed is not None:
                speed.note(tally.draws)
            if not console.is_terminal and (line := heart.line(tally)):
                console.print(plain(line), highlight=False, soft_wrap=True)
            for new in [name for name in tally.found if name not in shown]:
                shown.add(new)
                if not console.is_terminal:
                    console.print(f"{plain(new)} after {counted(tally.draws, 'draw')}", highlight=False)
            names = plain(", ".join(tally.found)) or nothing
            what = f"drawing; {counted(tally.shrinking, 'run')} to shrink" if tally.found else "drawing"
            bar.update(task, completed=tally.draws, rate=tally.draws_per_second, found=names, description=what)

        yield update


class Heartbeat:
    """A line a minute for a log that no terminal shows, so that a runner does not take the job for dead."""

    def __init__(self, draws: int | None, minutes: float | None, nothing: str, clock: Clock) -> None:
        self._draws, self._seconds = draws, None if minutes is None else 60 * minutes
        self._nothing, self._clock = nothing, clock
        self._began = self._last = clock.now()

    def line(self, tally: Drawing) -> str:
        """What to print now: nothing within a minute of the line before."""
        now = self._clock.now()
        if now - self._last < HEARTBEAT:
            return ""
        self._last = now
        found = counted(len(tally.found), "finding") if tally.found else self._nothing
        so_far = f"{counted(tally.draws, 'draw')}, {tally.draws_per_second:.1f}/s"
        return f"{_clock(now - self._began)}: {so_far}; {found}{self._left(tally, now - self._began)}"

    def _left(self, tally: Drawing, passed: float) -> str:
        """The time that is left: of that asked for, or as the draws so far say."""
        ends = [] if self._seconds is None else [self._seconds - passed]
        if self._draws is not None and tally.draws:
            ends.append((self._draws - tally.draws) * passed / tally.draws)
        return f"; {_clock(max(0.0, min(ends)))} left" if ends else ""


def _clock(seconds: float) -> str:
    """Such as `4:05`, or `1:04:05` with hours."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def summary(console: Console, tally: Tally, details: Details = BRIEF) -> None:
    """One paragraph on what a campaign covered, then its findings."""
    share = 100 * tally.vacuous / tally.draws if tally.draws else 0.0
    nothing = "no finding" if tally.vacuous < tally.draws else "nothing was tested"
    unseen = f"path unknown in {counted(tally.unseen, 'collective')}; " if tally.unseen else ""
    free = f"path left to NCCL in {counted(tally.free, 'collective')}; " if tally.free else ""
    of = f"of {tally.kernel_calls} kernel calls"
    fallen = f"{tally.fell_back} {of} fell back to the library; " if tally.fell_back else ""
    refused = f"{tally.unsupported} {of} not supported by the plug-in; " if tally.unsupported else ""
    if tally.kernel_calls and not tally.by_kernel:
        nothing += ", and the plug-in made no call"
    rules = {found.finding.rule for found in tally.found.values()}
    broken = f"{counted(len(rules), 'rule')} broken" if rules else nothing
    console.print(
        f"{counted(tally.draws, 'draw')} in {tally.seconds:.1f} s ({tally.draws_per_second:.1f}/s): "
        f"{counted(len(tally.layouts), 'layout')}, {counted(len(tally.groups), 'group')}, "
        f"{counted(tally.collectives, 'collective')}, {counted(tally.windows, 'window')}; "
        f"{tally.vacuous} vacuous ({share:.0f} %); {fallen}{refused}{unseen}{free}{broken}.",
        highlight=False,
    )
    for why, draws in sorted(tally.vacuous_by.items(), key=lambda each: -each[1]):
        console.print(f"  {draws} vacuous, {why}: {ADVICE[why]}.", highlight=False, soft_wrap=True)
    if tally.settled is not None:
        console.print(f"It ended {counted(tally.settled, 'draw')} after the first finding.", highlight=False)
    for found in tally.found.values():
        _found(console, found, details)


def _found(console: Console, found: Found, details: Details) -> None:
    finding(console, found.finding, found.scenario, details)
    output(console, found.printed, details)
    again = seeds.command(found.seed_file, found.scenario.system)
    kept = f"replay: {again}" if found.seed_file else "it could not be kept"
    signed = f"  signature {found.signature}\n" if found.signature else ""
    console.print(
        plain(f"  {verdicts.story(found)}\n{signed}  {kept}\n"),
        highlight=False,
        soft_wrap=True,
    )


def finding(console: Console, record: Record, scenario: Scenario, details: Details = BRIEF) -> None:
    """A finding with the program it rests on, the step where it shows marked, and where ranks are that hung."""
    lines = [record.explanation, "", *_folded(listing(scenario, record.step), console.width - 4)]
    stacks = [*places(record, details.traceback)]
    if stacks:
        lines += ["", *stacks]
    console.print(Panel(plain("\n".join(lines)), title=plain(record.rule), title_align="left", highlight=False))


def _folded(lines: Iterable[str], width: int) -> Iterator[str]:
    """A line for each step; the rest of one that is too long goes below its fields."""
    for line in lines:
        yield from wrap(line, max(width, 20), subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)


def size(scenario: Scenario) -> str:
    """Such as `2 ranks and 3 steps`."""
    return f"{counted(scenario.world, 'rank')} and {counted(len(scenario.steps), 'step')}"


def output(console: Console, printed: Sequence[str], details: Details) -> None:
    """What each rank printed in a draw, if that is asked for."""
    for rank, text in enumerate(printed if details.output else ()):
        if text:
            console.print(plain(f"  rank {rank} printed:\n{indent(text, '    ')}"), highlight=False, soft_wrap=True)


def say(console: Console, text: str) -> None:
    """Text from a rank as it comes, which may be a part of a line."""
    console.print(plain(text), end="", highlight=False, soft_wrap=True)


def runs(console: Console, made: Sequence[Run], scenario: Scenario, times: int, details: Details = BRIEF) -> None:
    """The findings of the first of `made` runs that failed, and how many did; `times` runs were asked for. Of output
    that run's, or the last one's if none failed."""
    failed = [run for run in made if run.findings]
    for run in failed[:1]:
        for record in run.findings:
            finding(console, record, scenario, details)
    for run in (failed or [*made][-1:])[:1]:
        output(console, run.printed, details)
    asked = "" if len(made) == times else f" ({times} were asked for)"
    console.print(f"{len(failed)} of {counted(len(made), 'run')}{asked} failed", highlight=False)


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over things done one after another; call what is yielded with what came of each.

    Where no terminal shows the bar, each becomes a line.
    """
    counts = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    latest = TextColumn("{task.description}")
    with Progress(*counts, latest, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def advance(line: str) -> None:
            bar.update(task, advance=1, description=plain(line))
            if not console.is_terminal:
                console.print(plain(line), highlight=False, soft_wrap=True)

        yield advance


def matrix(console: Console, cells: Sequence[Cell]) -> None:
    """The verdict matrix: a table for each topology."""
    for name in dict.fromkeys(cell.topology for cell in cells):
        rows = [(c.sites, c.tokens, c.pool, verdicts.of_cell(c)) for c in cells if c.topology == name]
        table(console, ("sites", "tokens", "pool", "verdict"), rows, title=name)


def faults(console: Console, outcomes: Sequence[Outcome], clean: Tally) -> None:
    """The planted faults, and the draws without any."""
    rows = []
    for outcome in outcomes:
        row = outcome.as_data()
        size = f"{row['world']}, {row['steps']}" if outcome.found else ""
        found = f"{row['found']} of {row['of']}"
        rules = "\n".join(map(str, outcome.rules))
        rows.append((row["id"], outcome.fault.name, found, rules, row["median_draws"], row["median_seconds"], size))
    columns = "fault", "name", "found", "rules", "draws", "seconds", "ranks, steps"
    if rows:
        table(console, columns, [["" if cell is None else str(cell) for cell in row] for row in rows])
    found = ", ".join(clean.found) or "no finding"
    if clean.draws:
        console.print(f"Without a fault: {counted(clean.draws, 'draw')}, {found}.", highlight=False)
    for rule, draws in clean.expected.items():
        console.print(
            f"  expected in {counted(draws, 'draw')}, of unequal sizes without agreement: {rule}", highlight=False
        )


def agreement(console: Console, compared: Agreement, names: tuple[str, str], substrates: Sequence[str]) -> None:
    """What a comparison of two sides covered, why draws differed that may, and the disagreements."""
    counts = ", ".join(f"{fact} {count}" for fact, count in compared.compared.items())
    disagreements = counted(len(compared.found), "disagreement") if compared.found else "no disagreement"
    console.print(
        f"{counted(compared.draws, 'draw')} in {compared.seconds:.1f} s ({compared.draws_per_second:.1f}/s); "
        f"compared: {counts}; {disagreements}.",
        highlight=False,
    )
    for reason, count in compared.accounted.items():
        if count:
            console.print(f"  accounted for in {counted(count, 'draw')}: {reason}", highlight=False)
    for found in compared.found.values():
        _disagreement(console, found, names, substrates)


def _disagreement(console: Console, found: Disagreement, names: tuple[str, str], substrates: Sequence[str]) -> None:
    """What differs, side by side, and the program."""
    sides = Table("", *names, box=None, padding=(0, 2, 0, 0))
    for each in found.differences[:LONGEST]:
        sides.add_row(*map(plain, (str(each.where), each.first, each.second)))
    more = len(found.differences) - LONGEST
    marked = next((each.where.step for each in found.differences), ANYWHERE)
    lines = [f"and {more} more", ""] if more > 0 else [""]
    program = "\n".join(map(plain, [*lines, *_folded(listing(found.scenario, marked), console.width - 4)]))
    console.print(Panel(Group(sides, program), title=plain(found.fact), title_align="left", highlight=False))
    console.print(
        f"  found after {counted(found.draws_to_find, 'draw')}, shrunk to {counted(found.scenario.world, 'rank')} and "
        f"{counted(len(found.scenario.steps), 'step')}\n"
        + "".join(
            plain(f"  replay: {seeds.command(file, found.scenario.system, '--substrate', name)}\n")
            for file in filter(None, (found.seed_file, found.second_file))
            for name in dict.fromkeys(substrates)
        ),
        highlight=False,
        soft_wrap=True,
    )


def topology(console: Console, shown: Topology) -> None:
    """A topology's families as a table."""
    title = plain(f"{shown.name}: {counted(shown.world, 'rank')} ({shown.convention})")
    table = Table(title=title, title_justify="left")
    for column in ("family", "width", "communicators", "groups"):
        table.add_column(column)
    for name, partition in shown.families.items():
        groups = " ".join(str(list(group)) for group in partition)
        widths = sorted({len(group) for group in partition})
        table.add_row(plain(name), ", ".join(map(str, widths)), plain(owners(shown, name)), plain(groups))
    console.print(table)
    for line in whereabouts(shown):
        console.print(plain(line), highlight=False, soft_wrap=True)
    if shown.note:
        console.print(plain(shown.note), highlight=False)


class Screen(Console):
    """Where a command prints: stdout, or stderr. One that cannot be written to raises, and touches no other stream."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  (rich calls this where it has caught BrokenPipeError, and would redirect stdout)


def sentence(text: str) -> str:
    """One visible line of bounded length; of a longer one the middle is left out."""
    line = visible(" ".join(text.split()))
    half = SENTENCE // 2
    return line if len(line) <= SENTENCE else f"{line[:half]} … {line[-half:]}"


def plain(text: str) -> str:
    """Text as it is, for rich: it has no markup, and nothing that a terminal would obey."""
    return escape(visible(text))


def topologies(console: Console, listed: Sequence[Topology]) -> None:
    """Topologies by name; `topology` shows one with its note and its groups."""
    rows = [(each.name, str(each.world), str(len(set(each.node_of))), layout(each)) for each in listed]
    table(console, ("name", "ranks", "nodes", "layout"), rows)
    console.print("symm show NAME prints the note and the groups of one", highlight=False)


def table(console: Console, columns: Iterable[str], rows: Iterable[Iterable[str]], title: str = "") -> None:
    """A plain table. It has no frame where not only its last column would be folded in one. Words are folded before
    numbers are."""
    names, cells = [*columns], [[plain(cell) for cell in row] for row in rows]
    shown, least = _framed(names, cells, title), _framed(names, [[*row[:-1], ""] for row in cells], title)
    if console.measure(least, options=console.options.update(max_width=WIDEST)).maximum > console.width:
        shown.box, shown.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
        shown.pad_edge = shown.show_edge = False
    console.print(shown)


def _framed(names: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    made = Table(title=title or None, title_justify="left")
    for index, name in enumerate(names):
        is_of_numbers = all(NUMBER.fullmatch(row[index]) for row in rows)
        made.add_column(name, no_wrap=index == 0 or is_of_numbers, overflow="fold", min_width=len(name))
    for row in rows:
        made.add_row(*row)
    return made
