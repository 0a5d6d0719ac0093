"""Zygotes for commands that tests fork, from a process that has done the imports of one.

Importing torch and Triton costs a zygote seconds, more than most commands take. One that is forked here runs what
`harness.rank.zygote` runs as a program, in the folder and the environment of its command.
Invariant: every command has a zygote of its own. It ends with its command, whose end of the door closes, and the
nursery ends with the process of the tests.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, NamedTuple
from uuid import uuid4

import msgspec

from harness.ipc import packets
from harness.machine.inherited import inherited
from harness.world.platform import choose
from harness.world.zygote import QUIET, Process, Zygote, spawn
from tests.tools.processes import VARIABLE, new_mark

ROOT = Path(__file__).parents[2]


class Birth(msgspec.Struct):
    """Asks for a zygote; its end of the door and its stderr come with it."""

    folder: str
    environment: dict[str, str]


class Born(msgspec.Struct):
    """The zygote is there."""

    pid: int


_birth: msgspec.msgpack.Decoder[Birth] = msgspec.msgpack.Decoder(Birth)
_born: msgspec.msgpack.Decoder[Born] = msgspec.msgpack.Decoder(Born)


class Place(NamedTuple):
    """Where a nursery is reached, and what its zygotes have imported."""

    address: str
    needs: dict[str, str]
    preload: tuple[str, ...]

    def spawn(self, door: socket.socket, environment: dict[str, str], preload: tuple[str, ...]) -> Process:
        """A zygote's process, forked here where it would import the same in the same way."""
        is_alike = preload == self.preload and self.needs.items() <= environment.items()
        return self._fork(door, environment) if is_alike else spawn(door, environment, preload)

    def zygote(self, environment: dict[str, str], preload: tuple[str, ...]) -> Zygote:
        """A zygote whose process is forked here."""
        return Zygote(environment, preload, self.spawn)

    def _fork(self, door: socket.socket, environment: dict[str, str]) -> Forked:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.connect(self.address)
        err, inside = os.pipe()
        packets.send(line, Birth(str(Path.cwd()), environment), (door.fileno(), inside))
        os.close(inside)
        return Forked(packets.receive(line, _born)[0].pid, line, os.fdopen(err, "rb"))


class Forked:
    """A zygote that is no child of this process: it and its ranks hold a line, which closes with the last of them."""

    def __init__(self, pid: int, line: socket.socket, stderr: IO[bytes]) -> None:
        self._pid, self._line, self.stderr = pid, line, stderr

    def poll(self) -> int | None:
        return 0 if wait([self._line], 0) else None

    def wait(self, timeout: float | None = None) -> int:
        if not wait([self._line], timeout):
            raise subprocess.TimeoutExpired("zygote", timeout or 0.0)
        return 0

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


class Nursery:
    """One for a process of tests, started when first asked for."""

    def __init__(self) -> None:
        self._place: Place | None = None

    def place(self) -> Place:
        """Where it is."""
        if self._place is None:
            self._place = self._start()
        return self._place

    def _start(self) -> Place:
        platform = choose("sim", 1)
        place = Place(f"\0symm-nursery-{uuid4().hex}", {**QUIET, **platform.environment}, platform.preload)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(place.address)
        listener.listen(16)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with listener:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.tools.nursery", str(listener.fileno()), *place.preload],
                pass_fds=(listener.fileno(),),
                env=inherited(place.needs, new_mark(), {"PYTHONPATH": path}),
                stdin=subprocess.PIPE,  # its end tells of the end of this process
                stdout=subprocess.DEVNULL,
            )
        return place


NURSERY = Nursery()


def tend(listener: socket.socket) -> None:
    """Fork a zygote for each that asks, until the process of the tests has gone."""
    while 0 not in (ready := wait([listener, 0])):
        assert ready
        line, _ = listener.accept()
        asked, (door, err) = packets.receive(line, _birth)
        pid = os.fork()
        if pid == 0:
            listener.close()
            live(asked, door, err)
        with suppress(OSError):  # its command is gone already
            packets.send(line, Born(pid))
        line.close()
        os.close(door)
        os.close(err)


def live(asked: Birth, door: int, err: int) -> None:
    """In the child: be a zygote as a new process would be. Never returns."""
    from harness.rank.zygote import be_zygote

    try:
        for number, fd in enumerate((os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR), err)):
            os.dup2(fd, number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        wear(asked.environment.get(VARIABLE, ""))
        os.chdir(asked.folder)
        os.environ.clear()
        os.environ.update(asked.environment)
        del sys.path[0]  # the folder in which this process was started
        be_zygote(door, 0, ())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def wear(mark: str) -> None:
    """Have this process, and what it forks, be marked for all others to see."""
    # /proc/<pid>/environ shows the memory that the process was started with (proc(5)), whatever setenv(3) did since
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    there = libc.getenv(VARIABLE.encode())
    ctypes.memmove(there, mark.encode().ljust(len(os.environ[VARIABLE]), b"-"), len(os.environ[VARIABLE]))


if __name__ == "__main__":
    from harness.rank.zygote import PRELOAD

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is reaped by the kernel
    for name in (*PRELOAD, *sys.argv[2:]):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that the collection of each zygote need not walk through torch
    tend(socket.socket(fileno=int(sys.argv[1])))
