"""The groups that each value of a dump speaks of.

Invariant: what is read is a group of distinct ranks that a world may have. Every form says, where it can, which rank
speaks; keys that no form has are left alone, since engines print more than groups.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from harness.scenario.dumps.documents import Document, DumpError
from harness.scenario.dumps.names import WORLD, family_of, is_on_host
from harness.scenario.layouts.groups import MAX_WORLD, Group

_UNNAMED = ("", "undefined")
"""What torch.distributed has for a group that was made without a description."""


class Entry(NamedTuple):
    """A group, as a dump shows it."""

    family: str
    ranks: Group
    where: str
    speaker: int | None = None
    """The rank that shows it, if that is known."""
    is_own: bool = False
    """Whether it is shown as the speaker's own group."""
    label: str = ""
    """What the engine calls the group."""
    process_group: str = ""
    """The name that torch.distributed has for it, one for each communicator."""
    backend: str = ""


def entries(document: Document) -> list[Entry]:
    """The groups of one value. Raises `DumpError`, naming the place, where it shows none or a damaged one."""
    found = list(_Value(document.where, document.rank).read(document.value))
    return _spoken(found) if len(found) > 1 else found


def _spoken(found: list[Entry]) -> list[Entry]:
    """With the rank that speaks: torch.distributed lists a rank's own groups, so it is the one that is in all of
    them."""
    listed = [entry for entry in found if entry.process_group and entry.family != WORLD]
    common = set.intersection(*(set(entry.ranks) for entry in listed)) if listed else set()
    if len(common) != 1 or any(entry.speaker is not None for entry in found):
        return found
    return [entry._replace(speaker=min(common)) for entry in found]


class _Value:
    """A value of a dump, read by the keys that it has."""

    def __init__(self, where: str, speaker: int | None) -> None:
        self.where, self.speaker = where, speaker

    def read(self, value: Any) -> Iterator[Entry]:
        if isinstance(value, list):
            for item in value:
                yield from self.read(self._checked(item))
            return
        yield from self._object(self._checked(value))

    def _checked(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DumpError(f"dump {self.where}: {_short(value)} is no object with groups")
        return value

    def _object(self, value: dict[str, Any]) -> Iterator[Entry]:
        inside = _Value(self.where, self._rank(value["rank"]) if "rank" in value else self.speaker)
        if "distributedInfo" in value:  # a trace of PyTorch's profiler
            yield from inside.read(inside._checked(value["distributedInfo"]))
        elif "pg_config" in value:
            yield from inside._listing(value["pg_config"])
        elif "family" in value:
            yield from inside._family(str(value["family"]), value.get("ranks", value.get("groups")))
        elif "ranks" in value:
            yield from inside._process_group(value)
        elif isinstance(value.get("groups"), dict):
            yield from inside._families(value["groups"])
        elif value and all(isinstance(each, list) for each in value.values()):
            yield from inside._families(value)
        elif value and all(isinstance(each, dict) for each in value.values()):
            yield from inside._listing(value)
        else:
            keys = ", ".join(map(_short, value)) or "none"
            raise DumpError(f"dump {self.where}: it shows no group; its keys: {keys}")

    def _listing(self, value: Any) -> Iterator[Entry]:
        """The process groups of one rank: a list, or by name."""
        if isinstance(value, list):
            for each in value:
                yield from self._process_group(self._checked(each))
        else:
            for name, each in self._checked(value).items():
                has_ranks = isinstance(each, dict) and "ranks" in each
                yield from self._process_group({"name": name, **each} if has_ranks else {"name": name, "ranks": each})

    def _process_group(self, value: dict[str, Any]) -> Iterator[Entry]:
        name = str(value.get("pg_name", value.get("name", "")))
        label = str(value.get("pg_desc", value.get("desc", "")))
        size = value.get("pg_size", value.get("group_size"))
        ranks = value.get("ranks")
        if ranks in ([], "[]", {}):  # all ranks, where the size says so; else the recorder knows none
            if not isinstance(size, int):
                return
            ranks = list(range(min(size, MAX_WORLD + 1)))
        what = label or name or "a process group"
        group = self._group(what, ranks)
        if isinstance(size, int) and size != len(group):
            raise DumpError(f"dump {self.where}: {what} has {len(group)} ranks and says {size}")
        called = name if label in _UNNAMED and not name.isdigit() else label
        backend = str(value.get("backend_config", ""))
        family = family_of(called or _UNNAMED[1])
        yield Entry(family, group, self.where, self.speaker, True, label or name, name or label, backend)

    def _families(self, value: dict[str, Any]) -> Iterator[Entry]:
        for name, groups in value.items():
            yield from self._family(name, groups)

    def _family(self, name: str, groups: Any) -> Iterator[Entry]:
        family = family_of(name)
        several = isinstance(groups, list) and groups and all(isinstance(each, list) for each in groups)
        for ranks in groups if several else [groups]:
            yield Entry(family, self._group(name, ranks), self.where, self.speaker, not several, name)

    def _group(self, what: str, ranks: Any) -> Group:
        listed = _listed(ranks)
        if not listed:
            raise DumpError(f"dump {self.where}: {_short(what)} has {_short(ranks)} for ranks")
        group = tuple(self._rank(rank, what) for rank in listed)
        if len(set(group)) < len(group):
            rank = next(rank for rank in group if group.count(rank) > 1)
            raise DumpError(f"dump {self.where}: {_short(what)} has rank {rank} {group.count(rank)} times")
        return group

    def _rank(self, value: Any, what: str = "") -> int:
        if type(value) is not int or not 0 <= value < MAX_WORLD:
            of = f"{_short(what)} has " if what else ""
            raise DumpError(f"dump {self.where}: {of}rank {_short(value)}; ranks are 0 to {MAX_WORLD - 1}")
        return value


def _listed(ranks: Any) -> list[Any]:
    """A group's ranks in the order of its communicator: a list, the text of one, or each rank's place by rank."""
    try:
        value = json.loads(ranks) if isinstance(ranks, str) else ranks
        if isinstance(value, dict):
            return [int(rank) for rank in sorted(value, key=value.__getitem__)]
    except (ValueError, TypeError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def without_host_groups(found: Iterable[Entry]) -> list[Entry]:
    """The groups that have a communicator of NCCL. Where no backend is named, or none is NCCL, only names tell."""
    listed = list(found)
    has_nccl = any("nccl" in entry.backend for entry in listed)
    return [
        entry
        for entry in listed
        if not is_on_host(entry.label)
        and not (has_nccl and entry.process_group and entry.backend and "nccl" not in entry.backend)
    ]
