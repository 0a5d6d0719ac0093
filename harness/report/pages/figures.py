"""Figures that need lines: who waits for whom, and how fast draws were, as inline SVG.

Invariant: a figure has a title in words. Its colours follow the page, light and dark.
"""

from __future__ import annotations

from markupsafe import Markup

from harness.report.pages.account import Account

ACROSS, HEIGHT, RADIUS = 96, 150, 24


def waits_svg(account: Account) -> Markup:
    """Ranks in a row, with an arrow from each that waits to each that it waits for."""
    place = {rank: index for index, rank in enumerate(sorted({r for wait in account.waits for r in wait.ranks}))}
    arrows = [(rank, other) for wait in account.waits for rank in wait.ranks for other in wait.awaited]
    width = ACROSS * len(place)
    title = "; ".join(f"rank {one} waits for rank {other}" for one, other in arrows) or "no rank waits for another"
    drawn = [_arrow(place[one], place[other]) for one, other in arrows if other in place]
    waiting = {one for one, _ in arrows}
    drawn += [_rank(rank, at, rank in waiting) for rank, at in place.items()]
    head = (
        '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
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


def _arrow(one: int, other: int) -> str:
    start, end = ACROSS * one + ACROSS // 2, ACROSS * other + ACROSS // 2
    y, step = HEIGHT - 50 - RADIUS + 4, RADIUS // 2 if other > one else -RADIUS // 2
    lift = min(70, 34 + 12 * abs(one - other))
    return (
        f'<path d="M{start + step} {y}C{start + step} {y - lift} {end - step} {y - lift} {end - step} {y - 2}" '
        'fill="none" stroke="var(--bad)" stroke-width="2" marker-end="url(#tip)"/>'
    )
