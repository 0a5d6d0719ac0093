"""On a rank with a GPU, for `World.call`."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch

from harness.scenario.layouts.groups import Group
from harness.substrate.nccl.memory import NcclPool
from harness.substrate.nccl.references import kept
from harness.substrate.nccl.substrate import NcclSubstrate

SMALL_INTEGERS = 256
"""Python counts no references to integers up to this."""


def list_a_late_pool(substrate: NcclSubstrate, slots: dict[Group, int]) -> dict[str, int]:
    """References to a pool's id that its listing costs, by PyTorch alone and by the harness."""
    memory: Any = torch.cuda.MemPool()
    while max(memory.id) <= SMALL_INTEGERS:
        memory = torch.cuda.MemPool()
    ident = memory.id
    late = max(ident)
    pool = NcclPool(substrate.recorder, "late", substrate.allocator)
    pool._pool = SimpleNamespace(id=ident)
    missing = {}
    with kept(late):
        for way, listing in (("harness", pool._listed), ("torch", lambda: torch.cuda.memory_snapshot(ident))):
            before = sys.getrefcount(late)
            listing()
            missing[way] = before - sys.getrefcount(late)
    return missing
