"""On a rank: where the time of a draw goes.

Runs inside rank processes (`World.call`): `watch` puts a stopwatch around the parts of a draw, `told` takes it off
and gives its figures. Nothing of it is there while no bench runs.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from harness.ipc.rendezvous import Rendezvous
from harness.rank.collective import Call
from harness.rank.executor import Executor
from harness.rank.server import Server
from harness.scenario.layout import Group
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
CALLS = 50


class Stopwatch:
    """Seconds of each part, without those of the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []
        self._patched: list[tuple[type, str, Any]] = []

    def around(self, owner: type, method: str, part: str) -> None:
        """Count what `owner.method` takes to `part`, until `off`."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            began = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                taken = time.perf_counter() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        self._patched.append((owner, method, owner.__dict__.get(method)))
        setattr(owner, method, timed)

    def off(self) -> None:
        """Put back what was there."""
        for owner, method, original in reversed(self._patched):
            if original is None:
                delattr(owner, method)  # it was inherited
            else:
                setattr(owner, method, original)
        self._patched.clear()


_stopwatch = Stopwatch()


def watch(substrate: Substrate, slots: dict[Group, int]) -> None:
    """Start counting. Local."""
    for owner, method, part in SHARED_PARTS:
        _stopwatch.around(owner, method, part)
    kind = type(substrate)
    _stopwatch.around(kind, "begin", "communicators")
    _stopwatch.around(kind, "recreate", "communicators, created anew")
    _stopwatch.around(kind, "end", "giving back pools and segments")
    communicator = type(next(iter(substrate.communicators.values())))
    for method in ("all_gather", "reduce_scatter"):
        _stopwatch.around(communicator, method, "library collectives")


def told(substrate: Substrate, slots: dict[Group, int]) -> dict[str, float]:
    """Stop counting; the seconds of each part. Local."""
    global _stopwatch
    _stopwatch.off()
    seconds, _stopwatch = _stopwatch.seconds, Stopwatch()
    return seconds


def latency(substrate: Substrate, slots: dict[Group, int], elements: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a library all-gather of `elements` bf16 a rank, in a window. Collective.

    First with every call waited for, as a program makes them; then with `CALLS` in a row waited for once, as latency
    is mostly given, which leaves out what starting the call and learning of its end cost on the host.
    """
    (group,) = slots
    substrate.start_recording(lambda event: None)
    substrate.world(len(group))
    substrate.begin([(group,)], [0] * len(group), slots)
    communicator, pool = substrate.communicator(group), substrate.pool("latency")
    with pool.use():
        output = torch.empty(elements * len(group), dtype=torch.bfloat16, device=substrate.device.torch_device)
    communicator.register(pool.segments[0])
    mine = output[communicator.rank * elements :][:elements]
    gather = functools.partial(communicator.all_gather, output, mine)
    waited = statistics.median(_timed(communicator, gather) for _ in range(repeats))
    with mock.patch.object(substrate.device, "synchronize", return_value=None):
        in_a_row = statistics.median(_timed(communicator, gather) for _ in range(repeats))
    del output, mine, gather
    pool.close()
    substrate.end()
    return waited, in_a_row


def _timed(communicator: Communicator, call: Callable[[], object]) -> float:
    """Seconds of a call, of `CALLS` that all ranks start together."""
    communicator.barrier()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    if communicator.device.torch_device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / CALLS
