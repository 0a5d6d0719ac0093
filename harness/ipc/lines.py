"""Lines over TCP, or on one host over sockets of its kernel, between the parent and the tasks of a world over hosts.

Invariant: no message is read from an end that has not proved that it knows the secret, nor is one sent to it. The
parent proves it first, and no proof is one of the other side, or of another line.
Only bytes travel, a message each, in order. A line whose other end is gone, or does not answer, ends.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import msgspec

from harness.errors import MachineError, UsageError

SILENT = 15.0
"""Seconds after which an end that acknowledges nothing is taken for lost."""
PROVING = 10.0
"""Seconds for an end to prove that it knows the token, in all."""
PAUSE = 0.2
"""Seconds between two attempts to reach the parent."""
LOCAL = "@"
"""How an address begins that is one of this host's kernel; there an end has to be of the same user."""
LARGEST = 1 << 26
NONCE = PROOF = 32
"""Bytes of what each end draws for one proof, and of an HMAC-SHA256."""

Heard = TypeVar("Heard")


class Line(Generic[Heard]):
    """One end, which hears messages of these classes."""

    def __init__(self, end: socket.socket, decoder: msgspec.msgpack.Decoder[Heard]) -> None:
        self._end, self._decoder, self._lock = end, decoder, threading.Lock()
        self.connection = _connection(end)
        """To wait for."""

    def send(self, message: msgspec.Struct) -> bool:
        """Send a message, by any thread. Returns whether the line is open."""
        data = msgspec.msgpack.encode(message)
        with self._lock, suppress(OSError):
            self.connection.send_bytes(data)
            return True
        return False

    def receive(self) -> Heard:
        """The next message, by one thread. Raises `EOFError` once the line has ended, which it has too for whatever is
        no message."""
        try:
            return self._decoder.decode(self.connection.recv_bytes(LARGEST))
        except (OSError, msgspec.MsgspecError) as error:
            self.close()
            raise EOFError from error

    def close(self) -> None:
        """End the line; whoever waits at either end hears of it. May be called twice, by any thread."""
        _shut(self._end)


def listen(address: str, port: int) -> socket.socket:
    """A door for tasks: at a loopback address alone where that is the address, else at all of this host. Raises
    `MachineError` where the port is taken."""
    try:
        if address.startswith(LOCAL):
            door = socket.socket(socket.AF_UNIX)
            door.bind(_abstract(address))
            door.listen()
            return door
        if _is_loopback(address):
            return socket.create_server((address, port))
        if not socket.has_dualstack_ipv6():
            return socket.create_server(("", port))
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        raise MachineError(f"cannot listen at port {port} for tasks of other hosts: {error.strerror}") from error


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")


def admit(end: socket.socket, token: bytes) -> bool:
    """Whether who came through the door knows the token; it is shown that this side does, too."""
    try:
        with _proving(end) as connection:
            theirs, mine = _heard(connection, NONCE), secrets.token_bytes(NONCE)
            connection.send_bytes(mine + _proof(token, b"parent", theirs + mine))
            _check(_heard(connection, PROOF), _proof(token, b"task", theirs + mine))
    except (OSError, EOFError, AuthenticationError):
        end.close()
        return False
    return True


def reach(address: str, port: int, token: bytes, seconds: float) -> socket.socket:
    """The way to the parent, which has proved that it knows the token. Raises `MachineError` where there is none after
    so many seconds, `UsageError` where it has another token."""
    end = time.monotonic() + seconds
    while True:
        try:
            reached = _connected(address, port)
            break
        except OSError as error:
            if time.monotonic() > end:
                why = error.strerror or error
                raise MachineError(f"no parent at {address}, port {port}, within {seconds:.0f} s: {why}") from error
            time.sleep(PAUSE)
    try:
        with _proving(reached) as connection:
            mine = secrets.token_bytes(NONCE)
            connection.send_bytes(mine)
            said = _heard(connection, NONCE + PROOF)
            both = mine + said[:NONCE]
            _check(said[NONCE:], _proof(token, b"parent", both))
            connection.send_bytes(_proof(token, b"task", both))
    except (OSError, EOFError, AuthenticationError) as error:
        raise UsageError(
            f"the task at {address}, port {port}, has another SYMM_TOKEN, is of another launch or user, or none of symm"
        ) from error
    return reached


def _proof(token: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.digest(token, role + nonces, "sha256")


def _heard(connection: Connection, size: int) -> bytes:
    data = connection.recv_bytes(size)
    if len(data) != size:
        raise AuthenticationError("a piece of a proof has another length")
    return data


def _check(proof: bytes, right: bytes) -> None:
    if not hmac.compare_digest(proof, right):
        raise AuthenticationError("another token")


def _abstract(address: str) -> str:
    return address.replace(LOCAL, "\0", 1)


def _connected(address: str, port: int) -> socket.socket:
    if not address.startswith(LOCAL):
        return socket.create_connection((address, port), timeout=PROVING)
    reached = socket.socket(socket.AF_UNIX)
    try:
        reached.connect(_abstract(address))
    except OSError:
        reached.close()
        raise
    return reached


def _user(end: socket.socket) -> int:
    """The user whose process is at the other end, as the kernel says."""
    credentials = struct.Struct("3i")  # pid, uid, gid
    return int(credentials.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))[1])


def _prepare(end: socket.socket) -> None:
    """Have an end wait as long as it takes, whatever `socket.setdefaulttimeout` was given, and be lost where the other
    one is silent. Raises `AuthenticationError` for one of another user."""
    end.settimeout(None)
    if end.family == socket.AF_UNIX:
        if _user(end) != os.geteuid():
            raise AuthenticationError("another user")
        return
    for option in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENT * 1000)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ):
        end.setsockopt(*option)


@contextmanager
def _proving(end: socket.socket) -> Iterator[Connection]:
    """The connection of an end that is to prove that it knows the token, in a bounded time. From here on it is lost
    where the other end is silent."""
    _prepare(end)
    over = threading.Timer(PROVING, _shut, [end])
    over.daemon = True
    over.start()
    try:
        with _connection(end) as connection:
            yield connection
    finally:
        over.cancel()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _connection(end: socket.socket) -> Connection:
    return Connection(os.dup(end.fileno()))
