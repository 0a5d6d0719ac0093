"""A rank gives back what its heap keeps of draws that needed much."""

from __future__ import annotations

from ctypes import CDLL, c_size_t, c_void_p, memset

import psutil

from harness.rank.server import DRAWS_UNTIL_TRIM
from harness.scenario.scenario import Scenario
from harness.scenario.topology import Topology
from harness.world.world import World

MIB = 1 << 20
BLOCK, BLOCKS = 16 << 10, 2048


def split_the_heap(_substrate: object, _slots: object) -> None:
    """Free 32 MiB in front of a block that stays."""
    libc = CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = c_void_p, (c_size_t,), (c_void_p,)
    blocks = [libc.malloc(BLOCK) for _ in range(BLOCKS)]
    for block in blocks:
        memset(block, 1, BLOCK)
    libc.malloc(BLOCK)
    for block in blocks:
        libc.free(block)


def resident(_substrate: object, _slots: object) -> int:
    return int(psutil.Process().memory_info().rss)


def test_free_memory_in_the_middle_of_a_heap_goes_back_after_some_draws() -> None:
    scenario = Scenario(Topology("one", "sglang", {"tp": 1}), ())
    with World(1, "sim") as world:
        (before,) = world.call(f"{__name__}:resident")
        world.call(f"{__name__}:split_the_heap")
        (split,) = world.call(f"{__name__}:resident")
        for _ in range(DRAWS_UNTIL_TRIM):
            world.run(scenario)
        (after,) = world.call(f"{__name__}:resident")
    assert split - before > 24 * MIB
    assert after - before < 8 * MIB
