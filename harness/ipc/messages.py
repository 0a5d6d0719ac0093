"""What parent, zygote and ranks send each other: a class for each message, frozen, matched by its class.

Invariant: a `Request` of the parent is answered with one `Reply`; `Ready` comes by itself, and a debugger talks before
its rank answers. To a rank messages go
pickled, as arguments and results of calls may be anything; to a zygote as packets (`harness.ipc.packets`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.scenario.layouts.groups import GroupId
from harness.trace.raising import Raising


class RankConfig(msgspec.Struct, frozen=True):
    """A rank's place in the world, and what it stands on there."""

    rank: int
    processes: int
    substrate: str
    gpu: int | None
    environment: dict[str, str] = {}
    """What differs between ranks; the rest is the zygote's."""
    evidence: tuple[str, ...] = ()


# parent to rank


class Join(msgspec.Struct, frozen=True, tag=True):
    """Come together with all ranks at the meeting place that `token` names."""

    token: bytes


class WorldSize(msgspec.Struct, frozen=True, tag=True):
    """Prepare for draws of the first `size` ranks."""

    size: int


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run a draw. The scenario is encoded once for all ranks; `slots` has the row of counters of each of its groups.
    `is_debugged`: where the system under test raises, the rank opens a debugger before it answers. `number`: another
    one for every draw of these ranks. `sharing`: how many ranks of the draw compute on one GPU, at most."""

    scenario: bytes
    slots: dict[GroupId, int]
    is_debugged: bool = False
    number: int = 0
    sharing: int = 1


class Call(msgspec.Struct, frozen=True, tag=True):
    """Call `package.module:function(substrate, slots, *arguments)`."""

    function: str
    slots: dict[GroupId, int]
    arguments: tuple[Any, ...] = ()


class Line(msgspec.Struct, frozen=True, tag=True):
    """What the user typed for a debugger, with its newline; empty where there is no more."""

    text: str


Request = Join | WorldSize | Run | Call | Line


# rank to parent


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The rank stands. `description` has versions and features of its substrate."""

    description: dict[str, Any]


class Change(msgspec.Struct, frozen=True):
    """A piece of a rank's process that is another than before: its name, the old and the new value as text.
    `at_import`: it changed when the system under test was loaded, so that new ranks would change it too."""

    what: str
    old: str
    new: str
    at_import: bool = False


class Done(msgspec.Struct, frozen=True, tag=True):
    """The request is carried out. `changes`: what a draw leaves to the next in this rank's process."""

    changes: tuple[Change, ...] = ()


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The result of a call."""

    value: Any


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The system under test raised. `changes`: what loading it has changed in this rank's process."""

    what: Raising
    changes: tuple[Change, ...] = ()


class Said(msgspec.Struct, frozen=True, tag=True):
    """What a debugger on the rank shows. No answer to the request."""

    text: str


class Asks(msgspec.Struct, frozen=True, tag=True):
    """A debugger on the rank wants a `Line`. No answer to the request."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The request is wrong."""

    error: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The device or NCCL failed, so that this rank can go on no more."""

    error: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Anything else went wrong in the rank."""

    error: str
    traceback: str


Reply = Ready | Done | Returned | Said | Asks | Raised | Refused | Broken | Failed


# parent to zygote, one line for each world


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Serve one more world. Descriptors: its line; then those of its memory, one, or three over hosts."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Fork a rank. Four descriptors: its connection, its lifeline, stdout, stderr."""

    config: RankConfig


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Kill and reap ranks of this world."""

    pids: tuple[int, ...]


# zygote to parent


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Imports are done, and the world is served."""


class Forked(msgspec.Struct, frozen=True, tag=True):
    """A rank's process."""

    pid: int


class Killed(msgspec.Struct, frozen=True, tag=True):
    """Wait status by pid. A rank that was dead already keeps the status it died with."""

    statuses: dict[int, int]
