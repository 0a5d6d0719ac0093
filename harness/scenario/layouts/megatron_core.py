"""The convention `megatron-core`: attention and experts divide the same ranks, each in its own way.

Source of the rules: `initialize_model_parallel` and `RankGenerator`, Megatron-Core 0.16.1. Attention has
tp · cp · dp · pp ranks. Experts have etp · ep · expert_dp · pp, over the same ranks and in the same order of axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, permutations
from math import gcd, prod

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

NAME = "megatron-core"
DEGREES: tuple[str, ...] = ("tp", "cp", "dp", "pp", "ep", "etp", "optimizer_instances")
OPTIONS: tuple[str, ...] = ("order", "all_gather_group")
AXES = ("tp", "cp", "ep", "dp", "pp")
"""The default order, the axis that varies fastest first."""
_ORDERS = tuple(permutations(AXES))

Sizes = dict[str, int]


def families(degrees: Degrees) -> dict[str, Groups]:
    w, order = _widths(degrees), _order(degrees)
    attention, experts = _attention(w), _experts(w)
    _check_order(order, attention, experts)
    _check_instances(w, experts["dp"])
    dense, sparse = _laid_out(order, attention), _laid_out(order, experts)
    found = _data_families(dense, w["optimizer_instances"], _has_all_gather_group(degrees))
    return found | _model_families(dense) | _expert_families(sparse, w["optimizer_instances"])


def shares(degrees: Degrees) -> dict[str, str]:
    """Each family has communicators of its own. Only where the optimizer has one instance, the groups inside an
    instance are those of all. (`initialize_model_parallel`, Megatron-Core 0.16.1)"""
    if _widths(degrees)["optimizer_instances"] > 1:
        return {}
    return {"intra_dp_cp": "dp_cp", "intra_expert_dp": "expert_dp"}


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES[:4], world, DEGREES[4:])


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    w = picked_factors(world, ("pp", "dp", "cp", "tp"), picks)
    stage = world // w["pp"]
    w["ep"] = picked(stage, picks[3])
    w["etp"] = picked(stage // w["ep"], picks[4])
    attention, experts = _attention(w), _experts(w)
    legal = [order for order in _ORDERS if _offence(order, attention, experts) is None]
    w["optimizer_instances"] = picked(gcd(w["dp"] * w["cp"], experts["dp"]), picks[4] // 12)
    found: dict[str, object] = {**w, "order": "-".join(legal[picks[5] % len(legal)])}
    return found | ({"all_gather_group": True} if picks[3] >= 60 else {})


def _widths(degrees: Degrees) -> Sizes:
    return widths(NAME, DEGREES, {name: value for name, value in degrees.items() if name not in OPTIONS})


def _order(degrees: Degrees) -> tuple[str, ...]:
    """The axes that were named, the one that varies fastest first."""
    order = degrees.get("order", "-".join(AXES))
    names = tuple(order.split("-")) if isinstance(order, str) else ()
    if not names or len({*names}) < len(names) or {*names} - {*AXES}:
        raise LayoutError(f"{NAME} order={order!r} is not an order of {'-'.join(AXES)}, or of some of these")
    return names


def _has_all_gather_group(degrees: Degrees) -> bool:
    value = degrees.get("all_gather_group", False)
    if not isinstance(value, bool):
        raise LayoutError(f"{NAME} all_gather_group={value!r} is neither true nor false")
    return value


def _attention(w: Sizes) -> Sizes:
    sizes = {name: w[name] for name in ("tp", "cp", "dp", "pp")}
    check_world(NAME, prod(sizes.values()), product_of(sizes))
    return {**sizes, "ep": 1}


def _experts(w: Sizes) -> Sizes:
    """The widths of the axes for experts, by the names that the order has for them."""
    ranks = {name: w[name] for name in ("tp", "cp", "dp", "pp")}
    whole = f"{product_of(ranks)} ="
    parts = {name: w[name] for name in ("etp", "ep", "pp")}
    expert_dp = divide(NAME, whole, prod(ranks.values()), parts)
    return {"tp": w["etp"], "ep": w["ep"], "dp": expert_dp, "pp": w["pp"], "cp": 1}


def _check_order(order: Sequence[str], attention: Sizes, experts: Sizes) -> None:
    for what, sizes in (("attention", attention), ("experts", experts)):
        for name in sizes:
            if name not in order and sizes[name] > 1:
                raise LayoutError(
                    f"{NAME} order={'-'.join(order)!r} lacks {name}, which is {sizes[name]} wide for {what}"
                )
    offence = _offence(order, attention, experts)
    if offence is not None:
        raise LayoutError(f"{NAME} order={'-'.join(order)!r}: {offence}")


def _offence(order: Sequence[str], attention: Sizes, experts: Sizes) -> str | None:
    """Why attention and experts cannot have the same pipelines in this order, or nothing."""
    if attention["pp"] == 1:
        return None
    if order[-1] != "pp" and attention["dp"] != experts["dp"]:
        return f"pp is not last, and dp {attention['dp']} is not expert dp {experts['dp']}"
    apart = [prod(sizes[name] for name in order[: order.index("pp")]) for sizes in (attention, experts)]
    if apart[0] != apart[1]:
        return f"stages are {apart[0]} ranks apart for attention and {apart[1]} for experts"
    return None


def _check_instances(w: Sizes, expert_dp: int) -> None:
    instances = {"optimizer_instances": w["optimizer_instances"]}
    divide(NAME, f"dp {w['dp']} · cp {w['cp']} =", w["dp"] * w["cp"], instances)
    divide(NAME, "expert dp", expert_dp, instances)


def _laid_out(order: Sequence[str], sizes: Sizes) -> Sizes:
    """The axes with the slowest first; those that the order leaves out have one rank."""
    return {name: sizes[name] for name in (*order, *(axis for axis in AXES if axis not in order))[::-1]}


def _data_families(dense: Sizes, instances: int, all_gather: bool) -> dict[str, Groups]:
    dp_cp = along(dense, "dp", "cp")
    found = {"tp": along(dense, "tp"), "dp_cp": dp_cp}
    if all_gather:
        found["dp_cp_ag"] = dp_cp
    return found | {"intra_dp_cp": _runs(dp_cp, instances), "dp": along(dense, "dp"), "cp": along(dense, "cp")}


def _model_families(dense: Sizes) -> dict[str, Groups]:
    pipelines = along(dense, "pp")
    return {
        "tp_pp": along(dense, "tp", "pp"),
        "pp": pipelines,
        "embedding": tuple(tuple(dict.fromkeys((ranks[0], ranks[-1]))) for ranks in pipelines),
        "position_embedding": tuple(ranks[:1] for ranks in pipelines),
        "tp_dp_cp": along(dense, "tp", "dp", "cp"),
        "tp_dp": along(dense, "tp", "dp"),
        "tp_cp": along(dense, "tp", "cp"),
    }


def _expert_families(sparse: Mapping[str, int], instances: int) -> dict[str, Groups]:
    replicas, copies = along(sparse, "dp"), along(sparse, "tp", "ep", "pp")
    found = {
        "ep": along(sparse, "ep"),
        "etp": along(sparse, "tp"),
        "etp_ep": along(sparse, "tp", "ep"),
        "etp_ep_pp": copies,
        "expert_dp": replicas,
        "intra_expert_dp": _runs(replicas, instances),
    }
    if instances > 1:
        found["inter_expert_dp"] = tuple(chain.from_iterable(_across(ranks, instances) for ranks in replicas))
    return found | {"intra_dist_opt": _joined(copies, sparse["dp"] // instances)}


def _runs(groups: Groups, parts: int) -> Groups:
    """Each group in `parts` runs of ranks."""
    size = len(groups[0]) // parts
    return tuple(ranks[start : start + size] for ranks in groups for start in range(0, len(ranks), size))


def _across(ranks: tuple[int, ...], parts: int) -> Groups:
    """The ranks at the same place of each of `parts` runs."""
    size = len(ranks) // parts
    return tuple(ranks[start::size] for start in range(size))


def _joined(groups: Groups, count: int) -> Groups:
    """So many groups after one another as one, in the order of ranks: torch.distributed sorts them."""
    starts = range(0, len(groups), count)
    return tuple(tuple(sorted(chain.from_iterable(groups[start : start + count]))) for start in starts)
