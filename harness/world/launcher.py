"""Starts and ends rank processes for the parent, through a zygote.

Invariant: nothing outlives the parent. The zygote ends when its socket closes and, at the latest,
with the parent's death signal; a rank ends with its lifeline or with the zygote. Output goes to
anonymous files, so nothing is left on disk.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from harness.errors import MachineError
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Options

QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
}
"""One thread each: the zygote must be single-threaded when it forks, and ranks share the cores. glibc
raises its mmap threshold with every large block freed and then keeps such blocks; a fixed one does not."""
TAIL = 4000


class RankProcess:
    """A rank as the parent sees it: its connection, and what it printed."""

    def __init__(self, pid: int, connection: Connection, lifeline: int, out: int, err: int, launcher: Launcher) -> None:
        self.pid, self.connection, self.launcher = pid, connection, launcher
        self._lifeline, self._out, self._err = lifeline, out, err

    def send(self, message: tuple[Any, ...]) -> None:
        """Send, if it is there. One that died between two draws is found, with its end, by whoever waits for it."""
        with suppress(ConnectionError):
            self.connection.send(message)

    def is_dead(self, closed: bool) -> bool:
        """Whether the process has ended; one whose connection has closed is given a moment to."""
        for _ in range(20 if closed else 1):
            try:
                if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.01 if closed else 0)
        return closed

    def printed(self) -> str:
        """The end of what the rank wrote to stdout and stderr, each under its name."""
        parts = []
        for name, fd in (("stdout", self._out), ("stderr", self._err)):
            size = os.fstat(fd).st_size
            text = os.pread(fd, TAIL, max(0, size - TAIL)).decode(errors="replace").strip()
            if text:
                parts.append(f"{name}:\n{text}")
        return "\n".join(parts)

    def ask_for_stack(self) -> int:
        """Have the main thread write its Python stack to stderr, if it can. Returns where that will begin."""
        start = os.fstat(self._err).st_size
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        return start

    def written_since(self, start: int) -> str:
        """What the rank wrote to stderr from there on."""
        return os.pread(self._err, os.fstat(self._err).st_size - start, start).decode(errors="replace")

    def forget_output(self) -> None:
        """Drop what was printed, so that a talkative system under test does not fill the memory."""
        for fd in (self._out, self._err):
            os.ftruncate(fd, 0)

    def close(self) -> None:
        self.connection.close()
        for fd in (self._lifeline, self._out, self._err):
            os.close(fd)


class Launcher:
    """A zygote process and the ranks forked from it."""

    def __init__(self, shared: SharedMemory, environment: dict[str, str], preload: tuple[str, ...] = ()) -> None:
        mine, theirs = socket.socketpair()
        death_signal = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        command = [sys.executable, "-m", "harness.rank.zygote", str(theirs.fileno()), str(shared.fd), str(death_signal)]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [*command, *preload],
            pass_fds=(theirs.fileno(), shared.fd),
            env={**os.environ, **QUIET, **environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self._connection = Connection(mine.detach())

    def wait_ready(self) -> None:
        """Wait until the imports are done. Raises `MachineError` with the import's own words."""
        try:
            self._connection.recv()
        except EOFError:
            assert self._process.stderr is not None
            words = self._process.stderr.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise MachineError(f"rank processes cannot start: {words[-1]}") from None

    def start(self, options: Options) -> RankProcess:
        """Fork one rank. Where this raises, the launcher can only be closed: its answer is still to come."""
        with ExitStack() as undo:
            mine, theirs = socket.socketpair()
            lifeline_read, lifeline = os.pipe()
            undo.callback(os.close, lifeline)
            with theirs, os.fdopen(lifeline_read):
                out, err = (_output_file(f"rank{options.rank}-{name}") for name in ("out", "err"))
                undo.callback(os.close, out)
                undo.callback(os.close, err)
                self._connection.send(("fork", options))
                for fd in (theirs.fileno(), lifeline_read, out, err):
                    reduction.send_handle(self._connection, fd, self._process.pid)
                pid = self._connection.recv()
            undo.pop_all()
        return RankProcess(pid, Connection(mine.detach()), lifeline, out, err, self)

    def kill(self, pids: list[int]) -> dict[int, int]:
        """Kill and reap ranks; wait status by pid. A rank that died by itself keeps its own status.

        Raises `MachineError` if the zygote is gone; then its ranks are too.
        """
        try:
            self._connection.send(("kill", pids))
            statuses: dict[int, int] = self._connection.recv()
        except (EOFError, OSError) as error:
            raise MachineError("the process that ranks are forked from was ended from outside") from error
        return statuses

    def close(self) -> None:
        """End the zygote and with it every rank that is left."""
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


def death(status: int) -> str:
    """How a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        named = f" ({signal.Signals(number).name})" if number in {*signal.Signals} else ""  # real-time ones have none
        return f"was killed by signal {number}{named}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"


def _output_file(name: str) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # so that it can be cut short while the rank writes
    return fd
