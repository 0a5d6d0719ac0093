"""A kernel whose atomic operation finds what the last one found yields the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from harness.kernels.barrier import barrier_kernel
from harness.substrate.sim import spins

YIELDS = 3
"""The others arrive once this one has yielded so often."""


@triton.jit
def wait_by_exchange(flag):
    """flag: int32[1]. Takes a 1 and leaves a 0. Grid (1,)."""
    while tl.atomic_cas(flag, 1, 0, sem="acquire", scope="sys") != 1:
        pass


@triton.jit
def count_where(words, mask):
    """words, mask: int32[4]. Adds one where the mask is not 0, which may be any number. Grid (1,)."""
    lane = tl.arange(0, 4)
    tl.atomic_add(words + lane, 1, mask=tl.load(mask + lane), sem="relaxed", scope="sys")


@triton.jit
def count(words):
    """words: int32[4]. Adds one to each, in an operation of its own. Grid (1,)."""
    for at in range(4):
        tl.atomic_add(words + at, 1, sem="relaxed", scope="sys")


def wait_in(kernel: str) -> None:
    """Have a kernel wait for a flag, and print how often it yielded until that came."""
    spins.give_way()
    pads, yields = torch.zeros(4, 4, dtype=torch.int32), 0

    def let_the_other_run() -> None:
        nonlocal yields
        yields += 1
        if yields == YIELDS:
            pads[0, 1:3] = 1

    spins.sched_yield = let_the_other_run
    if kernel == "barrier":
        # the last lane has no rank, so its mask leaves it out
        barrier_kernel[(1,)](torch.tensor([pad.data_ptr() for pad in pads[:3]]), 0, 1, SIZE=3, LANES=4)
    elif kernel == "exchange":
        wait_by_exchange[(1,)](pads[0, 1:])
    elif kernel == "count":
        count[(1,)](pads.view(-1))
    else:
        count_where[(1,)](pads, torch.tensor([7, 0, 5, 0], dtype=torch.int32))
        assert pads[0].tolist() == [1, 0, 1, 0]
    print(yields)


@pytest.mark.parametrize(("kernel", "yields"), [("barrier", YIELDS), ("exchange", YIELDS), ("count", 0), ("where", 0)])
def test_a_look_that_finds_what_the_last_one_found_yields(kernel: str, yields: int) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"from {__name__} import wait_in; wait_in({kernel!r})"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (run.stdout, run.returncode) == (f"{yields}\n", 0), run.stderr
