"""Figures that need lines: who waits for whom, and how fast draws were, as inline SVG.

Invariant: a figure has a title in words. Its colours follow the page, light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from markupsafe import Markup

from harness.report.pages.account import Account
from harness.report.pages.runs import Night

ACROSS, HEIGHT, RADIUS = 96, 150, 24


def waits_svg(account: Account, prefix: str = "") -> Markup:
    """Ranks in a row, with an arrow from each that waits to each that it waits for."""
    place = {rank: index for index, rank in enumerate(sorted({r for wait in account.waits for r in wait.ranks}))}
    arrows = [(rank, other) for wait in account.waits for rank in wait.ranks for other in wait.awaited]
    width = ACROSS * len(place)
    title = "; ".join(f"rank {one} waits for rank {other}" for one, other in arrows) or "no rank waits for another"
    drawn = [_arrow(place[one], place[other], prefix) for one, other in arrows if other in place]
    waiting = {one for one, _ in arrows}
    drawn += [_rank(rank, at, rank in waiting) for rank, at in place.items()]
    head = (
        f'<marker id="{prefix}tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        'orient="auto">'
        '<path d="M0 0L10 5L0 10z" fill="var(--bad)"/></marker>'
    )
    return Markup(
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" aria-label="{title}">'
        f"<title>{title}</title><defs>{head}</defs>{''.join(drawn)}</svg>"
    )  # numbers and our own words alone


def _rank(rank: int, at: int, waits: bool) -> str:
    x, y = ACROSS * at + ACROSS // 2, HEIGHT - 50
    style = 'fill="var(--bad-soft)" stroke="var(--bad)"' if waits else 'fill="var(--grey)" stroke="var(--soft)"'
    what = "waits" if waits else "does not wait"
    return (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" {style} stroke-width="2"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle">{rank}</text>'
        f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="middle">{what}</text>'
    )


def _arrow(one: int, other: int, prefix: str) -> str:
    start, end = ACROSS * one + ACROSS // 2, ACROSS * other + ACROSS // 2
    y, step = HEIGHT - 50 - RADIUS + 4, RADIUS // 2 if other > one else -RADIUS // 2
    lift = min(70, 34 + 12 * abs(one - other))
    return (
        f'<path d="M{start + step} {y}C{start + step} {y - lift} {end - step} {y - lift} {end - step} {y - 2}" '
        f'fill="none" stroke="var(--bad)" stroke-width="2" marker-end="url(#{prefix}tip)"/>'
    )


WIDE, HIGH, LEFT, LOW = 420, 180, 44, 28
LINES = ("", "6 4", "2 3", "10 3 2 3")
"""Dashes, so that lines differ without their colours."""


def speed_svg(nights: Sequence[Night]) -> Markup:
    """Draws a second over time, a line for each run; nothing where no run says it."""
    found = {night.name: [*_rates(night)] for night in nights if len(night.speed) > 1}
    if not any(found.values()):
        return Markup("")
    longest = max(at for points in found.values() for at, _ in points) or 1.0
    most = max(rate for points in found.values() for _, rate in points) or 1.0

    def place(at: float, rate: float) -> str:
        return f"{LEFT + (WIDE - LEFT - 10) * at / longest:.1f},{HIGH - LOW - (HIGH - LOW - 14) * rate / most:.1f}"

    drawn = [
        f'<path d="M{LEFT} 10V{HIGH - LOW}H{WIDE - 10}" fill="none" stroke="var(--soft)"/>',
        f'<text x="{LEFT - 6}" y="18" text-anchor="end">{most:.1f}</text>',
        f'<text x="{LEFT - 6}" y="{HIGH - LOW}" text-anchor="end">0</text>',
        f'<text x="{WIDE - 10}" y="{HIGH - 8}" text-anchor="end">{longest:.0f} s</text>',
    ]
    for index, points in enumerate(found.values()):
        line = " ".join(place(at, rate) for at, rate in points)
        dash = LINES[index % len(LINES)]
        drawn.append(
            f'<polyline points="{line}" fill="none" stroke="var(--c{index % 4})" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
    title = f"up to {most:.1f} draws a second, over {longest:.0f} seconds"
    head = f'<svg viewBox="0 0 {WIDE} {HIGH}" style="width:100%;max-width:44rem" role="img" aria-label="{title}">'
    return Markup(f"{head}<title>{title}</title>{''.join(drawn)}</svg>")


def _rates(night: Night) -> Iterator[tuple[float, float]]:
    """The rate between one point and the next, at the end of each span."""
    for (begin, before), (end, after) in pairwise(night.speed):
        if end > begin:
            yield end, max(0.0, after - before) / (end - begin)
