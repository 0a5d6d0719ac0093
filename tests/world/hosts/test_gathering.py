"""The parent among tasks: no stranger at its door and no signal keeps it from its tasks."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from typing import Any

import pytest

from harness import interrupts
from harness.ipc import lines
from harness.ipc.host_messages import Hello, Signalled
from harness.world.hosts import gathering
from harness.world.hosts.gathering import Gathering, Task
from harness.world.hosts.launch import Launch
from tests.tools.tasks import TOKEN, free_port

LOOPBACK = "127.0.0.1"


def test_a_door_that_has_no_descriptor_left_opens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(0, 2, LOOPBACK, free_port(), TOKEN, "torchrun")
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many"), OSError(errno.ECONNABORTED, "gone")]

    def failing(door: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(door)

    monkeypatch.setattr(socket.socket, "accept", failing)
    parent = Gathering(launch, "symm fuzz")
    line: Any = lines.Line(lines.reach(LOOPBACK, launch.port, launch.secret, 10), gathering._decoder)  # type: ignore[arg-type]
    line.send(Hello(1, parent._name, parent._machine, "symm fuzz"))
    assert parent.others() == ([], 2)
    line.close()
    parent.dismiss(0)


def test_one_interruption_of_all_tasks_is_one_of_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    line: Any = None
    task = Task(Hello(1, "beta", "m", "symm fuzz"), line)
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    task._hear(Signalled(signal.SIGINT))
    monkeypatch.setattr(interrupts, "_signal", signal.SIGINT)
    task._hear(Signalled(signal.SIGINT))
    assert sent == [signal.SIGINT]


@pytest.mark.parametrize("number", gathering.SIGNALS)
def test_a_signal_cuts_no_dismissal_short(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    heard: list[int] = []

    class Played:
        def dismiss(self, status: int) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            heard.append(status)

    monkeypatch.setattr(gathering, "_gathering", Played())
    monkeypatch.setattr(interrupts, "_signal", 0)
    before = {each: signal.signal(each, interrupts._press) for each in gathering.SIGNALS}
    try:
        gathering.dismiss(3)
        os.kill(os.getpid(), number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert heard == [3]
