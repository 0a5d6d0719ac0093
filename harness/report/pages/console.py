"""An account in a terminal: the verdict first, then memory, waits, data, steps, groups, other systems, and the program.

Invariant: it shows what the page shows, from the same account, with characters for its pictures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import accumulate

from rich.console import Console

from harness.oracle.case import ranks_text
from harness.report import terminal
from harness.report.pages.account import Account, Outcome
from harness.report.pages.placing import SIGNS, Item, MemoryView, lanes_view, memory_view
from harness.text import counted

NARROW, WIDE = 60, 110
CELL = 5
"""Characters of a step in the lanes."""


OUTPUTS = 3
"""Wrong outputs that are shown."""


def show(console: Console, account: Account) -> None:
    """Print all of it."""
    verdict = account.verdict
    console.print(f"[bold red]✗ {terminal.plain(verdict.rule)}[/] {terminal.plain(account.name)}", highlight=False)
    console.print(f"[bold]{terminal.plain(verdict.headline)}[/]", highlight=False)
    for text in (verdict.why or verdict.argument, verdict.effect, account.contrast, account.not_run):
        if text:
            console.print(terminal.plain(text), highlight=False)
    if account.note:
        console.print(terminal.plain(f"note: {account.note}"), highlight=False)
    width = min(WIDE, max(NARROW, console.width)) - 2
    for title, lines in _parts(account, width):
        if lines:
            console.print(f"\n[bold]{terminal.plain(title)}[/]", highlight=False)
            for line in lines:
                wrapped = textwrap.fill(line, width + 2, subsequent_indent="    ") if len(line) > width + 2 else line
                console.print(terminal.plain(wrapped), highlight=False)
    console.print(terminal.plain(f"\nreplay: {account.command}"), highlight=False, soft_wrap=True)


def _parts(account: Account, width: int) -> Iterator[tuple[str, list[str]]]:
    memory = account.memory
    yield (f"memory at {memory.moment}" if memory else "", [*_memory(account, width)])
    yield "who waits for whom", [*_waits(account)]
    if account.verdict.rule in ("registration-skew", "hang", "segment-mismatch"):
        yield "order of registrations", [*_turns(account)]
    yield "data", [*_outputs(account)]
    yield "steps and windows", [*_lanes(account)]
    yield "process groups", [*_layout(account)]
    yield "other systems", [*_outcomes(account.outcomes)]
    yield "program", [*_program(account)]
    yield "system", [f"  {name}: {value}" for name, value in account.system.items()]


def _memory(account: Account, width: int) -> Iterator[str]:
    if account.memory is None:
        return
    view = memory_view(account.memory)
    places = columns(view, width)
    for rank in view.ranks:
        yield f"  rank {rank.rank}: {rank.sentence}"
        for segment in rank.segments:
            yield f"  {segment.title}"
            for row in dict.fromkeys(item.row for item in segment.items):
                yield from bars([item for item in segment.items if item.row == row], places)


def columns(view: MemoryView, width: int) -> list[int]:
    """The character at which each line of the grid stands."""
    shares = [float(each.split(",")[1].removesuffix("fr)")) for each in view.columns.split()]
    whole = sum(shares) or 1.0
    return [0, *(round(width * at / whole) for at in accumulate(shares))]


def bars(items: Sequence[Item], places: Sequence[int]) -> Iterator[str]:
    """A row of the map: what fits is written into its bar, the rest behind the row, or below."""
    line, behind = "", []
    for item in items:
        if item.classes.startswith("label"):
            continue
        begin, end = places[item.begin - 1], places[min(item.end, len(places)) - 1]
        line = line[:begin].ljust(begin)
        if item.classes == "tick":
            line += f"|{item.text}"
            continue
        room = max(0, end - begin - 2)
        whole = item.text or item.title
        text = whole if len(whole) <= room else ""
        behind += [] if text else [whole]
        left, right = "()" if item.classes == "free" else "[]"
        fill = "·" if item.classes == "free" else "!" if "wanted" in item.classes else "="
        line += f"{left}{text.ljust(room, fill) if not text else text.center(room, fill)}{right}"
    rest = "; ".join(behind)
    if not rest or len(line) + len(rest) + 2 <= places[-1]:
        yield f"  {line}  {rest}".rstrip()
    else:
        yield f"  {line}"
        yield f"    {rest}"


def _waits(account: Account) -> Iterator[str]:
    for wait in account.waits:
        one = "s" if len(wait.ranks) == 1 else ""
        whom = f"wait{one} for {ranks_text(wait.awaited)}" if wait.awaited else f"wait{one} for no rank"
        yield f"  {ranks_text(wait.ranks)} {whom}: {wait.place}"


def _turns(account: Account) -> Iterator[str]:
    for each in account.turns:
        most = max(map(len, each.ranks.values()))
        for rank, turns in each.ranks.items():
            texts = [turn.text for turn in turns] + ["✗ never registered"] * (most - len(turns))
            yield f"  {each.owner} rank {rank}: {' | '.join(texts)}"


def _outputs(account: Account) -> Iterator[str]:
    for out in account.outputs[:OUTPUTS]:
        wrong = f"{out.wrong} of {out.elements} wrong"
        yield f"  rank {out.rank}, output {out.buffer!r} of {out.call}: {wrong}. {out.origin}"
        signs = {"right": "✓", "wrong": "✗", "unsure": "?"}
        yield "    " + " ".join(
            f"[{signs[chunk.state]} {chunk.sender} {chunk.start}:{chunk.end}]" for chunk in out.chunks
        )
        yield f"    first at index {out.index}: expected {out.expected}, found {out.found}"
    if more := len(account.outputs[OUTPUTS:]):
        yield f"  and {counted(more, 'more wrong output')}"


def _lanes(account: Account) -> Iterator[str]:
    if not account.lanes:
        return
    view, steps = lanes_view(account), len(account.program)
    marks = (f"{'→' if line.is_marked else ''}{line.step}" for line in account.program)
    yield "  " + "".join(["step".ljust(9), *(mark.center(CELL) for mark in marks)])
    for row in dict.fromkeys(item.row for item in view.items if item.row > 1):
        items = [item for item in view.items if item.row == row]
        if any("cell" in item.classes for item in items):
            who, *cells, end = items
            yield "  " + who.text.ljust(9) + "".join(item.sign.center(CELL) for item in cells) + f"  {end.text}"
        else:
            yield "  " + " " * 9 + _windows(items, steps)
    yield f"  {SIGNS['done']} ran · ✗ the finding shows here · … never came out · ⊘ could not run · ○ no part in it"


def _windows(items: Sequence[Item], steps: int) -> str:
    line, names = "", []
    for item in items:
        begin, end = (item.begin - 2) * CELL, (min(item.end, steps + 2) - 2) * CELL
        line = line.ljust(begin) + "━" * max(1, end - begin)
        names.append(item.text)
    return f"{line.ljust(steps * CELL)}  {'; '.join(names)}"


def _layout(account: Account) -> Iterator[str]:
    for family in account.families:
        marks = {(True, True): " (makes the call, has a window)", (True, False): " (makes the call)"}
        marks[False, True] = " (has a window there)"
        groups = (f"{each.name}{marks.get((each.calls, each.owns), '')}" for each in family.members)
        yield f"  {' '.join(groups)}"
    yield from (f"  {line}" for line in account.places)


def _outcomes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    wide = max((len(each.system) for each in outcomes), default=0)
    for each in outcomes:
        rules = f"{'✗' if each.was_run else '–'} {', '.join(each.rules)}" if each.rules else "✓ clean"
        difference = f"; {each.difference}" if each.difference else ""
        yield f"  {each.system.ljust(wide)}  {rules}{difference}{' (this seed)' if each.is_own else ''}"


def _program(account: Account) -> Iterator[str]:
    for line in account.program:
        yield f"{'→' if line.is_marked else ' '} {line.step:3} {line.kind} {line.text}"
