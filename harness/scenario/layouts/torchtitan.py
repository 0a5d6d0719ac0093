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


def families(degrees: Degrees) -> dict[str, Groups]:
    w = widths(NAME, DEGREES, degrees)
    dense = {name: w[name] for name in _DENSE}
    check_world(NAME, prod(dense.values()), product_of(dense))
    return _dense_families(dense, is_old=w["etp"] > 1) | _expert_families(w)


def shares(degrees: Degrees) -> dict[str, str]:
    """An axis as wide as the world has the communicator of the world. FSDP makes one over dp_shard and cp, and without
    cp takes that of dp_shard. All others are axes with communicators of their own, over equal ranks too.
    (`ParallelDims.build_mesh`, torchtitan 0.3.0; `DeviceMesh`, PyTorch 2.13)"""
    found = families(degrees)
    wide = [name for name, groups in found.items() if len(groups) == 1]
    alike = {"fsdp": "dp_shard"} if "dp_shard" in found and found["fsdp"] == found["dp_shard"] else {}
    return alike | dict.fromkeys(wide[1:], wide[0])


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES[:5], world, DEGREES[5:])


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    w = picked_factors(world, ("pp", "dp_replicate", "cp", "dp_shard", "tp"), picks)
    return {**w, "ep": picked(w["dp_shard"] * w["cp"] * w["tp"], picks[4])}


def _dense_families(dense: dict[str, int], is_old: bool) -> dict[str, Groups]:
    found = {
        "pp": along(dense, "pp"),
        "batch": along(dense, "dp_replicate", "dp_shard"),
        "loss": along(dense, "dp_replicate", "dp_shard", "cp"),
        "dp_replicate": along(dense, "dp_replicate"),
        "fsdp": along(dense, "dp_shard", "cp"),
        "cp": along(dense, "cp"),
        "tp": along(dense, "tp"),
    }
    return found if is_old else found | {"dp": found["batch"], "dp_shard": along(dense, "dp_shard")}


def _expert_families(w: dict[str, int]) -> dict[str, Groups]:
    """The sparse mesh. Without expert parallelism the axis `efsdp` has no communicators."""
    if w["ep"] > 1 and w["etp"] not in (1, w["tp"]):
        raise LayoutError(f"{NAME}: etp {w['etp']} is neither 1 nor tp {w['tp']}")
    divided = {name: w[name] for name in ("dp_shard", "cp", "tp")}
    whole = f"{product_of(divided)} ="
    efsdp = divide(NAME, whole, prod(divided.values()), {"ep": w["ep"], "etp": w["etp"]})
    names = ("pp", "dp_replicate", "efsdp", "ep", "etp")
    sparse = {name: {**w, "efsdp": efsdp}[name] for name in names}
    shown = ("ep", *(["efsdp"] if w["ep"] > 1 else []), *(["etp"] if w["etp"] > 1 else []))
    return {name: along(sparse, name) for name in shown}
