"""A task that is not the parent: it starts the ranks of its host where the parent asks for it, and ends as it ends.

Invariant: nothing of it outlives the line to the parent. What a rank wrote and printed is sent before its answer, and
nothing that came over the line is run but what the parent's command names.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import FrameType

import msgspec
import numpy as np

from harness.clock import CLOCK
from harness.errors import MachineError, UsageError
from harness.ipc import lines, mirror
from harness.ipc.host_messages import (
    Answer,
    Ask,
    Close,
    Common,
    Dismiss,
    Done,
    End,
    Ended,
    Failed,
    Gone,
    Hello,
    Message,
    Open,
    Opened,
    Prepare,
    Printed,
    Read,
    Said,
    Settle,
    Signalled,
    Stacks,
    Start,
    Started,
    Tell,
    ToTask,
    Words,
    Wrote,
)
from harness.ipc.memory import FIELDS, NAME, SharedMemory
from harness.ipc.messages import Broken
from harness.world import litter
from harness.world.hosts.launch import Launch, host_id, machine_id
from harness.world.launcher import Launcher
from harness.world.platform import choose
from harness.world.rank_process import RankProcess
from harness.world.stacks import take

COMING = 120.0
"""Seconds in which the parent has to be there."""
LOOK, IDLE = 0.02, 0.5
"""Seconds between two looks at what ranks have written, and between two at signals where there are none."""
_decoder: msgspec.msgpack.Decoder[ToTask] = msgspec.msgpack.Decoder(ToTask)


def follow(launch: Launch, command: str) -> int:
    """Serve the parent of this launch until it ends. Returns the status with which its command ends. Raises
    `MachineError` where the parent does not come or is lost, `UsageError` where it has another token."""
    line = lines.Line(lines.reach(launch.address, launch.port, launch.secret, COMING), _decoder)
    line.send(Hello(launch.rank, host_id(os.environ), machine_id(), command))
    served: ServedHost | None = None
    with _signals() as signals:
        try:
            while True:
                waited = [line.connection, *(served.waited if served else ())]
                ready = wait(waited, LOOK if served else IDLE)
                while signals:
                    line.send(Signalled(signals.pop()))
                if served is not None:
                    served.hear(ready)
                if line.connection not in ready:
                    continue
                match line.receive():
                    case Dismiss(status):
                        return status
                    case Ask(number, question) if launch.token:
                        served, answer = _answer(served, question, line)
                        line.send(Answer(number, answer))
                    case message if served is not None:
                        served.take(message)
        except EOFError:
            raise MachineError(f"the task at {launch.address}, port {launch.port}, has ended without a word") from None
        finally:
            if served is not None:
                served.close()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that have come under it; they end the parent, and with it this task."""
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] != signal.SIG_IGN:
                signal.signal(number, remember)
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(
    served: ServedHost | None, question: Message, line: lines.Line[ToTask]
) -> tuple[ServedHost | None, Opened | Started | Read | Ended | Done | Failed]:
    """The host's world after a question, and the answer."""
    try:
        match question:
            case Open():
                if served is not None:
                    served.close()
                    served = None
                return ServedHost(question, line), Opened()
            case Close():
                if served is not None:
                    served.close()
                return None, Done()
        if served is None:
            return None, Failed("no world is open")
        return served, served.answer(question)
    except (UsageError, OSError) as error:
        return served, Opened(str(error)) if isinstance(question, Open) else Failed(str(error))


