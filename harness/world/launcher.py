"""Starts and ends the rank processes of one world, through its line to a zygote.

Invariant: nothing outlives the parent, and no world touches the ranks of another. A rank ends with its lifeline, with
the line of its world, or with the zygote. Output goes to anonymous files, so nothing is left on disk.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import msgspec

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.ipc import packets
from harness.ipc.messages import Fork, Forked, Kill, Killed, RankConfig, Serving
from harness.world.rank_process import RankProcess
from harness.world.zygote import END_DEADLINE, SHARED, Zygote

GONE = "the process that ranks are forked from was ended from outside"
SILENT = "the process that ranks are forked from does not answer: it is stopped, or {}"
OPENING, ANSWERING = 300.0, 20.0
"""Seconds for a zygote to import what ranks need, and to answer anything else: the time of a hang on the simulation."""
LOOK = 0.5
"""Seconds between two looks for an answer. A look counts for no more: who looks may have been stopped, and the zygote
with it."""
_serving: msgspec.msgpack.Decoder[Serving] = msgspec.msgpack.Decoder(Serving)
_forked: msgspec.msgpack.Decoder[Forked] = msgspec.msgpack.Decoder(Forked)
_killed: msgspec.msgpack.Decoder[Killed] = msgspec.msgpack.Decoder(Killed)


Answer = TypeVar("Answer")


@contextmanager
def begun(environment: dict[str, str], preload: tuple[str, ...]) -> Iterator[None]:
    """Under it, a zygote for worlds that need an equal one is there, and imports what ranks need meanwhile."""
    zygote = SHARED.take(environment, preload)
    try:
        yield
    finally:
        SHARED.give_back(zygote)


class Launcher:
    """One world's line to a zygote, which `release` gives back. Where a method raises, it can only be closed: an answer
    may still be on its way. A zygote that does not answer is killed, and with it the ranks of all its worlds."""

    def __init__(
        self, memory: Sequence[int], zygote: Zygote, release: Callable[[Zygote], None], *, clock: Clock = CLOCK
    ) -> None:
        self._zygote, self._release, self._clock = zygote, release, clock
        self._is_served = False
        self._process = os.getpid()
        try:
            self._line = zygote.connect(memory)
        except BaseException:
            release(zygote)
            raise

    @classmethod
    def shared(
        cls, memory: Sequence[int], environment: dict[str, str], preload: tuple[str, ...], clock: Clock
    ) -> Launcher:
        """On the zygote of all worlds of this process that need an equal one."""
        return cls(memory, SHARED.take(environment, preload), SHARED.give_back, clock=clock)

    @classmethod
    def alone(
        cls, memory: Sequence[int], environment: dict[str, str], preload: tuple[str, ...], clock: Clock
    ) -> Launcher:
        """On a zygote of its own."""
        return cls(memory, Zygote(environment, preload), Zygote.close, clock=clock)

    def wait_ready(self) -> None:
        """Wait until the imports are done. Raises `MachineError` with the import's own error, or if they do not end."""
        try:
            self._receive(_serving, OPENING, "its imports do not end")
        except EOFError:
            raise self._zygote.error() from None
        self._is_served = True

    def start(self, config: RankConfig) -> RankProcess:
        """Fork one rank. Raises `MachineError` if the zygote is gone or does not answer."""
        with ExitStack() as undo:
            ours, inside = packets.waiting(socket.socketpair())
            undo.callback(ours.close)
            lifeline_read, lifeline = os.pipe()
            undo.callback(os.close, lifeline)
            with inside, os.fdopen(lifeline_read):
                out = output_file(f"rank{config.rank}-out")
                undo.callback(os.close, out)
                err = output_file(f"rank{config.rank}-err")
                undo.callback(os.close, err)
                forked = self._ask(Fork(config), _forked, (inside.fileno(), lifeline_read, out, err))
            undo.pop_all()
        return RankProcess(forked.pid, Connection(ours.detach()), lifeline, out, err, self, clock=self._clock)

    def kill(self, pids: list[int]) -> dict[int, int]:
        """Kill and reap ranks; wait status by pid. A rank that died by itself keeps its own status.

        Raises `MachineError` if the zygote is gone or does not answer; then its ranks are gone too.
        """
        return self._ask(Kill(tuple(pids)), _killed).statuses

    def _ask(
        self, request: msgspec.Struct, decoder: msgspec.msgpack.Decoder[Answer], descriptors: Sequence[int] = ()
    ) -> Answer:
        """What the zygote answers to a request."""
        try:
            packets.send(self._line, request, descriptors)
            return self._receive(decoder, ANSWERING, "a rank of it cannot be ended")
        except (EOFError, OSError) as error:
            raise MachineError(GONE) from error

    def _receive(self, decoder: msgspec.msgpack.Decoder[Answer], seconds: float, otherwise: str) -> Answer:
        """The zygote's next message. Raises `EOFError` after the last one. `otherwise`: what keeps it from answering
        where it is not stopped."""
        for _ in range(math.ceil(seconds / LOOK)):
            if wait([self._line], LOOK):
                return packets.receive(self._line, decoder)[0]
        self._zygote.kill()
        raise MachineError(SILENT.format(otherwise))

    def close(self) -> None:
        """End every rank that is left, and give the zygote back. May be called twice."""
        if self._line.fileno() < 0:
            return
        if os.getpid() != self._process:
            # forked from the world's process: the line is one, and to shut it down here would end the parent's ranks
            self._line.close()
            return
        try:
            with self._line, suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)
                self._line.settimeout(END_DEADLINE)
                while self._is_served and self._line.recv(packets.LARGEST):
                    pass  # answers that came too late; the zygote closes its end once the ranks are gone
        finally:
            self._release(self._zygote)


def output_file(name: str) -> int:
    # an anonymous file of memory (memfd_create(2)): it goes with its last descriptor, whoever was killed
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # so that it can be cut short while the rank writes
    return fd
