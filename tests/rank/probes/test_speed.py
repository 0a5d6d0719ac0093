"""Timed calls on a rank: how often they are repeated, their operands, and what is due."""

from __future__ import annotations

import pytest
import torch

from harness.rank.probes.speed import timing
from harness.rank.probes.speed.operands import Operands, is_same
from tests.tools.clock import FakeClock

CPU = torch.device("cpu")


class Batches:
    """Batches that take `cost` seconds each and give the figures of a list, the last for all further ones."""

    def __init__(self, cost: float, *figures: float) -> None:
        self.time, self.made = FakeClock(), 0
        self._cost, self._figures = cost, figures

    def __call__(self) -> float:
        self.time.advance(self._cost)
        self.made += 1
        return self._figures[min(self.made, len(self._figures)) - 1]

    def median(self, budget: float) -> float:
        return timing.median(self, lambda number: number, budget, self.time.clock)


def test_the_first_batch_warms_up_and_the_median_of_the_others_counts() -> None:
    batches = Batches(1.0, 100.0, 1.0, 2.0, 9.0)
    assert (batches.median(3.0), batches.made) == (2.0, 4)


@pytest.mark.parametrize(("cost", "batches"), [(0.0, 61), (10.0, 4), (0.1, 11)])
def test_batches_fit_in_the_time_within_bounds(cost: float, batches: int) -> None:
    made = Batches(cost, 1.0)
    made.median(1.05)
    assert made.made == batches


def test_all_ranks_make_as_many_batches_as_the_slowest() -> None:
    batches = Batches(0.1, 1.0)
    timing.median(batches, lambda number: min(number, 5), 10.0, batches.time.clock)
    assert batches.made == 1 + 5


def test_a_call_has_its_share_of_the_time_between_two_meetings() -> None:
    time = FakeClock()
    found = timing.by_host(lambda: time.advance(2.0), lambda: time.advance(0.0), time.clock)
    assert found == 2.0


def test_the_host_does_not_wait_for_what_it_has_started() -> None:
    time = FakeClock()
    assert timing.host_seconds(lambda: time.advance(1.0), lambda: time.advance(500.0), time.clock) == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32])
@pytest.mark.parametrize("size", [2, 3, 16])
def test_what_is_due_follows_from_the_sources_of_all_ranks(size: int, dtype: torch.dtype) -> None:
    sources, due = {}, {}
    for op in ("all_gather", "reduce_scatter", "all_reduce", "copy", "copy to all"):
        ranks = [Operands(op, rank, size, 5, dtype, CPU) for rank in range(size)]
        due[op] = [rank.fill(7) for rank in ranks]
        sources[op] = [rank.source for rank in ranks]
    scattered = torch.stack([source.double() for source in sources["reduce_scatter"]]).sum(0).view(size, 5)
    reduced = torch.stack([source.double() for source in sources["all_reduce"]]).sum(0)
    for rank in range(size):
        assert is_same(torch.cat(sources["all_gather"]), due["all_gather"][rank])
        assert is_same(sources["copy"][rank - 1], due["copy"][rank])
        before = [sources["copy to all"][rank - away] for away in range(1, size)]
        assert is_same(torch.cat(before), due["copy to all"][rank])
        assert torch.equal(scattered[rank], due["reduce_scatter"][rank].double())
        assert torch.equal(reduced, due["all_reduce"][rank].double())


def test_every_seed_gives_other_inputs_and_poisons_the_output() -> None:
    operands = Operands("all_gather", 0, 2, 64, torch.bfloat16, CPU)
    first, second = operands.fill(1), operands.fill(2)
    assert not is_same(first, second)
    assert not is_same(operands.output, second)
    assert is_same(operands.fill(1), first)
