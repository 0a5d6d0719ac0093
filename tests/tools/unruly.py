"""Pool policies with which a rank ends, stops or speaks, named `tests.tools.unruly:Name` in a scenario's `System`.

Invariant: each misbehaves on rank 1 alone, whenever it allocates, and is sound otherwise.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from harness.system.context import ProcessGroup
from tests.tools.planted import Sound

DAWDLING = 0.5
"""Seconds for which `Dawdles` is silent at each allocation."""
CHILD = 654321
"""Seconds for which the process of `LeavesAChild` sleeps, by which it is known."""


class Unruly(Sound):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        if self.context.rank == 1:
            self.misbehave()
        with super().use(group):
            yield

    def misbehave(self) -> None:
        raise NotImplementedError


class WritesOverItsJournal(Unruly):
    """Breaks rank-crash: memory that is not its own is written over, and that is where it writes what it sees."""

    def misbehave(self) -> None:
        journal = self.context._substrate.recorder.record.__self__._memory
        journal[8:64] = b"\xc1" * 56


class RaisesOverItsJournal(WritesOverItsJournal):
    """Breaks rank-crash and raised."""

    def misbehave(self) -> None:
        super().misbehave()
        print("was here", flush=True)
        raise ValueError("no more")


class Killed(Unruly):
    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Terminated(Unruly):
    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Aborts(Unruly):
    def misbehave(self) -> None:
        os.abort()


class Leaves(Unruly):
    def misbehave(self) -> None:
        os._exit(7)


class LeavesAChild(Unruly):
    """Starts a process, as a daemon has it, and dies without it."""

    def misbehave(self) -> None:
        subprocess.run(["sh", "-c", f"setsid sleep {CHILD} &"], check=True)
        os._exit(7)


class Spins(Unruly):
    def misbehave(self) -> None:
        while True:
            pass


class Naps(Unruly):
    """Waits in C code of the system."""

    def misbehave(self) -> None:
        time.sleep(3600)


class Crashes(Unruly):
    def misbehave(self) -> None:
        ctypes.memset(0, 0, 1)


class Stops(Unruly):
    """A stopped process cannot even write down where it stands."""

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


class StopsInItsAnswer(Stops):
    """Stops after the first bytes of an answer, as where a signal stops it while it writes a long one."""

    def misbehave(self) -> None:
        frame = sys._getframe()
        while frame.f_code.co_name != "_serve":
            assert frame.f_back is not None
            frame = frame.f_back
        os.write(frame.f_locals["connection"].fileno(), struct.pack("!i", 1000) + b"only a part")
        super().misbehave()


class Dawdles(Unruly):
    def misbehave(self) -> None:
        time.sleep(DAWDLING)


class Interrupts(Unruly):
    """Presses Ctrl-C in the process that started the world, and does not come back."""

    def misbehave(self) -> None:
        zygote = psutil.Process(os.getppid())
        os.kill(zygote.ppid(), signal.SIGINT)
        time.sleep(3600)


class Raises(Unruly):
    def misbehave(self) -> None:
        raise ValueError("no pool today")


class NoContext(Sound):
    def use(self, group: ProcessGroup) -> None:  # type: ignore[override]
        pass


class Speaks(Unruly):
    def misbehave(self) -> None:
        print("for everyone")
        print("in confidence", file=sys.stderr)


class SpeaksAndLeaves(Speaks):
    def misbehave(self) -> None:
        super().misbehave()
        os._exit(7)
