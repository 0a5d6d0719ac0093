"""The launcher of another host and its ranks, as the parent sees them: with the methods of local ones.

Invariant: what a rank there wrote is in the parent's journal and output before its answer is. Once the host is lost,
whoever waits for one of its ranks gets `MachineError`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from typing import Protocol, TypeVar

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.ipc import mirror
from harness.ipc.host_messages import (
    Close,
    Done,
    End,
    Ended,
    Gone,
    Message,
    Open,
    Opened,
    Printed,
    Read,
    Said,
    Settle,
    Stacks,
    Start,
    Started,
    Tell,
    ToParent,
    Words,
    Wrote,
)
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import RankConfig, Reply, Request
from harness.world.launcher import output_file
from harness.world.rank_process import RankProcess
from harness.world.stacks import Stack

OPENING, ANSWERING = 120.0, 30.0
"""Seconds for a host to import what ranks need, and to answer anything else."""
Kind = TypeVar("Kind", bound=Message)


class Host(Protocol):
    """The task that starts the ranks of another host, at the other end of a line."""

    name: str
    is_lost: bool
    hearer: Callable[[ToParent | None], None]

    def send(self, message: Message) -> None: ...

    def ask(self, question: Message) -> int: ...

    def answer(self, number: int, kind: type[Kind], seconds: float) -> Kind: ...


class RemoteRank(RankProcess):
    """A rank on another host. Its replies and its output are copied here."""

    def __init__(self, index: int, launcher: RemoteLauncher, clock: Clock) -> None:
        here, self._inside = Pipe()
        out, err = output_file(f"rank{index}-out"), output_file(f"rank{index}-err")
        super().__init__(0, here, -1, out, err, launcher, clock=clock)
        self._index, self._host = index, launcher
        self._replies: deque[Reply] = deque()
        self._is_gone = self._left_unread = False

    def send(self, request: Request) -> bool:
        self._host.tell(self._index, request)
        return not self._is_gone

    def receive(self) -> Reply:
        try:
            self.connection.recv_bytes()
        except EOFError:
            self._host.check()
            if self._left_unread:
                raise ConnectionResetError from None
            raise
        return self._replies.popleft()

    def is_dead(self, *, has_closed: bool) -> bool:
        return self._is_gone

    def hear(self, message: Said | Gone | Printed | None) -> None:
        """Take what its host says of it; None once the host is lost. By the thread that hears the host."""
        match message:
            case Said(_, reply):
                self._replies.append(reply)
                self._inside.send_bytes(b"reply")
            case Printed(_, out, err):
                os.write(self._out, out)
                os.write(self._err, err)
            case Gone(_, unread):
                self._left_unread = unread
                self._leave()
            case None:
                self._leave()

    def _leave(self) -> None:
        self._is_gone = True
        self._inside.close()

    def close(self) -> None:
        for end in (self._inside, self.connection):
            end.close()
        for fd in (self._out, self._err):
            os.close(fd)


class RemoteLauncher:
    """One world's ranks on another host. Where a method raises, it can only be closed."""

    def __init__(self, host: Host, opening: Open, shared: SharedMemory, clock: Clock = CLOCK) -> None:
        self._host, self._shared, self._clock = host, shared, clock
        self._lock = threading.Lock()
        self._ranks: dict[int, RemoteRank] = {}
        self._is_open = True
        self._opening = host.ask(opening)

    def check(self) -> None:
        """Raise `MachineError` where the host is lost."""
        if self._host.is_lost:
            raise MachineError(f"host {self._host.name} is lost: its line has ended")

    def wait_ready(self) -> None:
        opened = self._host.answer(self._opening, Opened, OPENING)
        if opened.why_not:
            raise MachineError(f"host {self._host.name}: {opened.why_not}")

    def start(self, config: RankConfig) -> RankProcess:
        rank = RemoteRank(config.rank, self, self._clock)
        try:
            with self._lock:
                self._ranks[config.rank] = rank  # before it starts, as it says by itself that it is ready
            rank.pid = self._host.answer(self._host.ask(Start(config)), Started, ANSWERING).pid
        except BaseException:
            with self._lock:
                self._ranks.pop(config.rank, None)
            rank.close()
            raise
        return rank

    def kill(self, pids: list[int]) -> dict[int, int]:
        ended = self._host.answer(self._host.ask(End()), Ended, ANSWERING)
        with self._lock:
            ranks, self._ranks = self._ranks, {}
        return {rank.pid: ended.statuses.get(index, 0) for index, rank in ranks.items()}

    def close(self) -> None:
        with self._lock:
            was_open, self._is_open = self._is_open, False
            self._ranks.clear()
        if was_open:
            with suppress(MachineError):  # it is lost, and its task ends the ranks by itself
                self._host.answer(self._host.ask(Close()), Done, ANSWERING)

    def tell(self, index: int, request: Request) -> None:
        """Send a request to a rank."""
        self._host.send(Tell(index, request))

    def ask_for_stacks(self, indices: tuple[int, ...], native: bool) -> int:
        """Have the host read the stacks of ranks. Returns the number of the question."""
        return self._host.ask(Stacks(indices, native))

    def stacks(self, number: int) -> Mapping[int, Stack]:
        """The stacks of the ranks that were asked for, as far as they can be read."""
        read = self._host.answer(number, Read, ANSWERING)
        return {index: Stack(*stack) for index, stack in read.stacks.items()}

    def settle(self) -> None:
        """Have all that has changed there be here."""
        self._host.answer(self._host.ask(Settle()), Done, ANSWERING)

    def hear(self, message: ToParent | None) -> None:
        """Take what the host says of its ranks; None once it is lost. By the thread that hears it. Raises
        `ValueError` or `IndexError` for a message that fits no rank's memory."""
        with self._lock:
            if not self._is_open:
                return
            match message:
                case None:
                    for rank in self._ranks.values():
                        rank.hear(None)
                case Words():
                    mirror.take(self._shared, message)
                    self._shared.ring()
                case Wrote(rank, start, data, length, beats):
                    self._shared.journal(rank).copy(start, data, length, beats)
                case Said() | Gone() | Printed() if message.rank in self._ranks:
                    self._ranks[message.rank].hear(message)
