"""A task that serves takes no memory for the parent's that is not, and sends all that a rank wrote before it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from harness.errors import MachineError
from harness.ipc.host_messages import Common, Open, Printed, Wrote
from harness.ipc.memory import SharedMemory
from harness.trace.events import Began, Finished
from harness.world.hosts.launch import machine_id
from harness.world.hosts.task import Facts, ServedHost


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory.of_host(1)
    yield made
    made.close()


@pytest.mark.parametrize("wrong", ["machine", "pid", "descriptor", "inode", "file"])
def test_memory_that_is_not_the_parents_is_not_taken(wrong: str, memory: SharedMemory) -> None:
    with open(__file__) as other:
        inode = os.fstat(other.fileno() if wrong == "file" else memory.fd).st_ino
        right: dict[str, Any] = {"machine": machine_id(), "pid": os.getpid(), "descriptor": memory.fd, "inode": inode}
        changes = {
            "machine": {"machine": "another"},
            "pid": {"pid": 1 << 22},
            "descriptor": {"descriptor": 9999},
            "inode": {"inode": right["inode"] + 1},
            "file": {"descriptor": other.fileno()},
        }
        opening = Open(1, 1, "sim", (), Common(**{**right, **changes[wrong]}))
        line: Any = None
        with pytest.raises(MachineError, match="share memory, and this host is not the parent's machine"):
            ServedHost(opening, line)


class PlayedRank:
    """A rank that prints what it is given."""

    def __init__(self) -> None:
        self.out = b""

    def written(self, starts: tuple[int, int]) -> tuple[bytes, bytes, tuple[int, int]]:
        return self.out[starts[0] :], b"", (len(self.out), 0)


@pytest.fixture
def copied(memory: SharedMemory) -> Iterator[SharedMemory]:
    there = SharedMemory.of_host(1)
    yield there
    there.close()


def send(facts: Facts, there: SharedMemory, *, is_last: bool = False) -> list[Wrote | Printed]:
    news = [*facts.news(is_last)]
    for each in news:
        if isinstance(each, Wrote):
            there.journal(0).copy(each.start, each.data, each.length, each.beats)
    return news


def test_a_journal_is_copied_piece_by_piece(memory: SharedMemory, copied: SharedMemory) -> None:
    rank: Any = PlayedRank()
    facts = Facts(0, rank, memory)
    journal = memory.journal(0)
    journal.append(Began(0))
    first = send(facts, copied)
    journal.append(Finished())
    journal.beat()
    rank.out = b"said"
    second = send(facts, copied)
    assert copied.journal(0).read() == (Began(0), Finished())
    assert copied.journal(0).beats == 1
    assert isinstance(first[0], Wrote)
    assert isinstance(second[0], Wrote)
    assert second[0].start == len(first[0].data)
    assert second[1:] == [Printed(0, b"said", b"")]
    assert send(facts, copied) == []


def test_a_journal_that_was_written_over_is_sent_once_more(memory: SharedMemory, copied: SharedMemory) -> None:
    rank: Any = PlayedRank()
    facts = Facts(0, rank, memory)
    memory.journal(0).append(Began(0))
    send(facts, copied)
    memory.journal(0)._memory[8:12] = b"\xc1" * 4
    assert send(facts, copied) == []
    send(facts, copied, is_last=True)
    assert copied.journal(0).examine() == ((), True)
