"""Measured collectives as inline SVG: lines over sizes, and over numbers of ranks.

Invariant: a plot loads nothing, and each of its lines is named in the colour of the line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from harness.text import visible

WIDTH, HEIGHT, MARGIN = 760, 360, 60
LEGEND, LINE = 170, 20
"""Width of the names of lines, and height of each."""
COLOURS = ("#3584c4", "#d1495b", "#3f9150", "#9b66cc", "#c77d0a", "#0a919f", "#a06a45", "#808080")
"""Each is read on white and on black."""

Points = Sequence[tuple[int, float]]


class Axes(NamedTuple):
    """What a plot shows, its unit, and how places on its axes are written."""

    label: str
    unit: str
    across: Callable[[int], str]
    up: Callable[[float], str]
    height: int = HEIGHT


def lines(found: Mapping[str, Points], axes: Axes) -> Markup:
    """A line for each name, both axes logarithmic. A name without points keeps its colour, and has no line."""
    points = [point for each in found.values() for point in each]
    if not points:
        return Markup("<p>Nothing was timed.</p>")
    height = max(axes.height, LINE * (len(found) + 2))
    places, values = zip(*points, strict=True)
    across, up = _scale(places, MARGIN, WIDTH - LEGEND), _scale(values, height - MARGIN, LINE)
    drawn = [
        f'<text x="{across(place):.1f}" y="{height - MARGIN + LINE}" text-anchor="middle">'
        f"{escape(axes.across(place))}</text>"
        for place in sorted({*places})
    ]
    drawn += [
        f'<text x="{MARGIN - 8}" y="{up(value):.1f}" text-anchor="end">{axes.up(value)}</text>'
        for value in (min(values), max(values))
    ]
    drawn.append(f'<text x="{MARGIN}" y="12" text-anchor="end">{axes.unit}</text>')
    for index, (name, line) in enumerate(found.items()):
        if not line:
            continue
        colour = COLOURS[index % len(COLOURS)]
        at = " ".join(f"{across(place):.1f},{up(value):.1f}" for place, value in sorted(line))
        drawn.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [
            f'<circle cx="{across(place):.1f}" cy="{up(value):.1f}" r="3" fill="{colour}"/>' for place, value in line
        ]
        left, top = WIDTH - LEGEND + 15, LINE * index + 30
        drawn.append(f'<text x="{left}" y="{top}" style="fill:{colour}">{escape(visible(name))}</text>')
    head = f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"'
    return Markup(f'{head} aria-label="{escape(axes.label)}">{"".join(drawn)}</svg>')  # numbers, and names as text


class _Scale:
    """From values to places, by their logarithms."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = math.log(low), math.log(high) - math.log(low) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + self._length * (math.log(value) - self._low) / self._span


def _scale(values: tuple[float, ...], start: float, end: float) -> _Scale:
    return _Scale(min(values), max(values), start, end)
