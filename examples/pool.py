"""A pool policy of your own: `symm fuzz --pool examples.pool:PoolPerFamily`.

A policy is built once a draw with this rank's context, wraps plain `torch.empty`, and gives
everything back at the end. This one keeps a pool for each family of groups. It has two mistakes, which
the harness finds within some tens of draws. It does not register its segments with a re-created
communicator (`stale-window`), and it does not close a window before its segment is freed
(`freed-while-registered`). `harness/system/pools/per_group.py` is right.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup, RankContext


class PoolPerFamily:
    """One pool a family (`tp`, `attn_cp`, …), every segment registered with the group that made it grow."""

    def __init__(self, context: RankContext) -> None:
        self._context = context

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._context.pool(group.family)
        known = len(pool.segments)
        with pool.use():
            yield  # torch.empty in here comes from the pool
        for segment in pool.segments[known:]:
            if group.communicator.supports_windows:
                group.communicator.register(segment)  # collective: every rank of the group is here

    def close(self) -> None:
        for pool in self._context.pools():
            for segment in pool.segments:
                for window in list(segment.windows):
                    window.close()  # local, and before the memory goes
            pool.close()
