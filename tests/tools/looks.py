"""A kernel that looks at a word again and again, by a schedule, and what its rank makes of that."""

# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

from itertools import count
from typing import Any

import torch
import triton
import triton.language as tl

from harness.ipc.memory import SharedMemory
from harness.ipc.turns import Turns, prepare
from harness.substrate.base import Substrate
from harness.substrate.sim.device import tensor_at
from harness.substrate.sim.schedules.interpreted import watched
from harness.substrate.sim.schedules.witness import Witness
from harness.substrate.sim.views import Views

TIMES = 5


@triton.jit
def look_kernel(words, times: tl.constexpr, by: tl.constexpr):
    """Looks at the first of four words; what the other lanes get from a load differs from look to look."""
    index = tl.arange(0, 4)
    look = 0
    while look < times:
        if by == "load":
            tl.load(words + index, mask=index < 1, other=look)
        else:
            tl.atomic_add(words + index, 0, mask=index < 1, sem="relaxed", scope="sys")
        look += 1


class Counted(Turns):
    """Counts the polls of its rank."""

    polls = 0

    def poll(self, *seen: Any) -> None:
        self.polls += 1
        super().poll(*seen)


def polls(substrate: Substrate, slots: object, by: str) -> int:
    """How many of `TIMES` looks are polls. Of an atomic operation, too, other lanes differ from look to look."""
    from triton.runtime.interpreter import InterpreterBuilder

    numbers, add = count(), InterpreterBuilder.create_atomic_rmw

    def differing(self, operation, ptr, val, mask, *rest):
        found = add(self, operation, ptr, val, mask, *rest)
        found.data[~mask.data] = next(numbers)
        return found

    shared = SharedMemory.create(1)
    prepare(shared.baton, (0,))
    turns = Counted(shared.baton, shared.counters, shared.bytes, 0, 1, ())
    InterpreterBuilder.create_atomic_rmw = differing
    try:
        with watched(Witness(0, shared, Views(shared), turns, {}, lambda event: None)):
            look_kernel[(1,)](tensor_at(shared.base + shared.arena(0)[0], 4, torch.int32), times=TIMES, by=by)
    finally:
        InterpreterBuilder.create_atomic_rmw = add
        shared.close()
    return turns.polls
