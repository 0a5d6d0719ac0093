"""The convention `tensorrt-llm`. Source of the rules: `Mapping` in `tensorrt_llm/mapping.py`, TensorRT-LLM 1.2.0rc2.

Attention data parallelism has no groups of its own: its replicas are the ranks of `tp`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.errors import did_you_mean
from harness.scenario.layouts.arithmetic import Degrees, chunks, divide, every, picked, picked_factors, product_of
from harness.scenario.layouts.arithmetic import widths as read_widths
from harness.scenario.layouts.groups import Groups, LayoutError, check_world

NAME = "tensorrt-llm"
DEGREES: tuple[str, ...] = ("tp", "cp", "pp", "moe_ep", "moe_cluster")
OPTIONS: tuple[str, ...] = ("cp_type",)
CP_TYPES = ("ulysses", "helix")
"""With `ulysses`, the default, experts divide tp; with `helix` they divide tp · cp."""


def families(degrees: Degrees) -> dict[str, Groups]:
    w = _widths(degrees)
    tp, cp, pp = w["tp"], w["cp"], w["pp"]
    stage, world = tp * cp, tp * cp * pp
    check_world(NAME, world, product_of({"tp": tp, "cp": cp, "pp": pp}))
    return {
        "tp": chunks(world, tp),
        "pp": _strided(world, world, stage),
        "cp": _strided(world, stage, tp),
        **_expert_families(w, pp),
    }


def shares(degrees: Degrees) -> None:
    """Communicators are kept by their set of ranks, so equal groups share one. (`getComm`, `common/opUtils.cpp`)"""


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES[:3], world, DEGREES[3:])


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    w = picked_factors(world, ("pp", "cp", "tp"), picks)
    helix = w["cp"] > 1 and picks[3] >= 60
    divided = w["tp"] * (w["cp"] if helix else 1)
    ep = picked(divided, picks[4]) if helix or w["cp"] == 1 else 1
    cluster = picked(divided, picks[5]) if ep == 1 else 1
    found: dict[str, object] = {**w, "moe_ep": ep, "moe_cluster": cluster}
    return found | ({"cp_type": "helix"} if helix else {})


def _widths(degrees: Degrees) -> dict[str, int]:
    """All widths, with that of `moe_tp` and of the ranks that experts divide (`moe`)."""
    names = (*DEGREES, "moe_tp")
    w = read_widths(NAME, names, {name: value for name, value in degrees.items() if name not in OPTIONS})
    helix = _is_helix(degrees)
    if "moe_tp" in degrees and "moe_ep" not in degrees:
        w["moe_ep"] = _rest(w, helix, "moe_tp")
    moe_tp = _rest(w, helix, "moe_ep")
    if degrees.get("moe_tp", moe_tp) != moe_tp:
        raise LayoutError(
            f"{NAME}: {_whole(w, helix)} is not {product_of({k: w[k] for k in ('moe_tp', 'moe_ep', 'moe_cluster')})}"
        )
    _check_experts(w, helix)
    return {**w, "moe_tp": moe_tp, "moe": moe_tp * w["moe_ep"] * w["moe_cluster"]}


def _is_helix(degrees: Degrees) -> bool:
    kind = degrees.get("cp_type", CP_TYPES[0])
    if kind not in CP_TYPES:
        meant = did_you_mean(str(kind), CP_TYPES)
        raise LayoutError(f"{NAME} cp_type={kind!r} is not one of {', '.join(CP_TYPES)}{meant}")
    return kind == "helix"


def _whole(w: dict[str, int], helix: bool) -> str:
    return f"tp {w['tp']} · cp {w['cp']} = {w['tp'] * w['cp']}" if helix else f"tp {w['tp']}"


def _rest(w: dict[str, int], helix: bool, name: str) -> int:
    """What `name` and the clusters leave of the ranks that experts divide."""
    what = f"tp {w['tp']} · cp {w['cp']} =" if helix else "tp"
    total = w["tp"] * (w["cp"] if helix else 1)
    return divide(NAME, what, total, {part: w[part] for part in (name, "moe_cluster")})


def _check_experts(w: dict[str, int], helix: bool) -> None:
    if w["moe_ep"] > 1 and w["moe_cluster"] > 1:
        raise LayoutError(f"{NAME}: moe_ep {w['moe_ep']} and moe_cluster {w['moe_cluster']} cannot both be above 1")
    if w["moe_ep"] > 1 and w["cp"] > 1 and not helix:
        raise LayoutError(f"{NAME}: moe_ep {w['moe_ep']} with cp {w['cp']} needs cp_type 'helix'")


def _expert_families(w: dict[str, int], pp: int) -> dict[str, Groups]:
    """As the engine lists them: from rank 0 on, so with `ulysses` and cp above 1 the last ranks are in no group."""
    ranks = pp * w["moe"]
    found = {
        "moe_tp": _strided(ranks, w["moe"], w["moe_cluster"] * w["moe_ep"]),
        "moe_ep": chunks(ranks, w["moe_ep"]),
    }
    return found | ({"moe_cluster": chunks(ranks, w["moe_cluster"])} if w["moe_cluster"] > 1 else {})


def _strided(world: int, block: int, stride: int) -> Groups:
    """In each block, one group of every `stride`-th rank for each of `stride` offsets."""
    starts = ((base, offset) for base in range(0, world, block) for offset in range(stride))
    return tuple(tuple(range(base + offset, base + block, stride)) for base, offset in starts)
