"""Functions that tests have ranks call."""

from __future__ import annotations

import mmap
import os
import time
from itertools import count
from pathlib import Path

from harness.clock import Clock
from harness.ipc.memory import REGISTER, SharedMemory
from harness.rank.probes import costs
from harness.scenario.layouts.groups import Group, GroupId
from harness.substrate.base import Substrate


def rank_and_group(substrate: Substrate, slots: dict[Group, int], word: str) -> tuple[int, Group, str]:
    return substrate.rank, next(iter(slots)), word


def dies(substrate: Substrate, slots: dict[Group, int]) -> None:
    if substrate.rank == 1:
        os._exit(3)
    time.sleep(3600)


def raises(substrate: Substrate, slots: dict[Group, int]) -> None:
    if substrate.rank == 1:
        raise ValueError("not today")
    time.sleep(3600)


def maps(substrate: Substrate, slots: dict[Group, int], path: Path) -> None:
    """As NCCL has it: mapped for good, and the descriptor closed."""
    if substrate.rank == 1:
        with path.open("r+b") as file:
            kept.append(mmap.mmap(file.fileno(), 0))


kept: list[mmap.mmap] = []


def what_is_open(substrate: Substrate, slots: dict[Group, int]) -> int:
    """Segments and windows that a rank holds."""
    windows = sum(len(communicator.windows) for communicator in substrate.communicators.values())
    return windows + sum(len(pool.segments) for pool in substrate.pools.values())


def costs_by_reads(substrate: Substrate, slots: dict[GroupId, int], repeats: int) -> dict[str, float]:
    """What the probe of costs measures by a clock that each look moves by a second."""
    looks = count()
    return costs.measure(substrate, slots, repeats, Clock(lambda: float(next(looks)), time.sleep))


def registers_alone(substrate: Substrate, slots: dict[Group, int]) -> None:
    """Leave the count that a registration leaves which raised on all ranks but one."""
    if substrate.rank == 0:
        ((group, slot),) = slots.items()
        fds = map(int, os.listdir("/proc/self/fd"))
        memory = next(fd for fd in fds if os.path.realpath(f"/proc/self/fd/{fd}").startswith("/memfd:symm-harness"))
        SharedMemory(memory, len(group)).counters[slot, 0, REGISTER] += 1
