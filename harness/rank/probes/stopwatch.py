"""On a rank: where the time of a draw goes.

Runs inside rank processes (`World.call`): `start` puts a stopwatch around the parts of a draw, `stop` takes it off and
returns the figures. Invariant: what is timed is as it was once the stopwatch is off.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.clock import CLOCK, Clock
from harness.ipc.rendezvous import Rendezvous
from harness.rank.collective import Call
from harness.rank.executor import Executor
from harness.rank.server import Server
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator

DRAW = "the rest of a draw"
SHARED_PARTS = (
    (Server, "_run", DRAW),
    (Executor, "run", "steps, and allocating their buffers"),
    (Call, "run", "filling, comparing and canaries"),
    (Communicator, "register", "registering windows"),
    (Communicator, "deregister", "deregistering windows"),
    (Rendezvous, "meet", "waiting for other ranks on the host"),
    (Rendezvous, "exchange", "waiting for other ranks on the host"),
)


class Stopwatch:
    """Seconds of each part, without those of the parts inside it."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []
        self._patched: list[tuple[type, str, Any]] = []

    def around(self, owner: type, method: str, part: str) -> None:
        """Count what `owner.method` takes to `part`, until `off`."""
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


CALLS = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "reduce", "send_receive")
_stopwatch = Stopwatch()


def start(substrate: Substrate, slots: dict[GroupId, int]) -> None:
    """Start counting. Local."""
    for owner, method, part in SHARED_PARTS:
        _stopwatch.around(owner, method, part)
    kind = type(substrate)
    _stopwatch.around(kind, "begin", "communicators")
    _stopwatch.around(kind, "recreate", "communicators, re-created")
    _stopwatch.around(kind, "end", "giving back pools and segments")
    for communicator in Communicator.__subclasses__():  # a rank without a draw so far has none to ask for its class
        for method in CALLS:
            _stopwatch.around(communicator, method, "library collectives")


def stop(substrate: Substrate, slots: dict[GroupId, int]) -> dict[str, float]:
    """Stop counting; the seconds of each part. Local."""
    global _stopwatch
    _stopwatch.off()
    seconds, _stopwatch = _stopwatch.seconds, Stopwatch()
    return seconds
