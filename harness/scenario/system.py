"""The system under test by name: which pool policy, which kernels, which kind of buffer sites.

Nothing is loaded here: a name is data, and what it stands for is found on the rank (`harness.system`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Sites = Literal["explicit", "implicit"]


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The system under test: a pool policy and a kernel collective, by name or as `package.module:attribute`.

    `sites`: whether buffer sites name the group they are asked for (`explicit`), or always `tp` (`implicit`).
    """

    pool: str = "deferred"
    collectives: str = "triton"
    sites: Sites = "explicit"


POOLS = ("snapshot-once", "shared-at-alloc", "shared-at-exit", "per-unique-id", "per-group", "deferred")
"""Built-in pool policies (`harness.system.pools.built_in`)."""


KERNELS = {"triton": "", "cuda": "triton"}
"""Built-in kernel collectives (`harness.system.collectives`), each with those that stand in for them on the
simulation, if any do."""
