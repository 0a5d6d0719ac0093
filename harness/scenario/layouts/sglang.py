"""The convention `sglang`. Source of the rules: `parallel_state`, SGLang 0.5.23.

Degenerate widths and families that alias one another are kept exactly as the convention produces them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from harness.scenario.layouts.arithmetic import Degrees, chunks, divide, divisors, every, picked, widths
from harness.scenario.layouts.groups import Groups, check_world

DEGREES: tuple[str, ...] = ("tp", "pp", "attn_dp", "attn_cp", "ep", "moe_dp", "dcp")
OPTIONS: tuple[str, ...] = ()


def families(degrees: Degrees) -> dict[str, Groups]:
    w = widths("sglang", DEGREES, degrees)
    tp, pp, cp, ep, moe_dp = w["tp"], w["pp"], w["attn_cp"], w["ep"], w["moe_dp"]
    world = tp * pp
    check_world("sglang", world, f"tp {tp} · pp {pp}")
    attn_tp = divide("sglang", "tp", tp, {"attn_dp": w["attn_dp"], "attn_cp": cp})
    moe_tp = divide("sglang", "tp", tp, {"ep": ep, "moe_dp": moe_dp})
    divide("sglang", "tp", tp, {"dcp": w["dcp"]})
    bases = range(0, world, tp)

    def strided(outer: int, count: int, width: int) -> Groups:
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
        "tp": chunks(world, tp),
        "pp": tuple(tuple(range(j, world, tp)) for j in range(tp)),
        "attn_tp": chunks(world, attn_tp),
        "attn_cp": attn_cp,
        "dcp": chunks(world, w["dcp"]),
        "moe_tp": chunks(world, moe_tp),
        "moe_ep": strided(moe_dp, ep, moe_tp),
        "moe_dp": attn_cp if cp > moe_dp else strided(1, moe_dp, moe_tp * ep),
    }


def shares(degrees: Degrees) -> dict[str, str]:
    """A family as wide as TP is the TP group. Families that are alike otherwise have communicators of their own.
    (`initialize_model_parallel`, SGLang 0.5.23)"""
    w = widths("sglang", DEGREES, degrees)
    tp, cp = w["tp"], w["attn_cp"]
    wide = {
        "attn_tp": tp // (w["attn_dp"] * cp),
        "attn_cp": cp,
        "moe_tp": tp // (w["ep"] * w["moe_dp"]),
        "moe_ep": w["ep"],
        "moe_dp": w["moe_dp"],
    }
    shared = {name: "tp" for name, width in wide.items() if width == tp}
    return shared | ({"moe_dp": "attn_cp"} if cp > w["moe_dp"] else {})


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    inside = DEGREES[2:]
    for spanning in every(("tp", "pp"), world):
        for divided in product(divisors(spanning["tp"]), repeat=len(inside)):
            yield spanning | dict(zip(inside, divided, strict=True))


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    pp = picked(world, picks[0])
    tp = world // pp
    attn_dp, ep = picked(tp, picks[1]), picked(tp, picks[3])
    return {
        "tp": tp,
        "pp": pp,
        "attn_dp": attn_dp,
        "attn_cp": picked(tp // attn_dp, picks[2]),
        "ep": ep,
        "moe_dp": picked(tp // ep, picks[4]),
        "dcp": picked(tp, picks[5]),
    }
