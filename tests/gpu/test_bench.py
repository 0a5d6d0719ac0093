"""`symm bench collectives` on the GPUs there are: every contender is right, and has a time."""

from __future__ import annotations

import pytest

from harness.machine import gpus
from harness.studies.bench.asked import MOST_RANKS
from harness.studies.bench.by_ranks import BEST, ByRanks, ask, bench_by_ranks
from harness.studies.bench.collectives import begin, bench_collectives, contenders
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
SIZES = (1 << 10, 1 << 20)


def test_every_contender_is_right_and_has_a_time() -> None:
    with World(max(2, len(gpus.inventory())), "nccl") as world:
        measured = begin(world, "bfloat16")
        bench_collectives(world, ("all_gather", "reduce_scatter"), SIZES, "bfloat16", ("triton",), measured)
        is_shared = world.platform.most_on_a_gpu(world.size) > 1
    assert {row.contender: row.reason for row in measured.rows if row.state != "timed"} == {}
    assert {row.contender for row in measured.rows} == {*contenders("nccl", measured.world, ["triton"])}
    assert all(row.time and len(row.seconds) == 2 and row.host for row in measured.rows)
    assert all(row.blocks for row in measured.rows if row.contender.startswith("nccl"))
    assert not [row for row in measured.rows if row.eager and row.contender != "triton"]
    assert bool(measured.why_not) == is_shared


GPUS = len(gpus.inventory())
COUNTS = sorted({number for number in (2, 4, 8, GPUS) if 2 <= number <= min(GPUS, MOST_RANKS)})


@pytest.mark.timeout(120 * max(1, len(COUNTS)))
@pytest.mark.skipif(len(COUNTS) < 2, reason="two numbers of ranks, each with a GPU a rank, need three GPUs")
def test_every_number_of_ranks_has_its_times_and_copies_to_all_peers_are_right() -> None:
    found = ByRanks(ask("nccl", COUNTS, ["all_gather", "all_reduce"], "bfloat16", [*SIZES], ["triton"]))
    bench_by_ranks(found)
    assert [table.world for table in found.tables] == COUNTS
    for table in found.tables:
        assert table.why_not == ""
        assert {row.contender: row.reason for row in table.rows if row.state != "timed"} == {}
        copies = [row for row in table.rows if row.contender == "copy to all"]
        assert bool(copies) == (table.world > 2)
        assert all(row.time and not row.eager and row.how in ("in turn", "side by side") for row in copies)
    grown = [point for point in found.points() if point.world == COUNTS[-1]]
    assert {point.contender for point in grown} == {BEST, "torch", "triton", "copy", "copy to all"}
    assert all(point.ratio and point.to_copies and point.growth for point in grown)
