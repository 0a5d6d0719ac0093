"""pdb on a rank, after the system under test has raised there: its terminal is the parent's, over their connection.

Invariant: the rank answers its request when the session ends, however that ends.
"""

from __future__ import annotations

import io
import pdb
from collections.abc import Collection
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType, TracebackType
from typing import Any

from harness.ipc.messages import Asks, Line, Said
from harness.system.frames import innermost


class Terminal(io.TextIOBase):
    """What a debugger reads and writes, a message each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, text: str) -> int:
        self._connection.send(Said(text.encode(errors="backslashreplace").decode()))
        return len(text)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """The next line, empty where the parent has no more."""
        self._connection.send(Asks())
        line = self._connection.recv()
        assert isinstance(line, Line)
        return line.text


class _Debugger(pdb.Pdb):
    """Begins at a frame of its own choice, counted from the outermost."""

    def __init__(self, begin: int, terminal: Terminal) -> None:
        super().__init__(stdin=terminal, stdout=terminal, nosigint=True, readrc=False)  # type: ignore[arg-type]
        self._begin = begin

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        stack, _ = super().get_stack(f, t)
        return stack, self._begin


def debug(error: BaseException, packages: Collection[str], what: str, connection: Connection) -> None:
    """Let the user look at where the system raised, until they leave. Local; peers of this rank go on waiting."""
    traceback, index = innermost(error, packages)
    terminal = Terminal(connection)
    terminal.write(f"{what}\n")
    debugger: Any = _Debugger(index, terminal)
    debugger.reset()
    with suppress(BaseException):  # such as pdb's own for `restart`; the draw ends as it would have without pdb
        debugger.interaction(None, traceback)
