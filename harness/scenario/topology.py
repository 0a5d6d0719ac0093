"""Topologies: a layout and a placement of its ranks, one JSON file each.

Invariant: a `Topology` that exists is valid. Loading is strict: an unknown key, a missing or
repeated one, a rank placed twice, or a family that has a group twice is refused by name, with
the file it came from.
"""

from __future__ import annotations

import json
import os
import stat
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import UsageError
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

SCHEMA = 1
LARGEST = 8 << 20
"""Most bytes of a file of plain data."""
MOST = 1 << 16
"""Most nodes, and most GPUs of one."""


class TopologyError(UsageError):
    """A topology that does not hold together; the message names the key, rank or family."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where ranks live: `nodes` nodes of `gpus_per_node` GPUs.

    Without `ranks`, rank r sits on node r // gpus_per_node. With it, `ranks[n]` lists the ranks of
    node n in GPU order.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    ranks: tuple[tuple[int, ...], ...] | None = None


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
        _ = self.node_of, self.ids

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two topologies the same layout in the same place, whatever their names."""
        return tuple(sorted(self.ids.items())), self.node_of

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
        placement = self.placement
        if placement is None:
            return (0,) * self.world
        if placement.nodes < 1 or placement.gpus_per_node < 1:
            raise TopologyError(f"topology {self.name!r}: placement needs at least one node and one GPU on it")
        if max(placement.nodes, placement.gpus_per_node) > MOST:
            raise TopologyError(f"topology {self.name!r}: placement has at most {MOST} nodes and GPUs on each")
        if placement.ranks is None:
            room = placement.nodes * placement.gpus_per_node
            if self.world > room:
                raise TopologyError(
                    f"topology {self.name!r}: {self.world} ranks do not fit "
                    f"{placement.nodes} nodes · {placement.gpus_per_node} GPUs = {room}"
                )
            return tuple(rank // placement.gpus_per_node for rank in range(self.world))
        return _placed(self.name, placement, self.world)

    def group(self, family: str, rank: int) -> Group:
        """The one group of `family` that `rank` is in. Raises `TopologyError` where it is in none, or in several."""
        found = ids_of(self.ids[family], rank)
        if len(found) != 1:
            raise TopologyError(f"topology {self.name!r}: rank {rank} is in {len(found) or 'no'} groups of {family}")
        return found[0].ranks

    def spans_nodes(self, group: Group) -> bool:
        """Whether a group's ranks lie on more than one node; such a group has no windows."""
        return len({self.node_of[rank] for rank in group}) > 1


def _placed(name: str, placement: Placement, world: int) -> tuple[int, ...]:
    assert placement.ranks is not None
    if len(placement.ranks) != placement.nodes:
        raise TopologyError(f"topology {name!r}: placement lists {len(placement.ranks)} nodes, not {placement.nodes}")
    node_of: dict[int, int] = {}
    for node, ranks in enumerate(placement.ranks):
        if len(ranks) > placement.gpus_per_node:
            raise TopologyError(
                f"topology {name!r}: node {node} holds {len(ranks)} ranks on {placement.gpus_per_node} GPUs"
            )
        for rank in ranks:
            if rank in node_of:
                raise TopologyError(f"topology {name!r}: rank {rank} is placed twice")
            node_of[rank] = node
    if sorted(node_of) != list(range(world)):
        stray = min(set(node_of) ^ set(range(world)))
        what = "not placed" if stray in range(world) else "not in the world"
        raise TopologyError(f"topology {name!r}: rank {stray} is {what}")
    return tuple(node_of[rank] for rank in range(world))


def read_file(path: Path | str) -> bytes:
    """What a file of plain data holds. Raises `ValueError` with the reason where it cannot be read, is no regular file,
    or is too large."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is no regular file")
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    return data


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or a pipe that nobody writes to would be waited for


def parse(data: bytes) -> Any:
    """The JSON of a file of plain data. Raises `ValueError` or `RecursionError`, and for a repeated key
    `TopologyError`."""
    return json.loads(data, object_pairs_hook=_no_repeats)


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


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
    """A topology by file path or by the name of one that ships with the harness."""
    if name in named():
        return load(named()[name])
    if Path(name).suffix != ".json" and not Path(name).exists():
        raise TopologyError(f"topology {name!r} is neither a file nor one of {', '.join(named())}")
    return load(name)
