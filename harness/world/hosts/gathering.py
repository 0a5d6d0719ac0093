"""The parent among the tasks that torchrun or srun started: who has come, on which hosts they are, and their dismissal.

Invariant: every task that has come hears the status with which the command ends, last of all. A task that is not of
this launch, or comes twice, is turned away.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple, TypeVar

import msgspec

from harness import interrupts
from harness.errors import MachineError, UsageError
from harness.ipc import lines
from harness.ipc.host_messages import Answer, Ask, Dismiss, Failed, Hello, Message, Signalled, ToParent
from harness.world.hosts.hosts import Over
from harness.world.hosts.launch import OPT_OUT, Launch, host_id, launched, machine_id
from harness.world.hosts.task import follow

COMING = 120.0
"""Seconds in which every task has to come."""
LATE, LEAVING = 30.0, 5.0
"""Seconds for tasks to come where the command has ended already, and for all to hear that it has."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNPROVED = 128
"""Ends that may be at their proof at once; others wait at the door."""
PAUSE = 0.2
"""Seconds after which the door is tried again, and interruptions are looked for."""
Kind = TypeVar("Kind", bound=Message)
_decoder: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)


class Task:
    """Another task, at the other end of its line."""

    def __init__(self, hello: Hello, line: lines.Line[ToParent]) -> None:
        self.rank, self.name, self.machine, self.command = hello.rank, hello.host, hello.machine, hello.command
        self.hearer: Callable[[ToParent | None], None] = _unheard
        """What takes the messages about its ranks; None where the task is lost."""
        self.is_lost = False
        self._line = line
        self._numbers = count()
        self._answers: dict[int, Message] = {}
        self._changed = threading.Condition()

    def send(self, message: Message) -> None:
        """Send a message; to a task that is lost it goes nowhere."""
        self._line.send(message)

    def ask(self, question: Message) -> int:
        """Ask. Returns the number under which the answer comes."""
        number = next(self._numbers)
        self._line.send(Ask(number, question))  # type: ignore[arg-type]
        return number

    def answer(self, number: int, kind: type[Kind], seconds: float) -> Kind:
        """The answer to a question. Raises `MachineError` where there is none, or it cannot be done."""
        with self._changed:
            has_come = self._changed.wait_for(lambda: number in self._answers or self.is_lost, seconds)
            answer = self._answers.pop(number, None)
        if answer is None and has_come:
            raise MachineError(f"host {self.name} is lost: its line has ended")
        if answer is None:
            raise MachineError(f"host {self.name} did not answer within {seconds:.0f} s")
        if not isinstance(answer, kind):
            why = answer.why if isinstance(answer, Failed) else f"it answered {type(answer).__name__}"
            raise MachineError(f"host {self.name}: {why}")
        return answer

    def listen(self) -> None:
        """Hear what it says until its line ends."""
        with suppress(EOFError, ValueError, IndexError):  # whatever fits no world ends the line
            while True:
                self._hear(self._line.receive())
        self._line.close()
        with self._changed:
            self.is_lost = True
            self._changed.notify_all()
        self.hearer(None)

    def _hear(self, message: ToParent) -> None:
        match message:
            case Answer(number, answer):
                with self._changed:
                    self._answers[number] = answer
                    self._changed.notify_all()
            case Signalled(number) if number in SIGNALS:
                if not interrupts.has_come():  # one Ctrl-C reaches every task, and each of them says so
                    os.kill(os.getpid(), number)
            case _:
                self.hearer(message)


def _unheard(_: ToParent | None) -> None:
    """Before a world is there, a task says nothing of ranks."""


