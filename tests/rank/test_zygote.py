"""The zygote's own loop: it forks and kills for the world that asks, and ends a world whose line has closed.

Ranks are played by sleeping processes; the loop runs in a child, as it forks.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from harness.ipc import packets
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Fork, Forked, Kill, Killed, RankConfig, Serve, Serving
from tests.tools.processes import left, marked, new_mark

SERVE = """
import os, socket, sys, time
from harness.rank import zygote

def main(*_):  # a rank that does nothing, and what it has started: a child, and a daemon
    if not os.fork():
        os.setsid()
        os.fork()
    time.sleep(600)

zygote.main = main
zygote.children.adopt_orphans()
zygote.Zygote(socket.socket(fileno=int(sys.argv[1]))).serve()
"""
ANSWERS: Any = msgspec.msgpack.Decoder(Serving | Forked | Killed)


class Door:
    """A zygote behind a door, and the lines through it."""

    def __init__(self) -> None:
        self.mark = new_mark()
        self.door, inside = packets.pair()
        with inside:
            command = [sys.executable, "-c", SERVE, str(inside.fileno())]
            environment = {**os.environ, **self.mark}
            self.process = subprocess.Popen(command, pass_fds=[inside.fileno()], env=environment)
        self.memory = SharedMemory.create(1)

    def world(self) -> socket.socket:
        line, inside = packets.pair()
        with inside:
            packets.send(self.door, Serve(), (inside.fileno(), self.memory.fd))
        assert packets.receive(line, ANSWERS)[0] == Serving()
        return line

    def close(self) -> None:
        self.door.close()
        self.process.wait()
        self.memory.close()


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()


def fork(line: socket.socket) -> int:
    with open(os.devnull, "r+b") as nothing:
        packets.send(line, Fork(RankConfig(0, 1, "sim", None)), [nothing.fileno()] * 4)
    pid: int = packets.receive(line, ANSWERS)[0].pid
    return pid


def kill(line: socket.socket, *pids: int) -> dict[int, int]:
    packets.send(line, Kill(pids))
    statuses: dict[int, int] = packets.receive(line, ANSWERS)[0].statuses
    return statuses


def test_a_killed_rank_is_reaped_with_its_status(door: Door) -> None:
    line = door.world()
    pid = fork(line)
    assert kill(line, pid) == {pid: signal.SIGKILL}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_rank_that_was_dead_keeps_the_status_it_died_with(door: Door) -> None:
    line = door.world()
    pid = fork(line)
    os.kill(pid, signal.SIGTERM)
    assert kill(line, pid) == {pid: signal.SIGTERM}


def test_what_a_rank_has_started_ends_with_it(door: Door) -> None:
    line = door.world()
    pid = fork(line)
    while len(marked(door.mark)) < 4:  # the zygote, the rank, its child and its daemon
        time.sleep(0.02)
    kill(line, pid)
    assert marked(door.mark) == [door.process.pid]


def test_no_world_kills_the_ranks_of_another(door: Door) -> None:
    mine, other = door.world(), door.world()
    pid = fork(other)
    assert (kill(mine, pid), kill(other, pid)) == ({}, {pid: signal.SIGKILL})


def test_a_rank_is_killed_once(door: Door) -> None:
    line = door.world()
    pid = fork(line)
    assert (kill(line, pid), kill(line, pid)) == ({pid: signal.SIGKILL}, {})


def test_a_line_that_closes_ends_its_ranks_and_no_others(door: Door) -> None:
    closing, staying = door.world(), door.world()
    gone, kept = fork(closing), fork(staying)
    closing.shutdown(socket.SHUT_WR)
    assert closing.recv(1) == b""  # the zygote closes its end once the ranks are gone
    with pytest.raises(ProcessLookupError):
        os.kill(gone, 0)
    assert kill(staying, kept) == {kept: signal.SIGKILL}


def test_a_rank_holds_no_line_of_another_world(door: Door) -> None:
    """Or a line would not be seen to close before ranks of other worlds are gone."""
    closing, staying = door.world(), door.world()
    fork(staying)
    closing.shutdown(socket.SHUT_WR)
    assert closing.recv(1) == b""


def test_a_door_that_closes_ends_every_rank(door: Door) -> None:
    for _ in range(2):
        fork(door.world())
    door.door.close()
    door.process.wait()
    assert left(door.mark, seconds=60) == []


def test_a_line_that_closes_before_the_answer_disturbs_no_other(door: Door) -> None:
    staying = door.world()
    line, inside = packets.pair()
    with inside:
        packets.send(door.door, Serve(), (inside.fileno(), door.memory.fd))
    line.close()
    assert kill(staying) == {}
