"""Events of ranks that run by a schedule: what they read and wrote where peers can, and what orders them.

Invariant: `number` is the place of an event among those of all ranks. Accesses are numbered before the next event of
their rank that orders anything, and may be later than they were made.
"""

from __future__ import annotations

from typing import Literal

from harness.scenario.layouts.groups import GroupId
from harness.trace.bases import BaseEvent

How = Literal["reads", "writes", "atomically reads", "atomically updates", "fills", "looks at", "clears"]
"""A kernel does the first four, and the harness the others, which write, read and write."""


WORKSPACE = "workspace"


class Scheduled(BaseEvent, frozen=True, tag="scheduled"):
    """The rank has its turns by a schedule. It maps the memory that all ranks share from `base` on."""

    base: int


class Accessed(BaseEvent, frozen=True, tag="accessed"):
    """The rank accessed `spans` of the shared memory, each a first byte and the one behind the last. A kernel under
    test did at `place`, such as `kernels.py:31`. In a pad, `pad` says which of which group, and `owner` is the rank
    whose memory it is. In what a plug-in has of the harness's memory, `pad` is `WORKSPACE`.

    `word`: the bytes of the aligned words that it took whole each, by atomic operations at system scope or by volatile
    loads of four bytes at most; 0 of any other access."""

    number: int
    how: How
    owner: int
    spans: tuple[tuple[int, int], ...]
    kernel: str = ""
    place: str = ""
    pad: str = ""
    group: GroupId = GroupId(())
    word: int = 0


class Synced(BaseEvent, frozen=True, tag="synced"):
    """An atomic operation at system scope on the words that begin at these bytes of the shared memory: it published
    what the rank had done, or took over what was published there, or both."""

    number: int
    words: tuple[int, ...]
    releases: bool
    acquires: bool


class Relaxed(BaseEvent, frozen=True, tag="relaxed"):
    """An atomic operation ordered nothing with peers. `why`: it was relaxed, or at another scope than the system's."""

    number: int
    kernel: str
    place: str
    why: str


class Met(BaseEvent, frozen=True, tag="met"):
    """The rank came to a meeting on the host, or left it, when all of its ranks had come."""

    number: int
    slot: int
    field: int
    target: int
    has_left: bool


ORDERING = (Scheduled, Accessed, Synced, Relaxed, Met)
"""None of them says that a call has begun or ended."""
