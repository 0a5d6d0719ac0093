"""What the system under test raised on a rank, as plain data.

Invariant: a raising holds what Python reported, and which frames are of the system under test. It is no judgement.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Part = Literal["pool", "collectives"]
"""A part of the system under test that a user replaces."""


LONGEST = 300
"""Characters of a message in one line."""


class Frame(msgspec.Struct, frozen=True):
    """One frame of a traceback. `source` is its line of source, if that can be read."""

    function: str
    file: str
    line: int
    source: str = ""
    is_own: bool = False
    """Whether it is of the system under test, and not of a library or the harness."""

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})"

    @property
    def short(self) -> str:
        """Without the folders of its file."""
        return f"{self.function} ({self.file.rpartition('/')[2]}:{self.line})"


class Raising(msgspec.Struct, frozen=True):
    """An exception that left a part of the system under test. `frames` are innermost first, and bounded."""

    where: Part
    kind: str
    """The exception's class, such as `ValueError`."""
    message: str
    frames: tuple[Frame, ...] = ()
    traceback: tuple[str, ...] = ()
    """Python's own text of the whole chain of exceptions, a line each."""

    @property
    def text(self) -> str:
        """Kind and first line of the message. A bare assertion has none: then its line of source stands for it."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        if not lines and self.kind == "AssertionError":
            lines = [frame.source for frame in self.own[:1] if frame.source]
        return f"{self.kind}: {_bounded(lines[0])}" if lines else self.kind

    @property
    def own(self) -> tuple[Frame, ...]:
        """The frames of the system under test, innermost first."""
        return tuple(frame for frame in self.frames if frame.is_own)


def _bounded(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
