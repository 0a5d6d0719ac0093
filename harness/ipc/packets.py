"""Messages to and from a zygote: a packet each, with the descriptors that belong to it.

Invariant: a packet comes whole or not at all, descriptors included, so whoever is interrupted leaves no half message
(unix(7): SOCK_SEQPACKET keeps the bounds of a message, SCM_RIGHTS travels with its first byte).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeVar

import msgspec

LARGEST = 1 << 16
MOST_DESCRIPTORS = 4

Message = TypeVar("Message")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a line."""
    return waiting(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


def waiting(ends: tuple[socket.socket, socket.socket]) -> tuple[socket.socket, socket.socket]:
    """The same ends, of which each call waits as long as it takes, whatever `socket.setdefaulttimeout` was given."""
    for end in ends:
        end.settimeout(None)  # else a process that has the other end finds it non-blocking
    return ends


def send(end: socket.socket, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises `OSError` where the other end is closed."""
    data = msgspec.msgpack.encode(message)
    if descriptors:
        socket.send_fds(end, [data], list(descriptors))
    else:
        end.send(data)


def receive(end: socket.socket, decoder: msgspec.msgpack.Decoder[Message]) -> tuple[Message, list[int]]:
    """The next message and its descriptors, which are the caller's to close. Raises `EOFError` after the last one."""
    try:
        data, descriptors, _, _ = socket.recv_fds(end, LARGEST, MOST_DESCRIPTORS)
    except ConnectionError as error:  # Linux reports a close with unread packets as ECONNRESET and not as an end
        raise EOFError from error
    if not data:
        raise EOFError
    return decoder.decode(data), descriptors
