"""Topologies: a layout and a placement of its ranks, one JSON file each.

Invariant: a `Topology` that exists is valid. Loading is strict: an unknown key, a missing or
repeated one, a rank placed twice, or a family that has a group twice is refused by name, with
the file it came from.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import UsageError, did_you_mean
from harness.scenario.layouts.conventions import build_families, shared_families
from harness.scenario.layouts.groups import (
    Group,
    GroupIds,
    Groups,
    check_family,
    ids_of,
    number_groups,
    rank_in_two,
    world_of,
)
from harness.scenario.placement import Placement, TopologyError, domains_of, lsa_team_size, nodes_of

SCHEMA = 1
LARGEST = 8 << 20
"""Most bytes of a file of plain data."""


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A named layout with a placement. `families` is given only by the convention `explicit`.

    There `shares` may name the families that use another's communicators, and the other. Without it equal groups share
    one, as in files from before.

    Raises `TopologyError` or `LayoutError` when built from values that do not hold together.
    """

    name: str
    convention: str
    degrees: dict[str, Any] = {}
    placement: Placement | None = None
    note: str = ""
    families_given: dict[str, Groups] | None = msgspec.field(default=None, name="families")
    shares: dict[str, str] | None = None

    def __post_init__(self) -> None:
        _ = self.domain_of, self.ids

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two topologies the same layout in the same place, whatever their names."""
        return tuple(sorted(self.ids.items())), self.place

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the ranks are: node and NVLink domain of each, and whether processes see the GPUs of their peers."""
        return self.node_of, self.domain_of, self.hides_peers

    @property
    def hides_peers(self) -> bool:
        """Whether a process sees its own GPU alone."""
        return self.placement is not None and self.placement.peers_hidden

    @cached_property
    def families(self) -> dict[str, Groups]:
        """Every family by name: its groups, each in communicator rank order."""
        if not self.name:
            raise TopologyError("a topology needs a name")
        if (self.convention == "explicit") != (self.families_given is not None):
            raise TopologyError(f"topology {self.name!r}: 'families' goes with convention 'explicit' and no other")
        if self.families_given is None:
            return build_families(self.convention, self.degrees)
        if self.degrees or not self.families_given:
            raise TopologyError(f"topology {self.name!r}: convention 'explicit' takes 'families' and no 'degrees'")
        for name, groups in self.families_given.items():
            check_family(name, groups)
        return self.families_given

    @cached_property
    def ids(self) -> dict[str, GroupIds]:
        """Every family by name, with the communicators of its groups."""
        if self.families_given is not None:
            return number_groups(self.families, self.shares)
        if self.shares is not None:
            raise TopologyError(f"topology {self.name!r}: 'shares' goes with convention 'explicit' and no other")
        return number_groups(self.families, shared_families(self.convention, self.degrees))

    def acting(self, family: str, groups: Groups | None = None) -> GroupIds:
        """The groups of `family` that act in a step, with their communicators: those named, or all.

        No rank is in two of them. Raises `TopologyError` where one is, and for a group that the family has not.
        """
        key = family, groups
        if key not in self._acting:
            self._acting[key] = self._find(family, groups)
        return self._acting[key]

    def _find(self, family: str, groups: Groups | None) -> GroupIds:
        ids = {each.ranks: each for each in self.ids[family]}
        named = tuple(ids) if groups is None else groups
        if not named:
            raise TopologyError(f"no group of {family} acts")
        for group in named:
            if group not in ids:
                raise TopologyError(f"{list(group)} is no group of {family}")
        if (rank := rank_in_two(named)) is not None:
            both = " and ".join(str(list(group)) for group in named if rank in group)
            raise TopologyError(f"rank {rank} is in {both} of {family}; name groups that share no rank")
        return tuple(ids[group] for group in named)

    @cached_property
    def _acting(self) -> dict[tuple[str, Groups | None], GroupIds]:
        """The groups that were asked for."""
        return {}

    @cached_property
    def world(self) -> int:
        """Number of ranks. In a family, or in all, some may be left out."""
        return max(map(world_of, self.families.values()))

    @cached_property
    def node_of(self) -> tuple[int, ...]:
        """Node of each rank, in rank order; one node where no placement is given."""
        return nodes_of(self.name, self.placement, self.world)

    @cached_property
    def domain_of(self) -> tuple[int, ...]:
        """NVLink domain of each rank, in rank order; the node where the placement says nothing else."""
        return domains_of(self.name, self.placement, self.node_of)

    @property
    def where(self) -> str:
        """Such as `2 nodes`, or `1 node, 4 NVLink domains` where a domain is no node."""
        nodes = _several(self.node_of, "node")
        return f"{nodes}, {_several(self.domain_of, 'NVLink domain')}" if self.has_own_domains else nodes

    def span(self, group: Group) -> str:
        """What a group without windows spans, such as `2 nodes` or `2 NVLink domains`."""
        return _several([self.domain_of[rank] for rank in group], "NVLink domain" if self.has_own_domains else "node")

    @property
    def has_own_domains(self) -> bool:
        """Whether an NVLink domain is no node."""
        return self.splits_nodes or self.joins_nodes

    @property
    def splits_nodes(self) -> bool:
        """Whether a node has more than one NVLink domain."""
        return len(self._parts) > len(set(self.node_of))

    @property
    def joins_nodes(self) -> bool:
        """Whether an NVLink domain spans nodes."""
        return len(self._parts) > len(set(self.domain_of))

    @property
    def _parts(self) -> set[tuple[int, int]]:
        """Each node with each of its domains."""
        return set(zip(self.node_of, self.domain_of, strict=True))

    def group(self, family: str, rank: int) -> Group:
        """The one group of `family` that `rank` is in. Raises `TopologyError` where it is in none, or in several."""
        found = ids_of(self.ids[family], rank)
        if len(found) != 1:
            raise TopologyError(f"topology {self.name!r}: rank {rank} is in {len(found) or 'no'} groups of {family}")
        return found[0].ranks

    def has_windows(self, group: Group) -> bool:
        """Whether a group is one LSA team, and so has windows: all of its ranks lie in one NVLink domain."""
        return self.lsa_team_size(group) == len(group)

    def lsa_team_size(self, group: Group) -> int:
        """Ranks of each LSA team of a group, a divisor of its size."""
        return lsa_team_size(self.domain_of[rank] for rank in group)


