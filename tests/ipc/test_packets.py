"""Packets: whole or not at all, with their descriptors, and an end once the other side has closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from harness.ipc import packets
from harness.ipc.messages import Fork, Forked, Kill, RankConfig

REQUESTS = msgspec.msgpack.Decoder(Fork | Kill)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = packets.pair()
    with one, other:
        yield one, other


def test_packets_are_received_one_by_one(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    for pids in ((1,), (2, 3)):
        packets.send(one, Kill(pids))
    assert [packets.receive(other, REQUESTS)[0] for _ in range(2)] == [Kill((1,)), Kill((2, 3))]


def test_descriptors_come_with_their_packet(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    reading, writing = os.pipe()
    packets.send(one, Fork(RankConfig(0, 1, "sim", None)), (writing,))
    _, (received,) = packets.receive(other, REQUESTS)
    os.write(received, b"here")
    assert os.read(reading, 4) == b"here"
    for fd in (reading, writing, received):
        os.close(fd)


def test_after_the_last_packet_of_a_closed_line_comes_its_end(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    packets.send(one, Kill((1,)))
    one.close()
    assert packets.receive(other, REQUESTS)[0] == Kill((1,))
    with pytest.raises(EOFError):
        packets.receive(other, REQUESTS)


def test_a_close_with_unread_packets_is_an_end_too(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    packets.send(one, Kill((1,)))
    other.close()
    with pytest.raises(EOFError):
        packets.receive(one, REQUESTS)


def test_a_packet_to_a_closed_line_is_refused(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    other.close()
    with pytest.raises(OSError, match="Broken pipe"):
        packets.send(one, Kill((1,)))


def test_a_packet_of_another_class_is_refused(line: tuple[socket.socket, socket.socket]) -> None:
    one, other = line
    packets.send(one, Forked(7))
    with pytest.raises(msgspec.ValidationError):
        packets.receive(other, REQUESTS)
