"""On a rank: how long a library collective takes between windows.

Runs inside rank processes (`World.call`). Invariant: the path that the measured calls took is part of the answer.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from harness.clock import CLOCK, Clock
from harness.rank.probes.opening import open_world
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator

CALLS = 50
"""Calls of one figure, which all ranks start together."""


def measure(
    substrate: Substrate, slots: dict[GroupId, int], elements: int, repeats: int, clock: Clock = CLOCK
) -> dict[str, Any]:
    """Median seconds of a library all-gather of `elements` bf16 a rank, in a window, and its path. Collective.

    `waited`: every call is waited for, as a program makes them. `in_a_row`: `CALLS` in a row are waited for once, as
    latency is mostly given, which leaves out what starting the call and learning of its end cost on the host.
    """
    group = open_world(substrate, slots)
    communicator, pool = substrate.communicator(group), substrate.pool("latency")
    with pool.use():
        output = torch.empty(elements * len(group.ranks), dtype=torch.bfloat16, device=substrate.device.torch_device)
    window = communicator.register(pool.segments[0])
    mine = output[communicator.rank * elements :][:elements]
    gather = functools.partial(communicator.all_gather, output, mine)
    path, _ = gather()
    waited = statistics.median(seconds_a_call(communicator, gather, clock) for _ in range(repeats))
    with mock.patch.object(substrate.device, "synchronize", return_value=None):
        in_a_row = statistics.median(seconds_a_call(communicator, gather, clock) for _ in range(repeats))
    communicator.barrier()  # deregistering while another collective runs can deadlock (nccl 2184)
    if window is not None:
        communicator.deregister(window)
    del output, mine, gather
    pool.close()
    substrate.end()
    return {"waited": waited, "in_a_row": in_a_row, "path": path}


def seconds_a_call(communicator: Communicator, call: Callable[[], object], clock: Clock) -> float:
    """Seconds of a call, of `CALLS` that all ranks start together."""
    communicator.barrier()
    began = clock.now()
    for _ in range(CALLS):
        call()
    if communicator.device.torch_device.type == "cuda":
        torch.cuda.synchronize()
    return (clock.now() - began) / CALLS
