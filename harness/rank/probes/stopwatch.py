"""On a rank: where the time of a draw goes.

Runs inside rank processes (`World.call`): `start` puts a stopwatch around the parts of a draw, `stop` takes it off and
returns the figures. Invariant: what is timed is as it was once the stopwatch is off.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.clock import CLOCK, Clock
from harness.ipc.rendezvous import Rendezvous
from harness.rank import cross_checks
from harness.rank.buffers import Canary, LiveBuffers
from harness.rank.collective import Call
from harness.rank.exact import ExactData
from harness.rank.executor import Executor
from harness.rank.images import Memory
from harness.rank.results.kept import Kept
from harness.rank.server import Server
from harness.rank.state.fingerprint import Fingerprint
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator

CHECKS = "stamp", "agree_on", "compare"
DRAW = "the rest of a draw"
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    DRAW: ((Server, "_run"),),
    "steps": ((Executor, "run"),),
    "allocating and releasing buffers": ((LiveBuffers, "place"), (LiveBuffers, "release"), (LiveBuffers, "_drop")),
    "filling, and exact results": ((Call, "_fill"),),
    "the rest of a call": ((Call, "run"),),
    "comparing results": ((ExactData, "compare"), (ExactData, "digest"), (ExactData, "alike"), (Call, "_spoiled")),
    "canaries, and memory beside a call": (
        (Canary, "damage"),
        (LiveBuffers, "check"),
        *((Memory, method) for method in ("hold", "before", "after", "look_back", "forget")),
        *((Kept, method) for method in ("began", "before", "after", "hold", "hold_source")),
    ),
    "cross-checks": ((Call, "_run_again"), (Call, "_run_by_legacy"), *((cross_checks, name) for name in CHECKS)),
    "kernels under test": ((Call, "_by_kernel"),),
    "registering windows": ((Communicator, "register"),),
    "deregistering windows": ((Communicator, "deregister"),),
    "waiting for other ranks on the host": ((Rendezvous, "meet"), (Rendezvous, "exchange")),
    "looking for what a draw leaves": ((Fingerprint, "changes"), (Fingerprint, "changes_of_import")),
}
"""What takes the time of each part: a method of a class, or a function of a module."""


class Stopwatch:
    """Seconds of each part, without those of the parts inside it."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []
        self._patched: list[tuple[Any, str, Any]] = []

    def around(self, owner: Any, method: str, part: str) -> None:
        """Count what `owner.method` takes to `part`, until `off`. The owner is a class or a module."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            began = self._clock.now()
            try:
                return original(*arguments, **named)
            finally:
                taken = self._clock.now() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        self._patched.append((owner, method, owner.__dict__.get(method)))
        setattr(owner, method, timed)

    def off(self) -> None:
        """Put back what was there."""
        for owner, method, original in reversed(self._patched):
            if original is None:
                delattr(owner, method)  # the class had inherited it
            else:
                setattr(owner, method, original)
        self._patched.clear()


LIBRARY = "library calls, and their evidence"
CALLS = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "reduce", "send_receive")
_stopwatch = Stopwatch()


def start(substrate: Substrate, slots: dict[GroupId, int]) -> None:
    """Start counting. Local."""
    for part, owned in PARTS.items():
        for owner, method in owned:
            _stopwatch.around(owner, method, part)
    kind = type(substrate)
    _stopwatch.around(kind, "begin", "communicators")
    _stopwatch.around(kind, "recreate", "communicators, re-created")
    _stopwatch.around(kind, "end", "giving back pools and segments")
    _stopwatch.around(type(substrate.device), "synchronize", "waiting for the device")
    for communicator in Communicator.__subclasses__():  # a rank without a draw so far has none to ask for its class
        for method in CALLS:
            _stopwatch.around(communicator, method, LIBRARY)


def stop(substrate: Substrate, slots: dict[GroupId, int]) -> dict[str, float]:
    """Stop counting; the seconds of each part. Local."""
    global _stopwatch
    _stopwatch.off()
    seconds, _stopwatch = _stopwatch.seconds, Stopwatch()
    return seconds
