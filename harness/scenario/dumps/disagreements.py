"""What ranks say of each other's groups, where they do not say the same.

Invariant: only ranks that are known to speak are compared. A rank that shows no groups contradicts nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from harness.scenario.dumps.reading import Entry
from harness.scenario.layouts.groups import Group

Kind = Literal["outside", "process group", "peer"]


class Disagreement(NamedTuple):
    """A group that two ranks show differently, or that a rank shows as its own and is not in."""

    kind: Kind
    family: str
    rank: int
    group: Group
    peer: int | None = None
    theirs: tuple[Group, ...] = ()
    """What the peer shows of the family instead; nothing where it shows no group of it."""
    process_group: str = ""


def disagreements(entries: Sequence[Entry]) -> list[Disagreement]:
    """The first of each kind in each family, by rank."""
    found = [*_outside(entries), *_process_groups(entries), *_peers(entries)]
    first: dict[tuple[Kind, str], Disagreement] = {}
    for each in sorted(found, key=lambda each: (each.rank, each.group)):
        first.setdefault((each.kind, each.family), each)
    return list(first.values())


def _outside(entries: Sequence[Entry]) -> Iterator[Disagreement]:
    for entry in entries:
        if entry.is_own and entry.speaker is not None and entry.speaker not in entry.ranks:
            yield Disagreement("outside", entry.family, entry.speaker, entry.ranks)


def _process_groups(entries: Sequence[Entry]) -> Iterator[Disagreement]:
    """torch.distributed gives a communicator one name on all of its ranks."""
    first: dict[str, Entry] = {}
    for entry in entries:
        known = first.setdefault(entry.process_group, entry) if entry.process_group else entry
        if known.ranks != entry.ranks and known.speaker is not None and entry.speaker is not None:
            yield Disagreement(
                "process group",
                entry.family,
                known.speaker,
                known.ranks,
                entry.speaker,
                (entry.ranks,),
                entry.process_group,
            )


def _peers(entries: Sequence[Entry]) -> Iterator[Disagreement]:
    """A group that one of its ranks shows, and another that speaks does not."""
    numbers: dict[Group, int] = {}  # groups may have a thousand ranks: they are looked up once, and then by number
    views: dict[int, dict[str, dict[int, Group]]] = defaultdict(lambda: defaultdict(dict))
    for entry in entries:
        if entry.speaker is not None:
            number = numbers.setdefault(entry.ranks, len(numbers))
            views[entry.speaker][entry.family][number] = entry.ranks
    for rank, families in views.items():
        for family, groups in families.items():
            for number, group in groups.items():
                for peer in group if rank in group else ():
                    if peer in views and number not in (shown := views[peer].get(family, {})):
                        theirs = tuple(sorted(each for each in shown.values() if peer in each))
                        yield Disagreement("peer", family, rank, group, peer, theirs)
