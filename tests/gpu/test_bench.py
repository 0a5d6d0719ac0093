"""`symm bench collectives` on the GPUs there are: every contender is right, and has a time."""

from __future__ import annotations

import pytest

from harness.machine import gpus
from harness.studies.bench.collectives import begin, bench_collectives
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
SIZES = (1 << 10, 1 << 20)


def test_every_contender_is_right_and_has_a_time() -> None:
    with World(max(2, len(gpus.inventory())), "nccl") as world:
        measured = begin(world, "bfloat16")
        bench_collectives(world, ("all_gather", "reduce_scatter"), SIZES, "bfloat16", ("triton",), measured)
        is_shared = world.platform.most_on_a_gpu(world.size) > 1
    assert {row.contender: row.reason for row in measured.rows if row.state != "timed"} == {}
    assert {row.contender for row in measured.rows} == {"nccl", "nccl best", "torch", "triton", "copy"}
    assert all(row.time and len(row.seconds) == 2 and row.host for row in measured.rows)
    assert all(row.blocks for row in measured.rows if row.contender.startswith("nccl"))
    assert not [row for row in measured.rows if row.eager and row.contender != "triton"]
    assert bool(measured.why_not) == is_shared
