"""Pool policies under which a rank ends, or never does."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup
from harness.system.planted.sound import Sound


class Dies(Sound):
    """Breaks rank-crash: rank 0 ends with SIGSEGV the second time it allocates (F08, as the others see it)."""

    uses = 0

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self.uses += 1
        if self.context.rank == 0 and self.uses == 2:
            self.die()
        with super().use(group):
            yield

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class WritesToNull(Dies):
    """Breaks rank-crash: rank 0 writes through a null pointer the second time it allocates (F22)."""

    def die(self) -> None:
        ctypes.memset(0, 0, 1)


class Exits(Dies):
    """Breaks rank-crash: rank 0 leaves with status 3 the second time it allocates (F14, whose runtime aborts)."""

    def die(self) -> None:
        os._exit(3)


class Sleeps(Dies):
    """Breaks hang: rank 0 never returns from the second time it allocates (F09, without end)."""

    def die(self) -> None:
        time.sleep(3600)
