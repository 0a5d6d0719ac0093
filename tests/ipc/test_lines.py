"""A line carries messages between two ends that know one token, and nothing else."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec
import pytest

from harness.errors import MachineError, UsageError
from harness.ipc import lines
from harness.ipc.host_messages import Dismiss, Hello, Signalled, ToParent, ToTask
from tests.tools.tasks import free_port

TOKEN = b"a secret of tests"
_to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)
_to_task: msgspec.msgpack.Decoder[ToTask] = msgspec.msgpack.Decoder(ToTask)


class Door:
    """A parent that lets one end in."""

    def __init__(self) -> None:
        self.port = free_port()
        self.door = lines.listen("127.0.0.1", self.port)
        self.admitted: list[socket.socket | None] = []
        self._thread = threading.Thread(target=self._admit)
        self._thread.start()

    def _admit(self) -> None:
        end, _ = self.door.accept()
        self.admitted.append(end if lines.admit(end, TOKEN) else None)

    def end(self) -> socket.socket | None:
        self._thread.join(30)
        return self.admitted[0]


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.door.close()


def line_through(door: Door) -> tuple[lines.Line[ToParent], lines.Line[ToTask]]:
    task = lines.Line(lines.reach("127.0.0.1", door.port, TOKEN, 10), _to_task)
    end = door.end()
    assert end is not None
    return lines.Line(end, _to_parent), task


def test_messages_go_both_ways_in_order(door: Door) -> None:
    parent, task = line_through(door)
    hello = Hello(1, "beta", "m", "symm fuzz")
    assert task.send(hello)
    assert task.send(Signalled(15))
    assert parent.send(Dismiss(3))
    assert [parent.receive(), parent.receive(), task.receive()] == [
        Hello(1, "beta", "m", "symm fuzz"),
        Signalled(15),
        Dismiss(3),
    ]


def test_a_default_timeout_of_sockets_turns_no_end_away_and_ends_no_line() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        opened = Door()
        parent, task = line_through(opened)
        assert (os.get_blocking(parent.connection.fileno()), os.get_blocking(task.connection.fileno())) == (True, True)
        opened.door.close()
    finally:
        socket.setdefaulttimeout(before)


def test_an_end_with_another_token_is_turned_away_on_both_sides(door: Door) -> None:
    with pytest.raises(UsageError, match="another SYMM_TOKEN"):
        lines.reach("127.0.0.1", door.port, b"another secret", 10)
    assert door.end() is None


def test_a_task_proves_nothing_to_a_parent_that_has_not() -> None:
    port, heard = free_port(), []
    with lines.listen("127.0.0.1", port) as door:

        def play() -> None:
            end, _ = door.accept()
            with Connection(end.detach()) as connection, suppress(EOFError, OSError):
                for said in (b"#CHALLENGE#{sha256}" + bytes(40), bytes(64)):
                    connection.send_bytes(said)
                while True:
                    heard.append(connection.recv_bytes())

        stranger = threading.Thread(target=play)
        stranger.start()
        with pytest.raises(UsageError, match="another SYMM_TOKEN"):
            lines.reach("127.0.0.1", port, TOKEN, 10)
        stranger.join(30)
    assert [len(each) for each in heard] in ([], [lines.NONCE])


def test_a_parents_proof_is_none_of_a_task(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port)) as end, Connection(os.dup(end.fileno())) as connection:
        connection.send_bytes(bytes(lines.NONCE))
        connection.send_bytes(connection.recv_bytes()[lines.NONCE :])
        assert door.end() is None


@pytest.mark.parametrize("other", [0, 1])
def test_on_one_host_only_ends_of_the_same_user_meet(other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address, admitted = f"@symm-test-{os.getpid()}-{other}", []
    monkeypatch.setattr(lines, "_user", lambda end: os.geteuid() + other)
    with lines.listen(address, 0) as door:

        def admit() -> None:
            admitted.append(lines.admit(door.accept()[0], b"no secret"))

        parent = threading.Thread(target=admit)
        parent.start()
        if other:
            with pytest.raises(UsageError, match="another launch or user"):
                lines.reach(address, 0, b"no secret", 10)
        else:
            lines.reach(address, 0, b"no secret", 10).close()
        parent.join(30)
    assert admitted == [not other]


def test_the_kernel_says_whose_an_end_is() -> None:
    ends = socket.socketpair()
    assert [lines._user(end) for end in ends] == [os.geteuid()] * 2
    for end in ends:
        end.close()


def test_an_end_that_says_nothing_is_turned_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PROVING", 1.0)
    with socket.create_connection(("127.0.0.1", door.port)):
        assert door.end() is None


def test_an_end_that_says_a_byte_at_a_time_is_turned_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PROVING", 1.0)
    with socket.create_connection(("127.0.0.1", door.port)) as end:
        began = time.monotonic()
        with suppress(OSError):
            for byte in struct.pack("!i", 20) + bytes(20):
                end.sendall(bytes([byte]))
                time.sleep(0.4)
        assert door.end() is None
        assert time.monotonic() - began < 5


def test_a_host_without_ipv6_has_a_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with lines.listen("gpu01", free_port()) as door:
        assert door.family == socket.AF_INET


def test_where_nothing_listens_the_place_and_the_time_are_named() -> None:
    with pytest.raises(MachineError, match=r"no parent at 127\.0\.0\.1, port \d+, within 0 s: "):
        lines.reach("127.0.0.1", free_port(), TOKEN, 0)


def test_a_port_that_is_taken_is_named(door: Door) -> None:
    with pytest.raises(MachineError, match=f"cannot listen at port {door.port}"):
        lines.listen("127.0.0.1", door.port)
    lines.reach("127.0.0.1", door.port, TOKEN, 10).close()


@pytest.mark.parametrize(
    "data", [pickle.dumps(Hello(1, "beta", "m", "symm fuzz")), b"", b"\xc1", msgspec.msgpack.encode(Dismiss(0))]
)
def test_what_is_no_message_of_the_other_side_ends_the_line(door: Door, data: bytes) -> None:
    parent, task = line_through(door)
    task.connection.send_bytes(data)
    with pytest.raises(EOFError):
        parent.receive()
    with pytest.raises(EOFError):
        task.receive()


def test_a_line_that_is_closed_takes_no_message(door: Door) -> None:
    parent, task = line_through(door)
    parent.close()
    with pytest.raises(EOFError):
        task.receive()
    assert not parent.send(Dismiss(0))
