"""Sound draws on a simulated world, draws in which rank 1 misbehaves, and what a process holds open of a world."""

from __future__ import annotations

import os

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, ReduceScatter, Release, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw

PAIR = Topology("pair", "sglang", {"tp": 2})
THREE = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),), "cp": ((0, 2), (1,))})
QUAD = Topology("quad", "sglang", {"tp": 4, "attn_cp": 2, "attn_dp": 2})
EIGHT = Topology("eight", "sglang", {"tp": 8})
SOUND: tuple[Step, ...] = (
    Allocate("a", "tp", 1024, "bfloat16"),
    Allocate("b", "tp", 256, "bfloat16"),
    AllGather("tp", View("a", 3), 100),
    ReduceScatter("tp", View("a"), 50, View("b"), via="kernel"),
    Release("a"),
    Allocate("c", "tp", 1 << 20),
    AllGather("tp", View("c"), 100, via="kernel"),
)
REFUSED = (Deny(1), Allocate("a", "tp", 1024), AllGather("tp", View("a"), 100))
"""Rank 1 is refused its segment, so that the others wait for its registration."""


def scenario(*steps: Step, topology: Topology = PAIR, pool: str = "per-group") -> Scenario:
    """These steps, or sound ones that use every path, on a pool by its name or one of `tests.tools.unruly`."""
    name = pool if pool.islower() else f"tests.tools.unruly:{pool}"
    return Scenario(topology, steps or SOUND, System(name))


def states(draw: Draw) -> list[str]:
    return [fate.state for fate in draw.fates]


def descriptors() -> list[str]:
    """What this process holds open that belongs to a world: shared memory, output, sockets, pipes."""
    held = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith(("/memfd:", "socket:", "pipe:")):
            held.append(target)
    return sorted(held)


def mappings() -> int:
    """How often the memory of a world is mapped into this process."""
    with open("/proc/self/maps") as maps:
        return sum("symm-harness" in line for line in maps)
