"""What comes of looking at a layout: its families, laws that it breaks, and how it differs from another.

Invariant: a person and a program get the same facts. Text of a dump reaches a terminal as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from harness.report import data, terminal
from harness.scenario.dumps.differences import Comparison, Difference, compare
from harness.scenario.dumps.disagreements import Disagreement, disagreements
from harness.scenario.dumps.dump import Dump, Layout
from harness.scenario.dumps.laws import LAWS, Broken, broken, remarks
from harness.scenario.layouts.groups import Group
from harness.scenario.topology import Topology
from harness.text import counted

LONGEST = 16
"""Ranks of a group that a sentence shows."""


@dataclass(frozen=True)
class Seen:
    """A topology or a dump, and what is to say of it."""

    shown: Topology | Dump
    disagreements: tuple[Disagreement, ...]
    broken: tuple[Broken, ...]
    remarks: tuple[str, ...]
    against: Topology | None = None
    comparison: Comparison | None = None

    @property
    def is_finding(self) -> bool:
        """Whether anything is wrong. A law that is broken by groups that are those of the other layout is not."""
        counts = any(not self._agreed.issuperset(each.families) for each in self.broken)
        return bool(self.disagreements or counts or (self.comparison and self.comparison.differences))

    @property
    def _agreed(self) -> set[str]:
        """Families that are those of the other layout."""
        if self.comparison is None:
            return set()
        return {*self.comparison.compared} - {each.family for each in self.comparison.differences}


def look(shown: Topology | Dump, against: Topology | None = None) -> Seen:
    """Judge a layout by itself, and against another where there is one."""
    layout = shown.layout if isinstance(shown, Dump) else Layout.of(shown)
    return Seen(
        shown,
        tuple(disagreements(shown.entries)) if isinstance(shown, Dump) else (),
        tuple(broken(layout)),
        tuple(remarks(layout)),
        against,
        compare(layout, Layout.of(against)) if against else None,
    )


def show(console: Console, seen: Seen) -> None:
    """The families as a table, then a line for each thing to say."""
    if isinstance(seen.shown, Dump):
        _families(console, seen.shown)
    else:
        terminal.topology(console, seen.shown)
    for line in lines(seen):
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)


def _families(console: Console, dump: Dump) -> None:
    rows = [
        (name, ", ".join(map(str, sorted({*map(len, groups)}))), " ".join(str(list(group)) for group in groups))
        for name, groups in dump.families.items()
    ]
    title = f"{dump.name}: {counted(dump.world, 'rank')} (dump)"
    terminal.table(console, ("family", "width", "groups"), rows, title=terminal.plain(title))
    if dump.layout.speakers:
        console.print(f"shown by {_ranks(tuple(sorted(dump.layout.speakers)))}", highlight=False)


def lines(seen: Seen) -> Iterator[str]:
    """What is to say, a sentence a line: findings first."""
    yield from map(_disagreement, seen.disagreements)
    for law in seen.broken:
        groups = " and ".join(map(_group, law.groups))
        yield f"law {law.law}: {law.how}; first rank {law.rank}: {groups}"
        yield f"  reason: {LAWS[law.law]}"
    if seen.comparison and seen.against:
        yield from _compared(seen.comparison, seen.against.name)
    if isinstance(seen.shown, Dump):
        yield from _read(seen.shown)
    yield from (f"note: {remark}" for remark in seen.remarks)
    if isinstance(seen.shown, Topology) and seen.shown.convention == "megatron":
        yield "note: megatron is for old files: ep multiplies its world; megatron-core has Megatron's own groups"


def _read(dump: Dump) -> Iterator[str]:
    if dump.other_lines:
        yield f"note: {counted(dump.other_lines, 'line')} of other text passed over"
    if dump.left_out:
        yield f"note: {counted(dump.left_out, 'group')} without NCCL left out"


def _disagreement(found: Disagreement) -> str:
    own = f"rank {found.rank} says that its {found.family} group is {_group(found.group)}"
    if found.kind == "outside":
        return f"{found.family}: {own}, and is not in it"
    theirs = " and ".join(map(_group, found.theirs))
    if found.kind == "process group":
        says = f"process group {found.process_group!r} is {_group(found.group)}"
        return f"{found.family}: rank {found.rank} says that {says}, and rank {found.peer} that it is {theirs}"
    peer = f"says {theirs}" if theirs else f"shows no {found.family} group"
    return f"{found.family}: rank {found.rank} says {_group(found.group)}, and rank {found.peer} {peer}"


def _compared(found: Comparison, name: str) -> Iterator[str]:
    swapped = {each.family for pair in found.swapped for each in pair}
    for pair in found.swapped:
        yield _swap(*pair, name)
    for each in found.differences:
        if each.family not in swapped:
            yield _difference(each, name)
    families = ", ".join(found.compared)
    if not found.differences:
        yield f"agrees with {name} in {families}"
    for family, like in found.only_shown.items():
        yield f"note: {family} is no family of {name}" + (f"; its groups are those of {like} there" if like else "")
    if found.only_expected:
        yield f"note: not shown, so not compared: {', '.join(found.only_expected)}"


def _swap(one: Difference, other: Difference, name: str) -> str:
    names = f"{one.family} and {other.family}"
    how = f"{one.family} has the groups of {other.family}, and {other.family} those of {one.family}"
    first = min((one, other), key=lambda each: each.rank)
    return f"{names} are swapped: {how}; first rank {first.rank}: {_pair(one, name)}; {_pair(other, name)}"


def _pair(found: Difference, name: str) -> str:
    expected = _group(found.expected) if found.expected else f"no group of {found.family}"
    return f"{found.family} {_group(found.shown or ())}, and {name} has {expected}"


def _difference(found: Difference, name: str) -> str:
    many = f"; {counted(found.ranks, 'rank')} in all" if found.ranks > 1 else ""
    if found.kind == "world":
        return f"the number of ranks differs: {len(found.shown or ())}, and {name} has {len(found.expected or ())}"
    if found.kind == "missing":
        return f"{found.family}: rank {found.rank} lacks {_group(found.expected or ())}, which {name} has{many}"
    if found.kind == "order":
        assert found.shown is not None
        assert found.expected is not None
        places = found.shown.index(found.rank), found.expected.index(found.rank)
        order = f"rank {found.rank} is at place {places[0]}, and at place {places[1]} in {name}"
        return f"{found.family}: the order of ranks differs: {order}; {_pair(found, name)}{many}"
    like = f". {name} has these groups in {found.like}" if found.like else ""
    return f"{found.family}: the groups differ, first at rank {found.rank}: {_pair(found, name)}{many}{like}"


def _group(ranks: Group) -> str:
    """A group as text; of a long one its first ranks and its last."""
    if len(ranks) <= LONGEST:
        return str([*ranks])
    first = ", ".join(map(str, ranks[: LONGEST - 1]))
    return f"[{first}, … {ranks[-1]}] ({len(ranks)} ranks)"


def _ranks(ranks: Group) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {_group(ranks)[1:].replace(']', '', 1)}"


def as_data(seen: Seen) -> dict[str, Any]:
    """The same facts. `against` is there where the layout was compared."""
    shown = seen.shown
    found = data.topology(shown) if isinstance(shown, Topology) else _dump(shown)
    found["disagreements"] = [each._asdict() for each in seen.disagreements]
    found["laws"] = [{**each._asdict(), "reason": LAWS[each.law]} for each in seen.broken]
    found["remarks"] = list(seen.remarks)
    if seen.comparison and seen.against:
        found["against"] = _comparison(seen.comparison, seen.against)
    return found


def _dump(dump: Dump) -> dict[str, Any]:
    return {
        "schema": data.SCHEMA,
        "files": list(dump.files),
        "world": dump.world,
        "families": {name: [list(group) for group in groups] for name, groups in dump.families.items()},
        "shown_by": sorted(dump.layout.speakers),
        "other_lines": dump.other_lines,
        "left_out": dump.left_out,
    }


def _comparison(found: Comparison, against: Topology) -> dict[str, Any]:
    return {
        "name": against.name,
        "agrees": not found.differences,
        "differences": [each._asdict() for each in found.differences],
        "swapped": [[one.family, other.family] for one, other in found.swapped],
        "compared": list(found.compared),
        "only_shown": dict(found.only_shown),
        "not_shown": list(found.only_expected),
    }
