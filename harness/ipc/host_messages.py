"""What the parent and the tasks of other hosts send each other: a class for each message, frozen, matched by its class.

Invariant: plain data that msgspec checks on arrival. Nothing that the network brings is unpickled. An `Ask` is answered
with one `Answer` of its number; all else needs none.
"""

from __future__ import annotations

import msgspec

from harness.ipc.messages import RankConfig, Reply, Request
from harness.scenario.layouts.groups import GroupId


class Message(msgspec.Struct, frozen=True, tag=True):
    """One message of a line."""


class Words(Message, frozen=True):
    """Words of the shared memory: where they are, counted from the first counter, and their values, both int64."""

    places: bytes
    values: bytes


# parent to task: questions


class Common(msgspec.Struct, frozen=True):
    """The memory that hosts on one machine share: a descriptor of the parent's, and by what it is known to be that."""

    machine: str
    pid: int
    descriptor: int
    inode: int


class Open(Message, frozen=True):
    """Serve a world of `size` ranks, `here` of them on this host."""

    size: int
    here: int
    substrate: str
    evidence: tuple[str, ...]
    common: Common | None


class Start(Message, frozen=True):
    """Start a rank."""

    config: RankConfig


class Stacks(Message, frozen=True):
    """Read the stacks of ranks, with native frames or without."""

    ranks: tuple[int, ...]
    native: bool


class Settle(Message, frozen=True):
    """Send all that has changed."""


class End(Message, frozen=True):
    """Kill and reap every rank."""


class Close(Message, frozen=True):
    """End the world."""


class Ask(Message, frozen=True):
    """A question with its number."""

    number: int
    question: Open | Start | Stacks | Settle | End | Close


# parent to task


class Tell(Message, frozen=True):
    """A request to a rank of this host."""

    rank: int
    request: Request


class Prepare(Message, frozen=True):
    """A draw begins: the rows of its groups, the parent's words in them, and this host's ranks, which have written and
    printed nothing."""

    slots: tuple[tuple[GroupId, int], ...]
    rows: bytes
    ranks: tuple[int, ...]


class Dismiss(Message, frozen=True):
    """The command has ended with this status."""

    status: int


ToTask = Ask | Tell | Prepare | Words | Dismiss


# task to parent


class Hello(Message, frozen=True):
    """The first message: a task's rank, its host's name, the machine that this host is, and the command."""

    rank: int
    host: str
    machine: str
    command: str


class Said(Message, frozen=True):
    """A rank's reply."""

    rank: int
    reply: Reply


class Gone(Message, frozen=True):
    """A rank has closed its connection; `unread`: with a request in it that it had not read."""

    rank: int
    unread: bool


class Wrote(Message, frozen=True):
    """A piece of a rank's journal from byte `start` on, the journal's length, and the rank's beats."""

    rank: int
    start: int
    data: bytes
    length: int
    beats: int


class Printed(Message, frozen=True):
    """What a rank has printed since the last such message, to stdout and stderr."""

    rank: int
    out: bytes
    err: bytes


class Signalled(Message, frozen=True):
    """The task got a signal that ends a command."""

    signal: int


class Opened(Message, frozen=True):
    """The world is served; else the reason why it is not."""

    why_not: str = ""


class Started(Message, frozen=True):
    """A rank's process."""

    pid: int


class Read(Message, frozen=True):
    """Stacks by rank, each with what read it."""

    stacks: dict[int, tuple[str, str]]


class Ended(Message, frozen=True):
    """Wait status by rank."""

    statuses: dict[int, int]


class Done(Message, frozen=True):
    """It is done."""


class Failed(Message, frozen=True):
    """It cannot be done."""

    why: str


class Answer(Message, frozen=True):
    """To the question of that number."""

    number: int
    answer: Opened | Started | Read | Ended | Done | Failed


ToParent = Hello | Said | Gone | Wrote | Printed | Words | Signalled | Answer