class ServedHost:
    """The ranks of a world on this host, and what the parent has of them."""

    def __init__(self, opening: Open, line: lines.Line[ToTask]) -> None:
        """Raises `MachineError` where this machine cannot run them."""
        platform = choose(opening.substrate, opening.here, opening.evidence)
        self._line, self._has_gpus = line, platform.gpus > 0
        self._shared = SharedMemory.of_host(opening.size, _opened(opening.common))
        self._mirror: mirror.Mirror | None = None
        self._ranks: dict[int, RankProcess] = {}
        self._heard: dict[Connection, int] = {}
        """The connections of ranks that have not closed them."""
        self._facts: dict[int, Facts] = {}
        try:
            self._launcher = Launcher.shared(self._shared.descriptors, platform.environment, platform.preload, CLOCK)
        except BaseException:
            self._shared.close()
            raise
        try:
            self._launcher.wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def waited(self) -> list[Connection | int]:
        """What this host has to hear of: its ranks, and the bell that they ring."""
        assert self._shared.bell is not None
        return [self._shared.bell, *self._heard]

    def hear(self, ready: Sequence[object]) -> None:
        """Send what has changed, and then what ranks have answered."""
        assert self._shared.bell is not None
        if self._shared.bell in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._shared.bell)
        self._send_facts()
        for connection in self._heard.keys() & {*ready}:
            self._hear(connection)

    def _hear(self, connection: Connection) -> None:
        index = self._heard[connection]
        message: Message
        try:
            if (reply := self._ranks[index].receive()) is None:  # a part of one
                return
            message = Said(index, reply)
        except (EOFError, ConnectionError) as ended:
            del self._heard[connection]
            message = Gone(index, isinstance(ended, ConnectionResetError))
        self._send_facts(is_last=True)
        try:
            self._line.send(message)
        except (TypeError, ValueError) as error:  # it is of a plug-in's making
            self._line.send(Said(index, Broken(f"gave an answer that cannot be sent ({type(error).__name__})")))

    def take(self, message: ToTask) -> None:
        """Carry out what needs no answer."""
        match message:
            case Words():
                mirror.take(self._shared, message)
            case Tell(rank, request) if rank in self._ranks:
                self._ranks[rank].send(request)
            case Prepare():
                self._prepare(message)

    def _prepare(self, draw: Prepare) -> None:
        words = np.frombuffer(draw.rows, dtype=np.int64).reshape(-1, self._shared.ranks, FIELDS)
        self._shared.counters[[slot for _, slot in draw.slots]] = words
        self._shared.waiting[...] = 0
        for index, rank in self._ranks.items():
            self._shared.journal(index).clear()
            rank.forget_output()
            self._facts[index].forget()
        self._mirror = mirror.Mirror(self._shared, dict(draw.slots), draw.ranks, with_waits=True)

    def answer(self, question: Message) -> Started | Read | Ended | Done | Failed:
        """Carry out a question. Raises `MachineError` where it cannot be done."""
        match question:
            case Start(config):
                rank = self._launcher.start(config)
                self._ranks[config.rank], self._heard[rank.connection] = rank, config.rank
                self._facts[config.rank] = Facts(config.rank, rank, self._shared)
                return Started(rank.pid)
            case Stacks(indices, native):
                found = take({index: self._ranks[index] for index in indices if index in self._ranks}, native)
                return Read({index: (stack.text, stack.witness) for index, stack in found.items()})
            case Settle():
                self._send_facts()
                return Done()
            case End():
                return Ended(self._end())
        return Failed(f"{type(question).__name__} is no question")

    def _end(self) -> dict[int, int]:
        """Kill the ranks; wait status of each, after all that they wrote is sent."""
        left = litter.mapped(rank.pid for rank in self._ranks.values()) if self._has_gpus else set()
        statuses = self._launcher.kill([rank.pid for rank in self._ranks.values()])
        self._send_facts(is_last=True)
        self._mirror = None
        found = {index: statuses.get(rank.pid, 0) for index, rank in self._ranks.items()}
        for rank in self._ranks.values():
            rank.close()
        self._ranks.clear()
        self._heard.clear()
        self._facts.clear()
        litter.remove(left)
        return found

    def _send_facts(self, *, is_last: bool = False) -> None:
        """Send what ranks have written since the last time. `is_last`: and what is not any more as it was sent."""
        for facts in self._facts.values():
            for message in facts.news(is_last):
                self._line.send(message)
        if self._mirror is not None and (words := self._mirror.changed()) is not None:
            self._line.send(words)

    def close(self) -> None:
        """End every process of this host, and give its memory back."""
        left = litter.mapped(rank.pid for rank in self._ranks.values()) if self._has_gpus else set()
        self._launcher.close()
        for rank in self._ranks.values():
            rank.close()
        self._ranks.clear()
        self._heard.clear()
        self._facts.clear()
        self._mirror = None
        litter.remove(left)
        if self._shared.fd >= 0:
            self._shared.close()


class Facts:
    """What the parent has of one rank's journal and output."""

    def __init__(self, index: int, rank: RankProcess, shared: SharedMemory) -> None:
        self._index, self._rank, self._journal = index, rank, shared.journal(index)
        self.forget()

    def forget(self) -> None:
        """A draw begins: nothing is written."""
        self._sent, self._marks, self._printed = b"", (0, self._journal.beats), (0, 0)

    def news(self, is_last: bool) -> Iterator[Wrote | Printed]:
        """What is new. Where it `is_last`, the journal is sent once more if something was written over."""
        marks = self._journal.length, self._journal.beats
        written = self._journal.written(len(self._sent))
        if is_last and not self._journal.written(0).startswith(self._sent):
            self._sent, written = b"", self._journal.written(0)
        if marks != self._marks or written:
            yield Wrote(self._index, len(self._sent), written, *marks)
            self._sent, self._marks = self._sent + written, marks
        out, err, self._printed = self._rank.written(self._printed)
        if out or err:
            yield Printed(self._index, out, err)


def _opened(common: Common | None) -> int | None:
    """The memory that the hosts share. Raises `MachineError` where this host cannot reach it."""
    if common is None:
        return None
    with suppress(OSError):
        if common.machine == machine_id():
            found = os.open(f"/proc/{common.pid}/fd/{common.descriptor}", os.O_RDWR | os.O_CLOEXEC)
            if os.fstat(found).st_ino == common.inode and NAME in os.readlink(f"/proc/self/fd/{found}"):
                return found
            os.close(found)  # of another process, which has that number here
    raise MachineError(
        "ranks of the simulation share memory, and this host is not the parent's machine, or another container of it: "
        "take --substrate nccl, or one host"
    )
