"""Messages of a `multiprocessing` connection, read as they come: a peer that stops inside one holds up nobody.

Invariant: no read waits, and none takes a byte of the next message, so whoever waits for the connection hears of that.
The frame is the one that `Connection.send` writes: the size in 4 bytes, or -1 and the size in 8 (CPython,
`multiprocessing/connection.py`, `_send_bytes`).
"""

from __future__ import annotations

import os
import struct
from multiprocessing.connection import Connection

SIZE, LARGE = struct.Struct("!i"), struct.Struct("!Q")
PIECE = 1 << 20
"""Most bytes of one read: a size may be of a plug-in's making, and no memory is set aside for it."""


class Inbox:
    """What has come of the next message of one connection, which nothing else reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._came, self._wanted = bytearray(), SIZE.size
        self._frame: struct.Struct | None = SIZE

    def take(self) -> bytes | None:
        """The next message, pickled; None where only a part of it has come. Raises `EOFError` or `ConnectionError` if
        the other end is closed."""
        while len(self._came) < self._wanted:
            if not (piece := self._read(min(PIECE, self._wanted - len(self._came)))):
                return None
            self._came += piece
            if len(self._came) == self._wanted and self._frame is not None:
                self._begin(self._frame)
        message, self._came, self._wanted, self._frame = bytes(self._came), bytearray(), SIZE.size, SIZE
        return message

    def _begin(self, frame: struct.Struct) -> None:
        """The size is known: go on with what it is the size of."""
        (size,) = frame.unpack(self._came)
        self._came.clear()
        self._frame = LARGE if frame is SIZE and size < 0 else None
        self._wanted = LARGE.size if self._frame else size

    def _read(self, most: int) -> bytes:
        """What is there, up to so many bytes; nothing where nothing is there yet."""
        if not self._connection.poll():
            return b""
        piece = os.read(self._connection.fileno(), most)  # of what is there: it does not wait for more
        if not piece:
            raise EOFError
        return piece
