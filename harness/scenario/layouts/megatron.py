"""The convention `megatron`: all degrees are factors of the world. Old topology and seed files have it.

Source of the rules: `RankGenerator`, Megatron-Core, with one generator for all degrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from math import prod

import numpy as np

from harness.scenario.layouts.arithmetic import Degrees, every, picked_factors, rows, widths
from harness.scenario.layouts.groups import Groups, LayoutError, check_world

DEGREES: tuple[str, ...] = ("tp", "cp", "ep", "dp", "pp")
OPTIONS: tuple[str, ...] = ("order",)
DEFAULT_ORDER = "tp-cp-ep-dp-pp"
_ORDERS = tuple(permutations(("tp", "cp", "ep", "dp", "pp")))


def families(degrees: Degrees) -> dict[str, Groups]:
    order = degrees.get("order", DEFAULT_ORDER)
    if not isinstance(order, str) or sorted(order.split("-")) != sorted(DEGREES):
        raise LayoutError(f"megatron order={order!r} is not an order of {DEFAULT_ORDER}")
    if "etp" in degrees:
        raise LayoutError("megatron has no degree 'etp'; megatron-core has")
    w = widths("megatron", DEGREES, {name: width for name, width in degrees.items() if name != "order"})
    world = prod(w.values())
    check_world("megatron", world, " · ".join(f"{name} {width}" for name, width in w.items()))
    axes = order.split("-")[::-1]  # numpy's last axis varies fastest; the order string's first does
    grid = np.arange(world, dtype=np.int64).reshape([w[name] for name in axes])
    return {name: rows(np.moveaxis(grid, axes.index(name), -1), w[name]) for name in DEGREES}


def shares(degrees: Degrees) -> None:
    """Equal groups share a communicator, as in files from before."""


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES, world)


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    order = "-".join(_ORDERS[picks[5] % len(_ORDERS)])
    return {**picked_factors(world, ("pp", "ep", "dp", "cp", "tp"), picks), "order": order}
