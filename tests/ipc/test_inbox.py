"""Messages of a connection, read as they come: whole or not at all, and none of the next one."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

import pytest

from harness.ipc.inbox import Inbox

MESSAGE = bytes(range(256)) * 10


@pytest.fixture
def ends() -> Iterator[tuple[Inbox, Connection, Connection]]:
    here, there = Pipe()
    with here, there:
        yield Inbox(here), here, there


Ends = tuple[Inbox, Connection, Connection]


def write(there: Connection, data: bytes) -> None:
    with open(there.fileno(), "wb", closefd=False) as file:
        file.write(data)


def test_a_message_of_a_connection_is_taken_as_it_was_sent(ends: Ends) -> None:
    inbox, _, there = ends
    there.send_bytes(MESSAGE)
    assert inbox.take() == MESSAGE


@pytest.mark.parametrize("frame", [struct.pack("!i", 5), struct.pack("!iQ", -1, 5)], ids=["4-bytes", "8-bytes"])
def test_a_message_that_comes_byte_by_byte_is_taken_once_it_is_whole(ends: Ends, frame: bytes) -> None:
    inbox, _, there = ends
    taken = []
    for byte in frame + b"hello":
        write(there, bytes([byte]))
        taken.append(inbox.take())
    assert taken == [None] * (len(frame) + 4) + [b"hello"]


def test_where_nothing_has_come_nothing_is_waited_for(ends: Ends) -> None:
    assert ends[0].take() is None


def test_the_next_message_is_left_for_whoever_waits(ends: Ends) -> None:
    inbox, here, there = ends
    there.send_bytes(b"one")
    there.send_bytes(b"")
    assert inbox.take() == b"one"
    assert wait([here], 0) == [here]
    assert (inbox.take(), inbox.take()) == (b"", None)


def test_the_end_inside_a_message_is_the_end(ends: Ends) -> None:
    inbox, _, there = ends
    write(there, struct.pack("!i", 5) + b"hel")
    assert inbox.take() is None
    there.close()
    with pytest.raises(EOFError):
        inbox.take()


def test_a_read_leaves_the_connection_open(ends: Ends) -> None:
    inbox, here, there = ends
    there.send_bytes(MESSAGE)
    inbox.take()
    here.send_bytes(MESSAGE)
    assert there.recv_bytes() == MESSAGE


def test_a_default_timeout_of_sockets_changes_neither_reads_nor_the_connection(ends: Ends) -> None:
    inbox, here, there = ends
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    try:
        write(there, b"\0\0")
        assert inbox.take() is None
        assert inbox.take() is None
    finally:
        socket.setdefaulttimeout(before)
    assert os.get_blocking(here.fileno())
