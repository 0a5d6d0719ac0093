"""The JSON values in a text: one a line, several lines for one, or between the lines of a log.

Invariant: each value knows the file and line that it begins on. Nothing is guessed of a value that does not parse.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

from harness.errors import UsageError
from harness.scenario.topology import no_repeats

_DECODER = json.JSONDecoder(object_pairs_hook=no_repeats)
_BLANK = re.compile(r"\s*")
_PREFIX = re.compile(r"\[(rank|default)(\d{1,9})\]:[ \t]*")
"""What launchers put before a line: `rank` with the rank, `default` with the place on the node."""
_PICKLE = b"\x80"


class DumpError(UsageError):
    """A dump that shows no groups, or damaged ones; the message names the file and line."""


class Document(NamedTuple):
    """A JSON value, where it begins, and the rank that a launcher says it is from."""

    where: str
    value: Any
    rank: int | None = None


def documents(name: str, data: bytes) -> tuple[list[Document], int]:
    """The values in a file, and the number of lines that hold other text. Raises `DumpError` for a damaged value."""
    return _Reader(name, _decoded(name, data)).read()


def _decoded(name: str, data: bytes) -> str:
    if data.startswith(_PICKLE):
        raise DumpError(f"dump {name}: it is a pickle, which may run code; write it as JSON")
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise DumpError(f"dump {name}: {error}") from error


class _Reader:
    """One pass over a text."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.at, self.line = 0, 1
        self.found: list[Document] = []
        self.other = 0

    def read(self) -> tuple[list[Document], int]:
        while self._skip_blank():
            prefix = _PREFIX.match(self.text, self.at)
            if prefix:
                self._move(prefix.end())
            if self._opens():
                self._value(int(prefix[2]) if prefix and prefix[1] == "rank" else None)
            else:
                self._other()
        return self.found, self.other

    def _opens(self) -> bool:
        """Whether a value begins here. A line that opens with the rest of one counts, and is refused as damaged."""
        return self.text[self.at : self.at + 1] in tuple('{}[],:"')

    def _skip_blank(self) -> bool:
        blank = _BLANK.match(self.text, self.at)
        self._move(blank.end() if blank else self.at)
        return self.at < len(self.text)

    def _value(self, rank: int | None) -> None:
        where = f"{self.name} line {self.line}"
        try:
            value, end = _DECODER.raw_decode(self.text, self.at)
            msgspec.json.encode(value)  # half a character can be neither shown nor written
        except json.JSONDecodeError as error:
            raise DumpError(f"dump {where}: {error.msg}, {error.pos - self.at} characters into it") from error
        except (ValueError, RecursionError, UsageError) as error:
            raise DumpError(f"dump {where}: {error}") from error
        self.found.append(Document(where, value, rank))
        self._move(end)

    def _other(self) -> None:
        end = self.text.find("\n", self.at)
        self._move(len(self.text) if end < 0 else end)
        self.other += 1

    def _move(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end
