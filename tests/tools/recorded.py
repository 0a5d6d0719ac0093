"""Processes as the observer would have recorded them, built from a list of what they did."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.machine.observer.records import Call, CommCreated, Fact, Process, Registered, RegisterEntered

SEGMENT = 1 << 21
BASE = 0x7F0000000000
SITE = "/usr/lib/python3/site-packages/torch/distributed.py:9 all_gather\n/home/me/model.py:31 forward"


def process(done: Sequence[Fact], rank: int = -1, blocked: Sequence[Fact] = (), **fields: object) -> Process:
    """A process that did these things. Equal calls become one fact that is counted, as in a file."""
    facts: list[Fact] = []
    order: list[int] = []
    for each in done:
        if each not in facts or not isinstance(each, Call):
            facts.append(each)
        order.append(len(facts) - 1 if not isinstance(each, Call) else facts.index(each))
    counted = tuple(
        msgspec.structs.replace(fact, calls=order.count(index)) if isinstance(fact, Call) else fact
        for index, fact in enumerate(facts)
    )
    values: dict[str, object] = {
        "path": f"host-{100 + rank}-0.symm",
        "pid": 100 + rank,
        "parent": 1,
        "host": "host",
        "rank": rank,
        "command": "python model.py",
        "real": "/lib/libnccl.so.2",
        "nccl": (2, 32, 3),
        "began": 0.0,
        "facts": counted,
        "order": tuple(order),
        "lost_facts": 0,
        "lost_events": 0,
        "in_flight": tuple(facts.index(each) for each in blocked),
    }
    return Process(**values | fields)  # type: ignore[arg-type]


def comm(number: int, rank: int, size: int = 2, identity: int = 0, name: str = "", **fields: object) -> CommCreated:
    """Communicator `number` of a process. Its identity follows from the number, unless one is given."""
    return CommCreated(number, identity or 1000 + number, size, rank, "init", name, **fields)  # type: ignore[arg-type]


def registration(number: int, address: int = BASE, size: int = SEGMENT, window: int = 0x55) -> list[Fact]:
    """A registration of a segment that succeeds."""
    return [RegisterEntered(number, address, size, 1), Registered(number, address, size, 1, window)]


def gather(number: int, receive: int = BASE, send: int = 0x1000, count: int = 4, **fields: object) -> Call:
    """An all-gather of bfloat16."""
    values: dict[str, object] = {
        "comm": number,
        "function": "AllGather",
        "dtype": "bfloat16",
        "op": "",
        "root": -1,
        "count": count,
        "send": send,
        "receive": receive,
        "stream": 0,
        "site": SITE,
        "calls": 1,
        "symmetric": 0,
        "legacy": 0,
        "copy": 0,
    }
    return Call(**values | fields)  # type: ignore[arg-type]
