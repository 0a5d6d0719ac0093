"""Reads the recordings that the observer writes, one file a process.

Invariant: a recording of a process that still runs, or that was killed at any moment, is read like any other. A file
that is none, or that is damaged, is one error that names it.
"""

from __future__ import annotations

import os
import shlex
import struct
from array import array
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from harness.errors import MachineError
from harness.machine.observer.facts import (
    Allocated,
    AllocationFailed,
    Call,
    CaptureBegan,
    CaptureEnded,
    CommCreated,
    CommGone,
    Deregistered,
    Fact,
    Freed,
    Graph,
    GroupEnded,
    GroupStarted,
    Held,
    History,
    LocallyRegistered,
    Registered,
    RegisterEntered,
    RegisterFailed,
    Unobserved,
)
from harness.machine.observer.layout import FACT, Fields, meant

__all__ = [
    "Allocated",
    "AllocationFailed",
    "Call",
    "CaptureBegan",
    "CaptureEnded",
    "CommCreated",
    "CommGone",
    "Deregistered",
    "Fact",
    "Freed",
    "Graph",
    "GroupEnded",
    "GroupStarted",
    "Held",
    "History",
    "LocallyRegistered",
    "Process",
    "Recording",
    "RegisterEntered",
    "RegisterFailed",
    "Registered",
    "Unobserved",
    "read",
    "read_all",
]

SUFFIX = ".symm"
MAGIC = b"SYMMOBS\0"
LAYOUT = 1
MOST_THREADS = 64
COMM_CREATED = 1
HEADER = struct.Struct(f"<8sIiIIiIIId6I4Q{MOST_THREADS}I")


class Header(msgspec.Struct, frozen=True):
    """`struct header` of `recording.c`."""

    magic: bytes
    layout: int
    nccl: int
    pid: int
    parent: int
    rank: int
    host: int
    real: int
    command: int
    began: float
    facts_at: int
    sequence_at: int
    texts_at: int
    facts: int
    text_bytes: int
    unused: int
    events: int
    ordered: int
    lost_facts: int
    unmatched: int
    in_flight: tuple[int, ...]


def _header(content: bytes) -> Header:
    values = HEADER.unpack_from(content)
    named = dict(zip(Header.__struct_fields__, values[:-MOST_THREADS], strict=False))
    return Header(**named, in_flight=values[-MOST_THREADS:])


class Process(msgspec.Struct, frozen=True):
    """What one process did with NCCL.

    `order` has indexes into `facts`, in the order of the process; a fact in flight that is not yet whole is in none.
    `in_flight` has the facts that were entered and not left when the file was read. `rank` is that of the environment,
    or -1. `began` is in seconds since 1970. `lost_facts` counts occurrences of facts for which there was no room, and
    `lost_events` those facts whose place in the order is lost. `unmatched` counts collectives that NCCL reported and
    that the program made past the observer.
    """

    path: str
    pid: int
    parent: int
    host: str
    rank: int
    command: str
    real: str
    nccl: tuple[int, ...]
    began: float
    facts: tuple[Fact, ...]
    order: tuple[int, ...]
    lost_facts: int
    lost_events: int
    in_flight: tuple[int, ...]
    unmatched: int = 0


class Recording:
    """One file, read in the order in which later parts rest on earlier ones: its process may be writing.

    Raises `MachineError` if it is no recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._read(file)
        except OSError as error:
            raise MachineError(f"the recording {path} cannot be read: {error.strerror}") from error
        except (struct.error, msgspec.ValidationError) as error:
            raise MachineError(f"{path} is no recording of the observer") from error

    def _read(self, file: BinaryIO) -> None:
        first = self._header(file)
        self._events = _part(file, first.sequence_at, 4 * first.ordered)
        self._facts = _part(file, first.facts_at, FACT.size * self._header(file).facts)
        self._texts = _part(file, first.texts_at, self._header(file).text_bytes)
        self.header = first

    def _header(self, file: BinaryIO) -> Header:
        header = _header(_part(file, 0, HEADER.size))
        if header.magic != MAGIC:
            raise MachineError(f"{self.path} is no recording of the observer")
        if header.layout != LAYOUT:
            raise MachineError(f"{self.path} has layout {header.layout}, and this harness reads layout {LAYOUT}")
        return header

    def text(self, number: int) -> str:
        """A text by its number."""
        size = int.from_bytes(self._texts[number : number + 4], "little")
        content = self._texts[number + 4 : number + 4 + size]
        if len(content) < size:
            raise IndexError(number)
        return content.decode("utf-8", "replace")

    def fields(self) -> list[Fields]:
        """The facts of the table, as numbers."""
        return [Fields(*each) for each in FACT.iter_unpack(self._facts)]

    def order(self) -> tuple[int, ...]:
        """Indexes of facts, in the order of the process. Equal ones are one object, since there may be a million."""
        known = list(range(len(self._facts) // FACT.size))
        return tuple(map(known.__getitem__, array("I", self._events)))


def _part(file: BinaryIO, begin: int, size: int) -> bytes:
    """Part of a file. Raises `struct.error` if the file ends before."""
    if file.seek(0, os.SEEK_END) < begin + size:
        raise struct.error(f"{size} bytes at {begin}")
    file.seek(begin)
    return file.read(size)


def read(path: Path) -> Process:
    """The recording at `path`. Raises `MachineError` if it is none, or damaged."""
    return _process(Recording(path), {})


def read_all(folder: Path) -> list[Process]:
    """The recordings in `folder`, by host, start and pid. Raises `MachineError` for a damaged one.

    A file in which nothing is written yet is left out.

    A communicator that grew has one identity on its old ranks and another on its new ones. The old rank that invited
    them knows both, so here all of them have the first.
    """
    recordings = [Recording(path) for path in sorted(folder.glob(f"*{SUFFIX}")) if _has_begun(path)]
    same = {
        each.handle: each.other
        for recording in recordings
        for each in recording.fields()
        if each.kind == COMM_CREATED and each.handle
    }
    processes = [_process(recording, same) for recording in recordings]
    return sorted(processes, key=lambda process: (process.host, process.began, process.pid))


def _has_begun(path: Path) -> bool:
    """Whether there is anything in a file. Its process may have made it a moment ago, or have been killed just then."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)).strip(b"\0") != b""


def _process(recording: Recording, same: dict[int, int]) -> Process:
    header, text = recording.header, cache(recording.text)
    try:
        facts = tuple(meant(each, text, lambda number: same.get(number, number)) for each in recording.fields())
        order = recording.order()
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise MachineError(f"the recording {recording.path} is damaged: {error!r}") from error
    return Process(
        path=str(recording.path),
        pid=header.pid,
        parent=header.parent,
        host=text(header.host),
        rank=header.rank,
        command=shlex.join(text(header.command).rstrip("\0").split("\0")),
        real=text(header.real),
        nccl=(header.nccl // 10000, header.nccl // 100 % 100, header.nccl % 100),
        began=header.began,
        facts=facts,
        order=order,
        lost_facts=header.lost_facts,
        lost_events=header.events - header.ordered,
        in_flight=tuple(number - 1 for number in header.in_flight if 0 < number <= len(facts)),
        unmatched=header.unmatched,
    )
