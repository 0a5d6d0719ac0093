"""The convention `vllm`. Source of the rules: `parallel_state`, vLLM 0.33.

Groups of `dcp` may be in an order that is not that of the ranks, as the convention produces them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.scenario.layouts.arithmetic import Degrees, divide, every, picked, picked_factors, rows, widths
from harness.scenario.layouts.groups import Groups, check_world

DEGREES: tuple[str, ...] = ("dp", "pp", "pcp", "tp", "dcp")
OPTIONS: tuple[str, ...] = ()


def families(degrees: Degrees) -> dict[str, Groups]:
    w = widths("vllm", DEGREES, degrees)
    dp, pp, pcp, tp, dcp = w["dp"], w["pp"], w["pcp"], w["tp"], w["dcp"]
    world = dp * pp * pcp * tp
    check_world("vllm", world, f"dp {dp} · pp {pp} · pcp {pcp} · tp {tp}")
    divide("vllm", f"pcp {pcp} · tp {tp} =", pcp * tp, {"dcp": dcp})
    grid = np.arange(world, dtype=np.int64).reshape(-1, dp, pp, pcp, tp)
    found = {
        "tp": rows(grid, tp),
        "pcp": rows(np.moveaxis(grid, 3, -1), pcp),
        "pp": rows(np.moveaxis(grid, 2, -1), pp),
        "dp": rows(np.moveaxis(grid, 1, -1), dp),
        "ep": rows(grid.swapaxes(1, 2), dp * pcp * tp),
    }
    found["dcp"] = rows(grid.swapaxes(3, 4), dcp)
    return found


def shares(degrees: Degrees) -> dict[str, str]:
    """Each family has communicators of its own. (`initialize_model_parallel`, vLLM 0.33)"""
    return {}


def candidates(world: int) -> Iterator[Degrees]:
    """All degrees that may make a layout of `world` ranks, in one order."""
    return every(DEGREES[:-1], world, DEGREES[-1:])


def drawn(world: int, picks: Sequence[int]) -> Degrees:
    """The degrees of a layout of `world` ranks that six drawn numbers stand for."""
    degrees = picked_factors(world, ("pp", "dp", "pcp", "tp"), picks)
    return {**degrees, "dcp": picked(degrees["tp"] * degrees["pcp"], picks[5])}
