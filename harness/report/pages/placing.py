"""Places the parts of an account on grids, for the page: columns and rows, and what stands there.

Invariant: places follow from the account alone, and two things in one row never share a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec

from harness.report.pages.account import Account, Lane, Life, MemoryMap, RankMemory, Segment, Span
from harness.report.pages.scale import Axis, size_text
from harness.trace.trace import TEARDOWN

SIGNS = {"done": "●", "fails": "✗", "idle": "○", "waits": "…", "skipped": "⊘", "unreached": "–"}
COLUMN, STEP = 2.8, 3.6
"""The least width of a column of bytes, and of one of a step, in rem."""
MOST = 8
"""Ranks whose lanes are drawn."""
KINDS = "operand", "earlier", "reached", "damage"
SMALL_GAP = 512
DIGITS = 8
"""Letters of a number that fit into the narrowest column."""
WIDE = 0.45
"""The share of the whole from which a bar has room for a text of several lines."""
LETTERS = 60
"""Letters that fit into a bar as wide as the whole."""


class Item(msgspec.Struct, frozen=True):
    """Something on a grid, from a column's line to another, in a row."""

    classes: str
    begin: int
    end: int
    row: int
    text: str
    sign: str = ""
    title: str = ""


class SegmentView(msgspec.Struct, frozen=True):
    """A segment with its items."""

    ident: int
    title: str
    items: tuple[Item, ...]


class RankView(msgspec.Struct, frozen=True):
    """A rank with its segments."""

    rank: int
    sentence: str
    others: int
    segments: tuple[SegmentView, ...]


class MemoryView(msgspec.Struct, frozen=True):
    """A memory map on one grid. `keys` gives each communicator that has a window there the number of its colour."""

    columns: str
    least: float
    keys: dict[str, int]
    ranks: tuple[RankView, ...]
    lacks: bool = False
    """Whether a window is missing."""


class LanesView(msgspec.Struct, frozen=True):
    """The lanes on one grid."""

    columns: str
    least: float
    items: tuple[Item, ...]
    left_out: int = 0


def keys(owners: Iterable[str], wanted: str) -> dict[str, int]:
    """A number for each communicator: 0 for the one that makes the call."""
    others = [owner for owner in dict.fromkeys(owners) if owner != wanted]
    first = {wanted: 0} if wanted else {}
    return first | {owner: 1 + place % 3 for place, owner in enumerate(others)}


def memory_view(memory: MemoryMap) -> MemoryView:
    """All segments of all ranks on one axis."""
    segments = [segment for rank in memory.ranks for segment in rank.segments]
    axis = Axis(_kept(segments))
    owners = {each.owner: 0 for segment in segments for each in segment.registrations if each.claim != "wanted"}
    colours = keys(owners, memory.wanted)
    columns = " ".join(f"minmax({COLUMN}rem,{width}fr)" for width in axis.widths)
    ranks = tuple(_rank(rank, axis, colours) for rank in memory.ranks)
    shown = {owner: colours[owner] for owner in owners}
    lacks = any(each.claim == "wanted" for segment in segments for each in segment.registrations)
    return MemoryView(columns, round(COLUMN * len(axis.widths), 1), shown, ranks, lacks)


def _kept(segments: list[Segment]) -> Iterator[int]:
    """The bytes at which anything begins or ends; of the two ends of a little free memory, the second."""
    spans = [span for segment in segments for span in segment.spans]
    ends = {0, *(segment.size for segment in segments)}
    ends |= {place for span in spans for place in (span.start, span.end)}
    ends |= {place for segment in segments for each in segment.registrations for place in (each.start, each.end)}
    for place, after in pairwise(sorted(ends)):
        is_used = any(span.start <= place and after <= span.end for span in spans)
        if is_used or after - place >= SMALL_GAP or place == 0:
            yield place
    yield max(ends)


def _rank(rank: RankMemory, axis: Axis, colours: dict[str, int]) -> RankView:
    segments = tuple(
        SegmentView(
            each.ident,
            f"segment {each.ident}{f' of pool {each.pool!r}' if each.pool else ''}, {size_text(each.size)}",
            tuple(_labelled([*_items(each, axis, colours)], axis.widths)),
        )
        for each in rank.segments
    )
    return RankView(rank.rank, rank.sentence, rank.others, segments)


def _labelled(items: list[Item], widths: list[float]) -> Iterator[Item]:
    """The items; of one that is narrow and alone in its row, the text stands beside it, where there is more room."""
    rows = Counter(item.row for item in items)
    whole = sum(widths)
    for item in items:
        share = sum(widths[item.begin - 1 : item.end - 1]) / whole
        if rows[item.row] > 1 or share > WIDE or len(item.text) <= LETTERS * share or item.classes == "tick":
            yield item
            continue
        left, right = sum(widths[: item.begin - 1]), sum(widths[item.end - 1 :])
        kind = item.classes.split()[-1]
        yield msgspec.structs.replace(item, text="", title=item.text)
        if right >= left:
            yield Item(f"label l-{kind}", item.end, len(widths) + 1, item.row, item.text)
        else:
            yield Item(f"label before l-{kind}", 1, item.begin, item.row, item.text)