def _several(labels: Sequence[int], what: str) -> str:
    count = len(set(labels))
    return f"{count} {what}{'s' if count > 1 else ''}"


def read_file(path: Path | str, most: int = LARGEST) -> bytes:
    """What a file of plain data holds. Raises `ValueError` with the reason where it cannot be read, is no regular file,
    or holds more than `most` bytes."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is no regular file")
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > most:
        raise ValueError(f"it is larger than {most >> 20} MiB")
    return data


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or a pipe that nobody writes to would be waited for


def parse(data: bytes) -> Any:
    """The JSON of a file of plain data. Raises `ValueError` or `RecursionError`, and for a repeated key
    `TopologyError`."""
    return json.loads(data, object_pairs_hook=no_repeats)


def load(path: Path | str) -> Topology:
    """Read one topology file. Raises `UsageError` naming the file and what is wrong in it."""
    try:
        text = read_file(path)
    except ValueError as error:
        raise TopologyError(f"topology file {path}: {error}") from error
    try:
        data = parse(text)
        if not isinstance(data, dict):
            raise TopologyError("it holds no object")
        schema = data.pop("schema", None)
        if type(schema) is not int or schema != SCHEMA:
            raise TopologyError(f"'schema' must be {SCHEMA}")
        if "degrees" not in data and data.get("convention") != "explicit":
            raise TopologyError("key 'degrees' is missing")
        msgspec.json.encode(data)  # half a character, as in "\\ud800", can be neither shown nor written
        return msgspec.convert(data, Topology)
    except (ValueError, RecursionError, UsageError) as error:  # msgspec's and json's errors are ValueErrors
        raise TopologyError(f"topology file {path}: {error}") from error


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values. Raises `TopologyError` for a key that is there twice."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise TopologyError(f"key {key!r} is there twice")
        seen[key] = value
    return seen


def save(topology: Topology, path: Path) -> None:
    """Write one topology file in the form that `load` reads."""
    data = {"schema": SCHEMA, **msgspec.to_builtins(topology)}
    path.write_text(json.dumps(data, indent=2) + "\n")


def named() -> dict[str, Path]:
    """The named topologies that ship with the harness: file stem to path."""
    folder = resources.files("harness") / "topologies"
    files = (Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {path.stem: path for path in sorted(files)}


def find(name: str) -> Topology:
    """A topology by file path, or by the name of one that ships with the harness. The end of a name stands for it where
    no other ends so: `tp4-dp2` for `gpt-oss-120b-vllm-tp4-dp2`."""
    shipped = named()
    if name in shipped:
        return load(shipped[name])
    if Path(name).suffix == ".json" or Path(name).exists():
        return load(name)
    ends = [each for each in shipped if name and each.endswith(f"-{name}")]
    if len(ends) == 1:
        return load(shipped[ends[0]])
    if ends:
        raise TopologyError(f"topology {name!r} is the end of several names: {', '.join(ends)}")
    raise TopologyError(
        f"topology {name!r} is neither a file nor one of {', '.join(shipped)}{did_you_mean(name, shipped)}"
    )
