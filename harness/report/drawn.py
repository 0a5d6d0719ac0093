"""What was drawn, for programs in counts and for people in shares.

Invariant: the shares of a histogram are of its own sum, and what never came up is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from harness.report.data import SCHEMA
from harness.report.terminal import plain
from harness.studies.drawing.drawn import EXACT, UNITS, Drawn, Histogram
from harness.text import counted

BARS = ("steps", "collectives", "live_buffers", "groups")
"""Histograms in which large numbers share bars."""
BINARY = "B", "KiB", "MiB", "GiB"


def as_data(drawn: Drawn, seed: int, environment: dict[str, Any]) -> dict[str, Any]:
    """The account: totals, then histograms by unit and name. A key that is a number is the least of its bar: of
    `bytes` up to the next power of two, of others the number itself, or above 16 up to one above the next."""
    return {
        "schema": SCHEMA,
        "seed": seed,
        **drawn.totals,
        "layouts": len(drawn.layouts),
        "groups": len(drawn.groups),
        **{_key(unit): {name: _ordered(histogram) for name, histogram in drawn.by[unit].items()} for unit in UNITS},
        "environment": environment,
    }


def show(console: Console, data: Mapping[str, Any]) -> None:
    """A line on the whole, then a block for each unit."""
    layouts, groups = counted(data["layouts"], "layout"), counted(data["groups"], "group")
    console.print(f"Seed {data['seed']}: {layouts}, {groups}. Nothing ran.", highlight=False)
    above = ""
    for unit, name, found in rows(data):
        if unit != above:
            console.print(f"{data[unit]:,} {unit}", highlight=False)
        above = unit
        for line in _filled(name, found, console.width):
            console.print(plain(line), highlight=False, soft_wrap=True)


def rows(data: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """The unit, the name and the shares of each histogram."""
    for unit in UNITS:
        for name, histogram in data[_key(unit)].items():
            yield unit, name.replace("_", " "), shares(name, histogram)


def shares(name: str, histogram: Mapping[str, int]) -> list[str]:
    """The share of each bar, such as `sum: 41 %`, and last those without any."""
    total = sum(histogram.values())
    found = [f"{label(name, key)}: {_percent(count / total)}" for key, count in histogram.items() if count]
    never = [label(name, key) for key, count in histogram.items() if not count]
    return [*found, *(each if index else f"never: {each}" for index, each in enumerate(never))]


def label(name: str, key: str) -> str:
    """A bar as people read it: `4 KiB`, or `17 to 32`."""
    if name == "bytes":
        number, power = int(key), max(0, int(key).bit_length() - 1) // 10
        return f"{number >> 10 * power} {BINARY[power]}"
    if name in BARS and int(key) > EXACT:
        return f"{key} to {2 * (int(key) - 1)}"
    return key


@contextmanager
def progress(console: Console, draws: int) -> Iterator[Callable[[], None]]:
    """A bar where a terminal shows it; call what is yielded after each draw."""
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress("drawing", *columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=draws)
        yield lambda: shown.advance(task)


def _key(unit: str) -> str:
    """Such as `by_draw`."""
    return f"by_{unit.removesuffix('s')}"


def _ordered(histogram: Histogram) -> dict[str, int]:
    """Numbers in their order, names in the one in which they are declared."""
    is_of_numbers = all(isinstance(key, int) for key in histogram)
    return {str(key): histogram[key] for key in (sorted(histogram) if is_of_numbers else histogram)}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def _filled(name: str, shares: list[str], width: int) -> Iterator[str]:
    """The shares in lines of a width, of which the first names the histogram."""
    line, margin = f"  {name:15}", " " * 17
    for index, share in enumerate(shares):
        if index and len(line) + len(share) + 1 > width:
            yield line.rstrip()
            line = margin
        line += share if index == len(shares) - 1 else f"{share}, "
    yield line.rstrip()
