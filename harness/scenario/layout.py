"""Layouts: parallel degrees under one engine's convention, turned into families of groups.

Invariant: every family of a layout is a partition of the world, and the order of ranks inside a
group is the rank order of that group's communicator. Degenerate widths, families that alias one
another and non-monotonic groups are kept exactly as the convention produces them.

Sources of the rules: SGLang `parallel_state` (`sglang`), vLLM 0.33 `parallel_state` (`vllm`),
Megatron-Core `RankGenerator` (`megatron`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

Group = tuple[int, ...]
"""Ranks, in the order of their communicator."""
Partition = tuple[Group, ...]
Degrees = Mapping[str, object]

MAX_WORLD = 1024
DEFAULT_ORDER = "tp-cp-ep-dp-pp"
DEGREES: dict[str, tuple[str, ...]] = {
    "sglang": ("tp", "pp", "attn_dp", "attn_cp", "ep", "moe_dp", "dcp"),
    "vllm": ("dp", "pp", "pcp", "tp", "dcp"),
    "megatron": ("tp", "cp", "ep", "dp", "pp"),
}


class GroupId(NamedTuple):
    """A process group: its ranks, and which of the communicators over just these ranks it has, from 0 on."""

    ranks: Group
    number: int = 0

    @property
    def label(self) -> str:
        """Such as `0-1`, or `0-1 (1)` for the second communicator over these ranks."""
        return "-".join(map(str, self.ranks)) + (f" ({self.number})" if self.number else "")


GroupIds = tuple[GroupId, ...]
"""A family, with the communicators of its groups."""


class LayoutError(UsageError):
    """Degrees that no world can have; the message shows the arithmetic."""


def build_families(convention: str, degrees: Degrees) -> dict[str, Partition]:
    """Families of a layout by name, each a partition of `range(world)`.

    `degrees` maps the convention's degree names to widths (1 where left out); `megatron` also takes
    `"order"`, the axis order with the fastest-varying axis first. Raises `LayoutError` for an
    unknown convention or degree, and for degrees that do not divide, with the arithmetic.
    """
    if convention not in _BUILDERS:
        raise LayoutError(f"convention {convention!r} is not one of {', '.join(sorted(_BUILDERS))}")
    families = _BUILDERS[convention](dict(degrees))
    for name, partition in families.items():
        check_partition(name, partition)
    return families


def check_partition(name: str, partition: Partition, world: int | None = None) -> int:
    """World size of a partition; raises `LayoutError` naming the family where it is none."""
    if not all(partition) or not partition:
        raise LayoutError(f"family {name!r} is no partition: it has an empty group, or none")
    times = Counter(rank for group in partition for rank in group)
    for rank, count in times.items():
        if count > 1:
            raise LayoutError(f"family {name!r} is no partition: rank {rank} is in it {count} times")
    size = len(times) if world is None else world
    _check_world("family", size, name)
    for rank in sorted(times.keys() ^ set(range(size))):
        what = "is missing" if rank in range(size) else "is outside the world"
        raise LayoutError(f"family {name!r} is no partition of {size} ranks: rank {rank} {what}")
    return size


def divisors(number: int) -> list[int]:
    """The widths that divide a number of ranks, smallest first."""
    return [width for width in range(1, number + 1) if number % width == 0]


def id_of(ids: GroupIds, rank: int) -> GroupId:
    """The group that a rank is in, with its communicator."""
    return next(group for group in ids if rank in group.ranks)


def shared_families(convention: str, degrees: Degrees) -> dict[str, str] | None:
    """For each family that has no communicators of its own, the family whose it uses. None where all equal groups
    share one, of whatever families they are."""
    share = _SHARING[convention]
    return None if share is None else share(dict(degrees))


def number_groups(families: Mapping[str, Partition], shared: Mapping[str, str] | None) -> dict[str, GroupIds]:
    """The families with the communicators of their groups. `shared`: as `shared_families` gives it. Raises
    `LayoutError` for a family that shares another's and has other groups, or that shares none that there is."""
    for name in shared or {}:
        if name not in families:
            raise LayoutError(f"{name!r} shares communicators and is no family")
    made: Counter[Group] = Counter()
    numbered: dict[str, GroupIds] = {}
    own = {name: _owner(name, families, shared or {}) for name in families}
    for name, partition in families.items():
        if own[name] == name:
            numbered[name] = tuple(GroupId(group, made[group] if shared is not None else 0) for group in partition)
            made.update(partition)
    return {name: numbered[own[name]] for name in families}


def _owner(name: str, families: Mapping[str, Partition], shared: Mapping[str, str]) -> str:
    """The family whose communicators a family uses."""
    owner, passed = name, [name]
    while owner in shared:
        owner = shared[owner]
        if owner not in families:
            raise LayoutError(f"family {name!r} shares the communicators of {owner!r}, which is no family")
        if owner in passed:
            raise LayoutError(f"families {', '.join(map(repr, passed))} share communicators in a circle")
        passed.append(owner)
    if families[owner] != families[name]:
        raise LayoutError(f"family {name!r} shares the communicators of {owner!r} and has other groups")
    return owner


