"""What nccl4py was made for, and what it hands to an older NCCL.

Invariant: a structure says no newer version than the NCCL that reads it has, or NCCL would refuse it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import nccl.core as nc
from nccl.bindings import nccl


@cache
def made_for() -> tuple[int, int, int]:
    """The NCCL whose header the binding was compiled with."""
    return _decoded(int(nccl.Config().version))


class CollectiveConfig(nc.NCCLCollConfig, lowpp_cls=nccl.CollConfig):  # type: ignore[misc, call-arg]
    """The configuration of one call, as the loaded NCCL reads it (2.31)."""

    def _to_lowpp(self) -> Any:
        made = super()._to_lowpp()
        made.version = min(int(made.version), int(nccl.get_version()))
        return made


def _decoded(number: int) -> tuple[int, int, int]:
    return number // 10000, number // 100 % 100, number % 100
