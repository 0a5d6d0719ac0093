"""Zygotes as the parent sees them: started, shared by worlds that would start equal ones, ended.

Invariant: nothing outlives the parent. A zygote ends when its door closes and, at the latest, with the parent's death
signal. Worlds share one only where their ranks would have the same folder,
environment and imports from a zygote of their own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple, Protocol

from harness.errors import MachineError
from harness.ipc import packets
from harness.ipc.messages import Serve
from harness.machine.inherited import import_path, inherited

QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
}
"""One thread each: the zygote must be single-threaded when it forks, and ranks share the cores. glibc
raises its mmap threshold with every large block freed and then keeps such blocks; a fixed one does not."""
RUNNING_TEST = "PYTEST_CURRENT_TEST"
"""Pytest changes it with every test; no rank reads it."""
END_DEADLINE = 5.0
"""Seconds for a zygote to kill its ranks and end."""


class Process(Protocol):
    """What a zygote runs in, as `subprocess.Popen` has it."""

    @property
    def stderr(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


def spawn(door: socket.socket, environment: dict[str, str], preload: tuple[str, ...]) -> Process:
    """A zygote's process, in all of this environment, behind this end of its door."""
    # PR_SET_PDEATHSIG fires when the thread that forked ends, not its process (prctl(2)); started from another
    # thread than the main one, a zygote has the door alone to tell it of the parent's end
    parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
    # -P: a file in the working directory, which may be a stranger's, is imported only as a plug-in that was named
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.rank.zygote", str(door.fileno()), str(parent), *preload],
        pass_fds=(door.fileno(),),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


class Zygote:
    """A process that ranks are forked from, for any number of worlds. `users` counts those that hold it."""

    def __init__(
        self,
        environment: dict[str, str],
        preload: tuple[str, ...] = (),
        spawn: Callable[[socket.socket, dict[str, str], tuple[str, ...]], Process] = spawn,
    ) -> None:
        self.users = 0
        self._printed: str | None = None
        self._reading = threading.Lock()
        self._door, inside = packets.pair()
        with inside:
            self._process = spawn(inside, whole(environment), preload)

    @property
    def has_ended(self) -> bool:
        """Whether it can serve no other world."""
        return self._process.poll() is not None

    def connect(self, memory: Sequence[int]) -> socket.socket:
        """A line for one world with this memory, by its descriptors. Its first message comes when the imports are
        done; where it closes instead, `error` has the reason."""
        line, inside = packets.pair()
        try:
            with inside:
                packets.send(self._door, Serve(), (inside.fileno(), *memory))
        except OSError as error:
            line.close()
            raise self.error() from error
        except BaseException:
            line.close()
            raise
        return line

    def error(self) -> MachineError:
        """Why it ended before it was ready, by the last line that it printed."""
        with self._reading:
            if self._printed is None:
                assert self._process.stderr is not None
                self._printed = self._process.stderr.read().decode(errors="replace")
        lines = self._printed.strip().splitlines() or ["no message"]
        return MachineError(f"rank processes cannot start: {lines[-1]}")

    def kill(self) -> None:
        """End it where it does not answer, with the ranks of every world: the kernel kills those after it."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and with it every rank that is left."""
        self._door.close()
        try:
            self._process.wait(timeout=END_DEADLINE)
        except subprocess.TimeoutExpired:  # it still imports, or a rank of it cannot be reaped
            self.kill()
        assert self._process.stderr is not None
        self._process.stderr.close()


class Inheritance(NamedTuple):
    """What a rank has from its zygote. The process is part of it: a forked child must not use its parent's zygote."""

    process: int
    folder: str
    environment: frozenset[tuple[str, str]]
    preload: tuple[str, ...]


class Zygotes:
    """The zygotes that worlds of a process share; one is ended by the last that gives it back. Safe between threads."""

    def __init__(self, start: Callable[[dict[str, str], tuple[str, ...]], Zygote] = Zygote) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._shared: dict[Inheritance, Zygote] = {}
        self._kept: set[Inheritance] = set()

    def take(self, environment: dict[str, str], preload: tuple[str, ...]) -> Zygote:
        """A zygote for one more user, started if there is none."""
        wanted = _inheritance(environment, preload)
        with self._lock:
            zygote = self._shared.get(wanted)
            if zygote is None or zygote.has_ended:
                zygote = self._shared[wanted] = self._start(environment, preload)
            zygote.users += 1
            return zygote

    def give_back(self, zygote: Zygote) -> None:
        """One user fewer."""
        with self._lock:
            zygote.users -= 1
            places = [wanted for wanted, shared in self._shared.items() if shared is zygote]
            is_kept = any(wanted in self._kept for wanted in places)
            if zygote.users or is_kept:
                return
            for wanted in places:
                del self._shared[wanted]
        zygote.close()

    @contextmanager
    def keep(self, environment: dict[str, str], preload: tuple[str, ...]) -> Iterator[None]:
        """Under it, a zygote of this kind stays for the next world once one has started it."""
        wanted = _inheritance(environment, preload)
        with self._lock:
            self._kept.add(wanted)
        try:
            yield
        finally:
            with self._lock:
                self._kept.discard(wanted)
                zygote = self._shared.get(wanted)
                is_idle = zygote is not None and not zygote.users
                if is_idle:
                    del self._shared[wanted]
            if zygote is not None and is_idle:
                zygote.close()


SHARED = Zygotes()
"""Those of this process."""


def whole(environment: dict[str, str]) -> dict[str, str]:
    """All of the environment of a zygote that needs this."""
    return inherited(QUIET, environment, {"PYTHONPATH": import_path()})


def _inheritance(environment: dict[str, str], preload: tuple[str, ...]) -> Inheritance:
    """What a rank would have from a zygote that is started now."""
    items = frozenset(item for item in whole(environment).items() if item[0] != RUNNING_TEST)
    return Inheritance(os.getpid(), os.path.realpath("."), items, preload)
