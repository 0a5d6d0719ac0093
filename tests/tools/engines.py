"""Pool policies that say of themselves what engines' pools are: without a teardown, or callers of NCCL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.system.context import ProcessGroup, RankContext


class Forever:
    """One pool for each group, registered with it, and no teardown."""

    forever = True

    def __init__(self, context: RankContext) -> None:
        self._context = context

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._context.pool(group.id.label)
        with pool.use():
            yield
        for segment in pool.segments:
            if all(window.communicator is not group.communicator for window in segment.windows):
                group.communicator.register(segment)


class Engine(Forever):
    """Calls NCCL by itself, it says."""

    observed = True


class Modelled(Engine):
    """The same, with a design that stands in for it."""

    fallback = "shared-at-exit"


class Prepared(Modelled):
    """Notes the process that prepared it in the file that `PREPARED` names."""

    @staticmethod
    def prepare() -> None:
        Path(os.environ["PREPARED"]).write_text(str(os.getpid()))


class Unprepared(Engine):
    @staticmethod
    def prepare() -> None:
        raise RuntimeError("no compiler here")


class Brings(Forever):
    """Has a communicator of its own for every group, it says."""

    def comm_ptr(self, group: ProcessGroup) -> int:
        return 0xBEEF
