"""Pool policies by name: the designs of the bug report's history, one file each, or a user's own."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import PluginError
from harness.system.boundary import Misshapen
from harness.system.context import PoolPolicy, RankContext
from harness.system.loading import load_attribute
from harness.system.pools.deferred import Deferred
from harness.system.pools.per_group import PerGroup
from harness.system.pools.per_unique_id import PerUniqueId
from harness.system.pools.shared_at_alloc import SharedAtAlloc
from harness.system.pools.shared_at_exit import SharedAtExit
from harness.system.pools.snapshot_once import SnapshotOnce
from harness.system.shape import check_call, check_pool

PoolFactory = Callable[[RankContext], PoolPolicy]

BUILT_IN: dict[str, PoolFactory] = {
    "snapshot-once": SnapshotOnce,
    "shared-at-alloc": SharedAtAlloc,
    "shared-at-exit": SharedAtExit,
    "per-unique-id": PerUniqueId,
    "per-group": PerGroup,
    "deferred": Deferred,
}


def load_pool(name: str) -> PoolFactory:
    """A policy's factory by built-in name or as `package.module:attribute`. Raises `PluginError`."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = load_attribute("pool", name, BUILT_IN)
    if not callable(found):
        raise PluginError(f"pool {name!r} is not callable; it is built with the rank's context")
    try:
        if _is_plain(found):
            check_pool(found)
        check_call("pool", found, f"{name.rpartition(':')[2]}(context)", 1)
    except Misshapen as error:
        raise PluginError(f"pool {name!r} {error}") from None
    except (Exception, SystemExit) as error:
        raise PluginError(f"pool {name!r} raised when looked at: {error!r}") from error
    factory: PoolFactory = found
    return factory


def load_stand_in(name: str, factory: PoolFactory) -> PoolFactory:
    """The factory of the policy that runs where there is no NCCL, in place of one that calls it by itself. Raises
    `PluginError`."""
    fallback = getattr(factory, "fallback", "")
    if not fallback:
        raise PluginError(
            f"pool {name!r} calls NCCL by itself, and the simulation has none: run it with --substrate nccl, or name "
            "the design that stands in for it there as its class's `fallback`"
        )
    return load_pool(fallback)


def _is_plain(found: object) -> bool:
    """Whether a class makes its own instances, so that its methods are known before it is built."""
    # A class with `__new__` may return an object of another class.
    return isinstance(found, type) and not any("__new__" in vars(cls) for cls in found.__mro__[:-1])
