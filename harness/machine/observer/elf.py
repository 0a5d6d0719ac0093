"""Names that a shared library offers, read from its file. The library is not loaded, so no device is touched."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from harness.errors import MachineError

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
MAGIC = b"\x7fELF\x02\x01"
"""A file for 64 bits, little end first."""
DYNAMIC_SYMBOLS = 11


def defined(path: Path) -> frozenset[str]:
    """Names that the library at `path` defines for others. Raises `MachineError` if it is none."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:6] != MAGIC:
                raise MachineError(f"{path} is no shared library for 64 bits")
            return frozenset(_names(content))
    except (OSError, ValueError, struct.error) as error:
        raise MachineError(f"{path} cannot be read as a shared library: {error}") from error


def _names(content: mmap.mmap) -> Iterator[str]:
    sections = list(_sections(content))
    for kind, offset, size, link in sections:
        if kind == DYNAMIC_SYMBOLS:
            names = sections[link][1]
            for name, _, _, section, _, _ in SYMBOL.iter_unpack(content[offset : offset + size]):
                if section:
                    yield _text(content, names + name)


def _sections(content: mmap.mmap) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset, size and linked section of every section."""
    header = HEADER.unpack_from(content)
    begin, each, count = header[6], header[11], header[12]
    for index in range(count):
        _, kind, _, _, offset, size, link, _, _, _ = SECTION.unpack_from(content, begin + index * each)
        yield kind, offset, size, link


def _text(content: mmap.mmap, offset: int) -> str:
    return content[offset : content.find(b"\0", offset)].decode("ascii", "replace")