class Gathering:
    """The tasks of a launch around this one, which is the first."""

    def __init__(self, launch: Launch, command: str) -> None:
        self.launch, self._command = launch, command
        self._name, self._machine = host_id(os.environ), machine_id()
        self._tasks: dict[int, Task] = {}
        self._changed = threading.Condition()
        self._listening: list[threading.Thread] = []
        self._is_closed = False
        self._proving = threading.Semaphore(UNPROVED)
        self._door = lines.listen(launch.address, launch.port)
        threading.Thread(target=self._admit_all, name="door for tasks", daemon=True).start()

    def others(self) -> tuple[list[Task], int]:
        """The task of each other host that starts its ranks, once all tasks have come, and how many ranks each host
        has. Raises `MachineError` where a task does not come, `UsageError` where one has another command, or
        where hosts have unequal numbers, or are others than the launch says."""
        self._await(COMING)
        for rank, task in sorted(self._tasks.items()):
            if task.command != self._command:
                raise UsageError(
                    f"task {rank} was started as {task.command!r}, and task 0 as {self._command!r}: a world over hosts "
                    f"needs one command, and {'='.join(OPT_OUT)} runs each task alone"
                )
        if missing := [rank for rank in range(1, self.launch.tasks) if rank not in self._tasks]:
            raise MachineError(
                f"task {missing[0]} of {self.launch.tasks} has not come to port {self.launch.port} "
                f"within {COMING:.0f} s: {self.launch.by} has to start the same command on every host, "
                f"and {'='.join(OPT_OUT)} runs a task alone"
            )
        hosts: dict[tuple[str, str], list[Task | None]] = {(self._name, self._machine): [None]}
        for _, task in sorted(self._tasks.items()):
            hosts.setdefault((task.name, task.machine), []).append(task)
        if len({len(tasks) for tasks in hosts.values()}) > 1:
            named = ", ".join(f"{name} has {len(tasks)}" for (name, _), tasks in hosts.items())
            raise UsageError(f"every host needs the same number of tasks: {named}")
        if len(hosts) > 1 and not self.launch.token:
            named = ", ".join(name for name, _ in hosts)
            raise UsageError(f"{self.launch.by} says that all tasks are on one host, and they name several: {named}")
        first = [tasks[0] for tasks in hosts.values()]
        return [task for task in first if task is not None], len(hosts[self._name, self._machine])

    def where(self, others: Sequence[Task], share: int) -> str:
        """The hosts and their ranks, in words."""
        names = (self._name, *(task.name for task in others))
        return ", ".join(
            f"{name} (ranks {at * share} to {(at + 1) * share - 1})" if share > 1 else f"{name} (rank {at})"
            for at, name in enumerate(names)
        )

    def dismiss(self, status: int) -> None:
        """Have every task end with this status, also one that is still to come, and wait until they have heard."""
        self._await(LATE)
        self._is_closed = True
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # so that whoever waits at it wakes
        self._door.close()
        with self._changed:
            tasks = [*self._tasks.values()]
        for task in tasks:
            task.send(Dismiss(status))
        for listening in self._listening:
            listening.join(LEAVING)

    def _await(self, seconds: float) -> None:
        """Wait until all tasks have come, for so many seconds at most, or until an interruption."""
        end = time.monotonic() + seconds
        with self._changed:
            while len(self._tasks) < self.launch.tasks - 1 and time.monotonic() < end and not interrupts.has_come():
                self._changed.wait(PAUSE)

    def _admit_all(self) -> None:
        while not self._is_closed:
            self._proving.acquire()
            try:
                end, _ = self._door.accept()
            except OSError:  # it is closed; or who came has gone, or this process has no descriptor left
                self._proving.release()
                time.sleep(PAUSE)
                continue
            threading.Thread(target=self._admit, args=[end], name="line of a task", daemon=True).start()

    def _admit(self, end: socket.socket) -> None:
        try:
            if not lines.admit(end, self.launch.secret):
                return
        finally:
            self._proving.release()
        line = lines.Line(end, _decoder)
        with suppress(EOFError):
            hello = line.receive()
            if isinstance(hello, Hello) and self._greet(task := Task(hello, line)):
                task.listen()
        line.close()

    def _greet(self, task: Task) -> bool:
        """Take in a task that is awaited. Returns whether it is one."""
        with self._changed:
            if not 0 < task.rank < self.launch.tasks or task.rank in self._tasks:
                return False
            self._tasks[task.rank] = task
            self._listening.append(threading.current_thread())
            self._changed.notify_all()
            return True


class Gathered(NamedTuple):
    """What has come together: so many tasks, one a rank, on so many hosts."""

    tasks: int
    hosts: int
    where: str
    """The hosts and their ranks, in words."""
    over: Over | None
    """What a world needs that is over several hosts."""

    def sized(self, world: int | None, nodes: int | None) -> tuple[int, int | None]:
        """The ranks of the world, and the nodes of its layouts, which are the hosts. Raises `UsageError` where others
        were asked for."""
        if world not in (None, self.tasks):
            raise UsageError(f"--world {world} does not go with {self.tasks} tasks, which are a rank each")
        if self.hosts == 1:
            return self.tasks, nodes
        if nodes not in (None, self.hosts):
            raise UsageError(f"--nodes {nodes} does not go with {self.hosts} hosts, which are a node each")
        return self.tasks, self.hosts

    def holding(self, world: int) -> int:
        """The ranks of a world for draws of so many. Raises `UsageError` where those are too many."""
        if world > self.tasks:
            raise UsageError(
                f"the scenario has {world} ranks, and {self.tasks} tasks were started, which are a rank each"
            )
        return self.tasks


_gathering: Gathering | None = None
"""The tasks around this process, where it is the first of several."""


def lead(command: Callable[[], object], called: str) -> object:
    """Run a command as the parent of all tasks, or alone. Where this process is another task, serve the parent instead.
    `called` is how the command was started, the same in all tasks. Returns the status."""
    global _gathering  # noqa: PLW0603  (a process is one task of one launch)
    launch = launched(os.environ)
    if launch is not None and launch.rank:
        return follow(launch, called)
    if launch is not None:
        _gathering = Gathering(launch, called)
    return command()


def gathered() -> Gathered | None:
    """All tasks, once they have come; None where this process is alone. Raises as `Gathering.others`."""
    if _gathering is None:
        return None
    others, share = _gathering.others()
    where = _gathering.where(others, share)
    over = Over(others, share, where) if others else None
    return Gathered(_gathering.launch.tasks, 1 + len(others), where, over)


def dismiss(status: int) -> None:
    """Have every other task end with this status. The last thing that a command does: torchrun ends the tasks of a host
    once one of them has failed."""
    if _gathering is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        with interrupts.held():
            _gathering.dismiss(status)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