def _widths(convention: str, degrees: dict[str, object]) -> dict[str, int]:
    """Every degree of the convention as a positive int, 1 where left out."""
    widths = dict.fromkeys(DEGREES[convention], 1)
    for name, value in degrees.items():
        if name not in widths:
            raise LayoutError(f"{convention} has no degree {name!r}; it has {', '.join(widths)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayoutError(f"{convention} degree {name}={value!r} is not a positive integer")
        widths[name] = value
    return widths


def _check_world(what: str, world: int, arithmetic: str) -> None:
    if world > MAX_WORLD:
        raise LayoutError(f"{what} world {arithmetic} = {world} is larger than {MAX_WORLD}")


def _divide(convention: str, what: str, total: int, parts: dict[str, int]) -> int:
    """`total` over the product of `parts`, or a `LayoutError` that shows the division."""
    divisor = prod(parts.values())
    if total % divisor:
        names = "·".join(f"{name} {width}" for name, width in parts.items())
        raise LayoutError(f"{convention}: {what} {total} is not divisible by {names} = {divisor}")
    return total // divisor


def _sglang(degrees: dict[str, object]) -> dict[str, Partition]:
    w = _widths("sglang", degrees)
    tp, pp, cp, ep, moe_dp = w["tp"], w["pp"], w["attn_cp"], w["ep"], w["moe_dp"]
    world = tp * pp
    _check_world("sglang", world, f"tp {tp} · pp {pp}")
    attn_tp = _divide("sglang", "tp", tp, {"attn_dp": w["attn_dp"], "attn_cp": cp})
    moe_tp = _divide("sglang", "tp", tp, {"ep": ep, "moe_dp": moe_dp})
    _divide("sglang", "tp", tp, {"dcp": w["dcp"]})
    bases = range(0, world, tp)

    def strided(outer: int, count: int, width: int) -> Partition:
        """Per TP group: `outer` blocks of `count`·`width` ranks, one group for each of `width` offsets."""
        block = count * width
        return tuple(
            tuple(range(base + d * block + t, base + (d + 1) * block + t, width))
            for base in bases
            for d in range(outer)
            for t in range(width)
        )

    attn_cp = strided(w["attn_dp"], cp, attn_tp)
    return {
        "tp": _chunks(world, tp),
        "pp": tuple(tuple(range(j, world, tp)) for j in range(tp)),
        "attn_tp": _chunks(world, attn_tp),
        "attn_cp": attn_cp,
        "dcp": _chunks(world, w["dcp"]),
        "moe_tp": _chunks(world, moe_tp),
        "moe_ep": strided(moe_dp, ep, moe_tp),
        "moe_dp": attn_cp if cp > moe_dp else strided(1, moe_dp, moe_tp * ep),
    }


def _sglang_shares(degrees: dict[str, object]) -> dict[str, str]:
    """A family as wide as TP is the TP group. Families that are alike otherwise have communicators of their own.
    (`initialize_model_parallel`, SGLang 0.5.23)"""
    w = _widths("sglang", degrees)
    tp, cp = w["tp"], w["attn_cp"]
    widths = {
        "attn_tp": tp // (w["attn_dp"] * cp),
        "attn_cp": cp,
        "moe_tp": tp // (w["ep"] * w["moe_dp"]),
        "moe_ep": w["ep"],
        "moe_dp": w["moe_dp"],
    }
    shared = {name: "tp" for name, width in widths.items() if width == tp}
    return shared | ({"moe_dp": "attn_cp"} if cp > w["moe_dp"] else {})


def _own(degrees: dict[str, object]) -> dict[str, str]:
    """Each family has communicators of its own. (`initialize_model_parallel`, vLLM 0.33)"""
    return {}


def _chunks(world: int, width: int) -> Partition:
    return tuple(tuple(range(start, start + width)) for start in range(0, world, width))


def _rows(grid: NDArray[np.int64], width: int) -> Partition:
    return tuple(tuple(int(rank) for rank in row) for row in grid.reshape(-1, width))


def _vllm(degrees: dict[str, object]) -> dict[str, Partition]:
    w = _widths("vllm", degrees)
    dp, pp, pcp, tp, dcp = w["dp"], w["pp"], w["pcp"], w["tp"], w["dcp"]
    world = dp * pp * pcp * tp
    _check_world("vllm", world, f"dp {dp} · pp {pp} · pcp {pcp} · tp {tp}")
    _divide("vllm", f"pcp {pcp} · tp {tp} =", pcp * tp, {"dcp": dcp})
    grid = np.arange(world, dtype=np.int64).reshape(-1, dp, pp, pcp, tp)
    families = {
        "tp": _rows(grid, tp),
        "pcp": _rows(np.moveaxis(grid, 3, -1), pcp),
        "pp": _rows(np.moveaxis(grid, 2, -1), pp),
        "dp": _rows(np.moveaxis(grid, 1, -1), dp),
        "ep": _rows(grid.swapaxes(1, 2), dp * pcp * tp),
    }
    if dcp > 1:
        families["dcp"] = _rows(grid.swapaxes(3, 4), dcp)
    return families


def _megatron(degrees: dict[str, object]) -> dict[str, Partition]:
    order = degrees.pop("order", DEFAULT_ORDER)
    names = DEGREES["megatron"]
    if not isinstance(order, str) or sorted(order.split("-")) != sorted(names):
        raise LayoutError(f"megatron order={order!r} is not an order of {DEFAULT_ORDER}")
    w = _widths("megatron", degrees)
    world = prod(w.values())
    _check_world("megatron", world, " · ".join(f"{name} {width}" for name, width in w.items()))
    axes = order.split("-")[::-1]  # numpy's last axis varies fastest; the order string's first does
    grid = np.arange(world, dtype=np.int64).reshape([w[name] for name in axes])
    return {name: _rows(np.moveaxis(grid, axes.index(name), -1), w[name]) for name in names}


_BUILDERS: dict[str, Callable[[dict[str, object]], dict[str, Partition]]] = {
    "sglang": _sglang,
    "vllm": _vllm,
    "megatron": _megatron,
}

_SHARING: dict[str, Callable[[dict[str, object]], dict[str, str]] | None] = {
    "sglang": _sglang_shares,
    "vllm": _own,
    "megatron": None,
}
