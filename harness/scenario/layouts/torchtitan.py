"""The convention `torchtitan`: a dense and a sparse mesh over the same ranks.

Source of the rules: `ParallelDims` in `distributed/parallel_dims.py`, torchtitan 0.3.0. The degree `etp` is that of
releases up to 0.2.2; in 0.3.0 experts have no tensor parallelism. With `etp` above 1 the families are those of 0.2.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from harness.scenario.layouts.arithmetic import (
    Degrees,
    along,
    divide,
    every,
    picked,
    picked_factors,
    product_of,
    widths,
)
from harness.scenario.layouts.groups import Groups, LayoutError, check_world

NAME = "torchtitan"
DEGREES: tuple[str, ...] = ("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep", "etp")
OPTIONS: tuple[str, ...] = ()
_DENSE = ("pp", "dp_replicate", "dp_shard", "cp", "tp")
_SPARSE = ("pp", "dp_replicate", "efsdp", "ep", "etp")
_OVER_DENSE = {
    "pp": ("pp",),
    "batch": ("dp_replicate", "dp_shard"),
    "loss": ("dp_replicate", "dp_shard", "cp"),
    "dp_replicate": ("dp_replicate",),
    "fsdp": ("dp_shard", "cp"),
    "cp": ("cp",),
    "tp": ("tp",),
    "dp": ("dp_replicate", "dp_shard"),
    "dp_shard": ("dp_shard",),
}
_SINCE_0_3 = {"dp", "dp_shard"}


def families(degrees: Degrees) -> dict[str, Groups]:
    w = _widths(degrees)
    dense, sparse = {name: w[name] for name in _DENSE}, {name: w[name] for name in _SPARSE}
    return {
        **{name: along(dense, *_OVER_DENSE[name]) for name in _dense_names(w)},
        **{name: along(sparse, name) for name in _sparse_names(w)},
    }


def shares(degrees: Degrees) -> dict[str, str]:
    """An axis as wide as the world has the communicator of the world. FSDP makes one over dp_shard and cp, and without
    cp takes that of dp_shard. All others are axes with communicators of their own, over equal ranks too.
    (`ParallelDims.build_mesh`, torchtitan 0.3.0; `DeviceMesh`, PyTorch 2.13)"""
    w = _widths(degrees)
    wide = {name: prod(w[axis] for axis in _OVER_DENSE[name]) for name in _dense_names(w)}
    wide |= {name: w[name] for name in _sparse_names(w)}
    whole = [name for name, width in wide.items() if width == prod(w[axis] for axis in _DENSE)]
    alike = {"fsdp": "dp_shard"} if "dp_shard" in wide and w["cp"] == 1 else {}
    return alike | dict.fromkeys(whole[1:], next(iter(whole), ""))


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES[:5], world, DEGREES[5:])


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    w = picked_factors(world, ("pp", "dp_replicate", "cp", "dp_shard", "tp"), picks)
    return {**w, "ep": picked(w["dp_shard"] * w["cp"] * w["tp"], picks[4])}


def _widths(degrees: Degrees) -> dict[str, int]:
    """The width of every axis, `efsdp` among them."""
    w = widths(NAME, DEGREES, degrees)
    dense = {name: w[name] for name in _DENSE}
    check_world(NAME, prod(dense.values()), product_of(dense))
    if w["ep"] > 1 and w["etp"] not in (1, w["tp"]):
        raise LayoutError(f"{NAME}: etp {w['etp']} is neither 1 nor tp {w['tp']}")
    divided = {name: w[name] for name in ("dp_shard", "cp", "tp")}
    whole = f"{product_of(divided)} ="
    return {**w, "efsdp": divide(NAME, whole, prod(divided.values()), {"ep": w["ep"], "etp": w["etp"]})}


def _dense_names(w: dict[str, int]) -> list[str]:
    return [name for name in _OVER_DENSE if w["etp"] == 1 or name not in _SINCE_0_3]


def _sparse_names(w: dict[str, int]) -> list[str]:
    """Without expert parallelism the axis `efsdp` has no communicators."""
    return ["ep", *(["efsdp"] if w["ep"] > 1 else []), *(["etp"] if w["etp"] > 1 else [])]
