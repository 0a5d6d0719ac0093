"""One rank as the parent sees it: its process, its connection, and what it printed."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Protocol

import psutil

from harness.clock import CLOCK, Clock
from harness.ipc.inbox import Inbox
from harness.ipc.messages import Broken, Reply, Request
from harness.text import visible

TAIL = 1 << 15
"""Bytes of each kind of output that are read. What Python writes when it dies takes some thousand of them."""
PATIENCE = 60.0
"""Seconds that a request of more bytes than the connection holds, some 200,000, waits for its rank to read."""
LOOKS, PAUSE = 20, 0.01
"""So often, so many seconds apart, a process whose connection has closed is looked at until it has ended."""


class Killer(Protocol):
    """What ends rank processes: a launcher."""

    def kill(self, pids: list[int]) -> dict[int, int]: ...


class RankProcess:
    """A rank's process; `launcher` ends it."""

    def __init__(
        self,
        pid: int,
        connection: Connection,
        lifeline: int,
        out: int,
        err: int,
        launcher: Killer,
        *,
        clock: Clock = CLOCK,
    ) -> None:
        self.pid, self.connection, self.launcher = pid, connection, launcher
        self._inbox = Inbox(connection)
        _limit_sends(connection, PATIENCE)
        self._lifeline, self._out, self._err, self._clock = lifeline, out, err, clock

    def send(self, request: Request) -> bool:
        """Send, and return whether it is there. The end of one that died between two draws is found by whoever waits
        for it, and so is one that has stopped and reads nothing."""
        try:
            self.connection.send(request)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return True

    def receive(self) -> Reply | None:
        """Its next reply; None where only a part of one has come, since it may have stopped there. `Broken` where that
        cannot be read, as once a plug-in has replaced built-in functions. Never waits. Raises `EOFError` or
        `ConnectionError` if it has closed its connection."""
        message = self._inbox.take()
        if message is None:
            return None
        try:
            reply = pickle.loads(message)
        except Exception as error:
            return Broken(f"gave an answer that cannot be read ({type(error).__name__})")
        return reply if isinstance(reply, Reply) else Broken(f"gave an answer of type {type(reply).__name__}")

    def is_dead(self, *, has_closed: bool) -> bool:
        """Whether the process has ended. One whose connection has closed is given a moment: Linux closes the files of
        a process before it becomes a zombie."""
        for _ in range(LOOKS if has_closed else 1):
            if _has_ended(self.pid):
                return True
            if has_closed:
                self._clock.sleep(PAUSE)
        return has_closed

    def printed(self) -> str:
        """The end of what the rank wrote to stdout and stderr, each under its name."""
        parts = []
        for name, fd in (("stdout", self._out), ("stderr", self._err)):
            size = os.fstat(fd).st_size
            text = visible(os.pread(fd, TAIL, max(0, size - TAIL)).decode(errors="replace")).strip()
            if text:
                parts.append(f"{name}:\n{text}")
        return "\n".join(parts)

    def written(self, starts: tuple[int, int]) -> tuple[bytes, bytes, tuple[int, int]]:
        """The end of what the rank wrote to stdout and stderr from there on, and where that ends."""
        ends = os.fstat(self._out).st_size, os.fstat(self._err).st_size
        out, err = (
            os.pread(fd, min(TAIL, max(0, end - start)), max(start, end - TAIL))
            for fd, start, end in zip((self._out, self._err), starts, ends, strict=True)
        )
        return out, err, ends

    def ask_for_stack(self) -> int:
        """Have the main thread write its Python stack to stderr, if it can. Returns where that will begin."""
        start = os.fstat(self._err).st_size
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        return start

    def written_since(self, start: int) -> str:
        """What the rank wrote to stderr from there on."""
        return visible(os.pread(self._err, os.fstat(self._err).st_size - start, start).decode(errors="replace"))

    def forget_output(self) -> None:
        """Drop what was printed, so that a talkative system under test does not fill the memory."""
        for fd in (self._out, self._err):
            os.ftruncate(fd, 0)

    def close(self) -> None:
        self.connection.close()
        for fd in (self._lifeline, self._out, self._err):
            os.close(fd)


def first_replies(ranks: Mapping[int, RankProcess], seconds: float, clock: Clock = CLOCK) -> dict[int, Reply | None]:
    """The replies of those ranks that answer first, by index; None of one that has closed its connection. Empty where
    none has answered in full within so many seconds."""
    indices: dict[Connection, int] = {rank.connection: index for index, rank in ranks.items()}
    end = clock.now() + seconds
    while True:
        found: dict[int, Reply | None] = {}
        for connection in wait([*indices], max(0.0, end - clock.now())):
            assert isinstance(connection, Connection)
            index = indices[connection]
            try:
                reply = ranks[index].receive()
            except (EOFError, ConnectionError):
                found[index] = None
            else:
                found |= {} if reply is None else {index: reply}
        if found or clock.now() >= end:
            return found


def _limit_sends(connection: Connection, seconds: float) -> None:
    """Have a send raise `BlockingIOError` where the other end reads nothing for so long."""
    with socket.socket(fileno=connection.fileno()) as end:
        whole = int(seconds)
        limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))  # a timeval
        end.settimeout(None)  # `socket.setdefaulttimeout` has made it non-blocking: sends would end at once
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        end.detach()  # it is the connection's


def _has_ended(pid: int) -> bool:
    # a dead rank stays a zombie until its zygote reaps it, so its pid is not free for another process
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def death(status: int) -> str:
    """How a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        named = f" ({signal.Signals(number).name})" if number in {*signal.Signals} else ""  # real-time ones have none
        return f"was killed by signal {number}{named}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"
