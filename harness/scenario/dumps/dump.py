"""A dump: the groups of all its files, as families.

Invariant: a dump that exists shows a group. It shows what it shows: a family, a group or a rank that is not in it is
not known, and not missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.scenario import topology
from harness.scenario.dumps.documents import DumpError, documents
from harness.scenario.dumps.reading import Entry, entries, without_host_groups
from harness.scenario.layouts.groups import Group, Groups, world_of
from harness.scenario.topology import Topology

_OF_A_TOPOLOGY = {"schema", "convention", "degrees", "families", "placement"}


@dataclass(frozen=True)
class Layout:
    """Families to compare, and the ranks of which all groups are shown."""

    families: Mapping[str, Groups]
    world: int
    speakers: frozenset[int]

    @staticmethod
    def of(shown: Topology) -> Layout:
        """A topology shows all groups of all ranks."""
        return Layout(shown.families, shown.world, frozenset(range(shown.world)))


@dataclass(frozen=True)
class Dump:
    """Groups that engines printed."""

    files: tuple[str, ...]
    entries: tuple[Entry, ...]
    other_lines: int = 0
    """Lines that hold no JSON."""
    left_out: int = 0
    """Groups without a communicator of NCCL."""

    @property
    def name(self) -> str:
        """The file, or the first of several."""
        more = len(self.files) - 1
        return self.files[0] + (f" and {more} more" if more else "")

    @cached_property
    def families(self) -> dict[str, Groups]:
        """Every family by name, its groups by their ranks. The second communicator over the same ranks of a family
        `tp` is in the family `tp_2`."""
        found: dict[str, set[Group]] = {}
        for entry, family in zip(self.entries, self._named(), strict=True):
            found.setdefault(family, set()).add(entry.ranks)
        return {family: tuple(sorted(groups)) for family, groups in found.items()}

    def _named(self) -> list[str]:
        """The family of each entry."""
        communicators: dict[tuple[str, Group], list[str]] = {}
        named = []
        for entry in self.entries:
            made = communicators.setdefault((entry.family, entry.ranks), [])
            if entry.process_group not in made:
                made.append(entry.process_group)
            number = made.index(entry.process_group)
            named.append(f"{entry.family}_{number + 1}" if number else entry.family)
        return named

    @cached_property
    def world(self) -> int:
        return max(map(world_of, self.families.values()))

    @cached_property
    def layout(self) -> Layout:
        speakers = frozenset(entry.speaker for entry in self.entries if entry.speaker is not None)
        return Layout(self.families, self.world, speakers)

    @property
    def is_of_process_groups(self) -> bool:
        """Whether it shows communicators: torch.distributed lists a group once for each."""
        return any(entry.process_group for entry in self.entries)

    def topology(self, name: str) -> Topology:
        """The layout as a topology of the convention `explicit`."""
        shares: dict[str, str] | None = {} if self.is_of_process_groups else None
        note = f"from groups that an engine printed: {self.name}"
        return Topology(name, "explicit", note=note, families_given=self.families, shares=shares)


def read(names: Sequence[str], renamed: Mapping[str, str] | None = None) -> Topology | Dump:
    """What files hold, or the topology of a name. One topology alone is that topology; all else is one dump.

    `renamed` has the family of a group by what the engine calls it: its description, its name, or the family that
    would be taken. Raises `UsageError`, naming the file and what is wrong in it, and for a name that no group has.
    """
    parts = [_part(name) for name in names]
    if len(parts) == 1 and isinstance(parts[0], Topology):
        return _renamed_topology(parts[0], renamed or {})
    dumps = [part if isinstance(part, Dump) else _as_dump(name, part) for name, part in zip(names, parts, strict=True)]
    joined = [entry for dump in dumps for entry in dump.entries]
    kept = without_host_groups(joined)
    if not kept:
        raise DumpError(f"dump {', '.join(names)}: it shows no group")
    other = sum(dump.other_lines for dump in dumps)
    return Dump(tuple(names), tuple(_renamed(kept, renamed or {})), other, len(joined) - len(kept))


def _part(name: str) -> Topology | Dump:
    if name in topology.named() or not Path(name).exists():
        return topology.find(name)
    try:
        data = topology.read_file(name)
    except ValueError as error:
        raise DumpError(f"dump {name}: {error}") from error
    found, other = documents(name, data)
    if len(found) == 1 and isinstance(found[0].value, dict) and _OF_A_TOPOLOGY & found[0].value.keys():
        return topology.load(name)
    return Dump((name,), tuple(entry for each in found for entry in entries(each)), other)


def _as_dump(name: str, shown: Topology) -> Dump:
    groups = [Entry(family, group, name, label=family) for family, each in shown.families.items() for group in each]
    return Dump((name,), tuple(groups))


def _renamed(found: Iterable[Entry], renamed: Mapping[str, str]) -> list[Entry]:
    listed = list(found)
    known = {name for entry in listed for name in _names(entry)}
    _check_names(renamed, known, {entry.label or entry.family for entry in listed})
    return [
        entry._replace(family=next((renamed[name] for name in _names(entry) if name in renamed), entry.family))
        for entry in listed
    ]


def _names(entry: Entry) -> tuple[str, ...]:
    """What a group can be renamed by, the narrowest first."""
    return tuple(filter(None, (entry.process_group, entry.label, entry.family)))


def _renamed_topology(shown: Topology, renamed: Mapping[str, str]) -> Topology:
    if not renamed:
        return shown
    _check_names(renamed, set(shown.families), set(shown.families))
    families = {renamed.get(name, name): groups for name, groups in shown.families.items()}
    if len(families) < len(shown.families):
        raise DumpError(f"topology {shown.name!r}: two families would have one name")
    return Topology(shown.name, "explicit", placement=shown.placement, note=shown.note, families_given=families)


def _check_names(renamed: Mapping[str, str], known: set[str], shown: set[str]) -> None:
    for name, family in renamed.items():
        if name not in known:
            raise DumpError(f"--rename {name}={family}: no group has the name {name!r}; there are {_list(shown)}")


def _list(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:20]) + (" …" if len(listed) > 20 else "")