def _items(segment: Segment, axis: Axis, colours: dict[str, int]) -> Iterator[Item]:
    def at(start: int, end: int) -> tuple[int, int]:
        begin = axis.column(start)
        return begin, max(begin + 1, axis.column(end))

    buffers = sorted((span for span in segment.spans if span.kind == "buffer"), key=lambda span: span.start)
    row = 1
    for span in _with_gaps(buffers, segment.size, axis):
        kind = "buffer" if span.kind == "buffer" else "free"
        size = f"{span.text} · {size_text(span.end - span.start)}" if kind == "buffer" else "free"
        yield Item(kind, *at(span.start, span.end), row, size)
    for kind in KINDS:
        for packed in _packed([span for span in segment.spans if span.kind == kind], at):
            row += 1
            yield from (Item(kind, *at(span.start, span.end), row, _sign(span) + span.text) for span in packed)
    for each in sorted(segment.registrations, key=lambda each: each.claim == "wanted"):
        row += 1
        colour = "" if each.claim == "wanted" else f" k{colours.get(each.owner, 0)}"
        sign = {"wanted": "✗ ", "gone": "† ", "null": "∅ ", "stale": "† "}.get(each.claim, "")
        yield Item(f"win {each.claim}{colour}", *at(each.start, each.end), row, sign + each.text)
    yield from _ticks(segment, axis, row + 1)


def _ticks(segment: Segment, axis: Axis, row: int) -> Iterator[Item]:
    """The bytes at which a buffer, an operand or damage begins, and where a window ends. Long numbers in a row of
    narrow columns take two rows in turns."""
    marked = {span.start for span in segment.spans if span.kind in ("buffer", "operand", "damage")}
    marked |= {each.end for each in segment.registrations}
    free = [0, 0]
    """The first column in each row that no number reaches."""
    for place in sorted({0, *marked} - {segment.size}):
        begin, text = axis.column(place), f"{place:,}"
        lower = int(begin < free[0])
        if begin <= len(axis.widths) and begin >= free[lower]:
            free[lower] = begin + 1 + len(text) // DIGITS
            yield Item("tick", begin, begin + 1, row + lower, text)


def _sign(span: Span) -> str:
    return {"damage": "✗ ", "reached": "→ "}.get(span.kind, "")


def _with_gaps(buffers: list[Span], size: int, axis: Axis) -> Iterator[Span]:
    """The buffers, and what is free between them."""
    end = 0
    for span in buffers:
        if axis.column(span.start) > axis.column(end):
            yield Span("earlier", end, span.start, "free")
        yield span
        end = max(end, span.end)
    if axis.column(size) > axis.column(end):
        yield Span("earlier", end, size, "free")


def _packed(spans: list[Span], at: object) -> list[list[Span]]:
    """Spans in as few rows as it takes for none to lie over another."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda each: each.start):
        row = next((row for row in rows if row[-1].end <= span.start), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def lanes_view(account: Account) -> LanesView:
    """A column for each step, and for each rank a row of cells and rows of windows."""
    steps = len(account.program)
    wanted = account.memory.wanted if account.memory else ""
    owners = (life.owner for lane in account.lanes for life in lane.lives if life.kind == "window")
    colours = keys(owners, wanted)
    items = [Item("who head", 1, 2, 1, "step")]
    for line in account.program:
        on = " on" if line.is_marked else ""
        items.append(Item(f"head{on}", line.step + 2, line.step + 3, 1, f"{line.step} {line.kind}"))
    items.append(Item("head", steps + 2, steps + 3, 1, "end"))
    row = 2
    for lane in _chosen(account):
        found = [*_lane(lane, row, steps, colours)]
        items += found
        row = 1 + max(item.row for item in found)
    columns = f"4rem repeat({steps},minmax({STEP}rem,1fr)) minmax(4rem,1fr)"
    left = len(account.lanes) - len(_chosen(account))
    return LanesView(columns, round(8 + STEP * steps, 1), tuple(items), left)


def _chosen(account: Account) -> list[Lane]:
    """Lanes to draw: those in which something shows first, all in rank order."""
    shown = [lane for lane in account.lanes if any(cell.state in ("fails", "waits", "skipped") for cell in lane.cells)]
    others = [lane for lane in account.lanes if lane not in shown]
    return sorted((shown + others)[:MOST], key=lambda lane: lane.rank)


def _lane(lane: Lane, row: int, steps: int, colours: dict[str, int]) -> Iterator[Item]:
    yield Item("who", 1, 2, row, f"rank {lane.rank}")
    for cell in lane.cells:
        place = cell.step + 2
        yield Item(
            f"cell {cell.state}", place, place + 1, row, cell.state, SIGNS[cell.state], cell.text or "ran"
        )  # fmt: skip
    yield Item("head", steps + 2, steps + 3, row, lane.fate)
    for packed in _in_rows([life for life in lane.lives if life.kind == "window"], steps):
        row += 1
        for life in packed:
            begin, end = _extent(life, steps)
            null = " null" if life.is_null else ""
            sign = "∅ " if life.is_null else ""
            text = f"{sign}{life.name}, segment {life.segment}"
            yield Item(f"win{null} k{colours.get(life.owner, 0)}", begin, end, row, text)


def _extent(life: Life, steps: int) -> tuple[int, int]:
    """Its columns: up to the step in which it went, or through the end."""
    begin = min(max(life.born, 0), steps) + 2
    died = steps if life.died is None or life.died >= TEARDOWN else life.died
    return begin, max(begin + 1, died + 2 + (died == steps))


def _in_rows(lives: list[Life], steps: int) -> list[list[Life]]:
    rows: list[list[Life]] = []
    for life in sorted(lives, key=lambda each: each.born):
        begin, _ = _extent(life, steps)
        row = next((row for row in rows if _extent(row[-1], steps)[1] <= begin), None)
        if row is None:
            rows.append([life])
        else:
            row.append(life)
    return rows
