"""Origins: each kind of wrong value is named with its rank and step, and chance is never taken for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.rank import values
from harness.rank.exact import ExactData
from harness.rank.origins import Calls, information
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, ReduceScatter
from harness.substrate.bits import bits
from harness.trace.events import Mismatch, Origin
from tests.tools.scenes import PAIR, explicit

CPU, COUNT = torch.device("cpu"), 50
TOPOLOGY = explicit(tp=((0, 1, 2), (3, 4, 5)))
GROUP, RANK, MINE = (0, 1, 2), 1, 1


def played(*steps: Collective, dtype: str = "float32") -> Scenario:
    return Scenario(TOPOLOGY, (Allocate("a", "tp", 4 * COUNT, dtype), *steps), seed=5)


GATHERS = played(AllGather("tp", View("a"), COUNT), AllGather("tp", View("a"), COUNT))
SUMS = played(*[ReduceScatter("tp", View("a"), COUNT)] * 3)


class Judged:
    """The call of rank 1 at a step: every rank's input and the exact result, to make wrong outputs of."""

    def __init__(self, scenario: Scenario, index: int, group: tuple[int, ...] = GROUP) -> None:
        self._scenario, self._index = scenario, index
        step = scenario.steps[index]
        assert isinstance(step, Collective)
        self.exact = ExactData(step, group, MINE, CPU)
        keys = [values.key(scenario.seed, index, rank) for rank in group]
        first = scenario.steps[0]
        assert isinstance(first, Allocate)
        dtype = getattr(torch, first.dtype)
        self.inputs = self.exact.all_inputs(keys, dtype, wide=False)
        _, self.expected = self.exact.inputs(keys, dtype, wide=False)

    def chunk(self, number: int = MINE) -> torch.Tensor:
        """Every rank's input to a chunk of a reduction."""
        return self.inputs[:, number * COUNT : (number + 1) * COUNT]

    def origin(self, found: torch.Tensor, past: tuple[int, ...] = ()) -> Origin | None:
        mismatch = self.exact.compare("a", found, self.expected)
        assert mismatch is not None
        calls = Calls(self._scenario, RANK)
        for index in past:
            calls.ran(index)
        explained = calls.explained(self._index, mismatch, found, self.expected, False)
        assert explained.elements == mismatch.elements
        return explained.origin

    def with_chunk(self, number: int, data: torch.Tensor, start: int = 0) -> torch.Tensor:
        """The gathered output with other data in a rank's chunk, from an element on."""
        found = self.expected.clone()
        bits(found)[number * COUNT + start : number * COUNT + start + len(data)] = bits(data)
        return found


def gather(index: int = 2) -> Judged:
    return Judged(GATHERS, index)


def reduction(index: int = 2) -> Judged:
    return Judged(SUMS, index)


# an all-gather


def test_another_ranks_data_is_named() -> None:
    call = gather()
    assert call.origin(call.with_chunk(2, call.inputs[0])) == Origin("input", (0,), matched=COUNT, wrong=COUNT)


def test_a_run_ends_with_its_chunk() -> None:
    """Two chunks are exchanged, so that the whole output is wrong without a gap."""
    call = gather()
    found = torch.cat([call.inputs[1], call.inputs[0], call.inputs[2]])
    assert call.origin(found) == Origin("input", (1,), matched=COUNT, wrong=COUNT)


def test_data_that_is_shifted_is_named_with_its_shift() -> None:
    call = gather()
    found = call.with_chunk(0, call.inputs[0][7:])
    assert call.origin(found) == Origin("input", (0,), shift=7, matched=COUNT - 7, wrong=COUNT - 7)


def test_the_first_part_of_a_run_may_have_an_origin_of_its_own() -> None:
    call = gather()
    found = call.with_chunk(0, torch.cat([call.inputs[2][:20], call.inputs[1][20:]]))
    assert call.origin(found) == Origin("input", (2,), matched=20, wrong=COUNT)


def test_data_of_another_group_is_named() -> None:
    call, other = gather(), Judged(GATHERS, 2, (3, 4, 5))
    assert call.origin(call.with_chunk(0, other.inputs[1])) == Origin("input", (4,), matched=COUNT, wrong=COUNT)


def test_data_of_an_earlier_step_is_named() -> None:
    call, found = gather(), gather().with_chunk(0, gather(1).inputs[0])
    assert call.origin(found, past=(1,)) == Origin("input", (0,), 1, matched=COUNT, wrong=COUNT)
    assert call.origin(found) is None, "a step that did not run"


def test_data_of_a_later_step_is_named() -> None:
    call = gather(1)
    assert call.origin(call.with_chunk(0, gather(2).inputs[0])) == Origin("input", (0,), 2, matched=COUNT, wrong=COUNT)


def test_zeros_are_named_however_few() -> None:
    call = gather()
    assert call.origin(call.with_chunk(1, torch.zeros(1), 30)) == Origin("zeros", matched=1, wrong=1)


def test_zeros_name_a_later_call_in_which_the_same_rank_puts_in_zero() -> None:
    call, later = gather(1), gather(2)
    zero = int((bits(later.inputs[1]) == 0).nonzero()[0])
    beside = int((bits(later.inputs[1]) != 0).nonzero()[0])
    assert call.origin(call.with_chunk(1, torch.zeros(1), zero)) == Origin("zeros", (1,), 2, matched=1, wrong=1)
    assert call.origin(call.with_chunk(1, torch.zeros(1), beside)) == Origin("zeros", matched=1, wrong=1)


@pytest.mark.parametrize(("count", "is_named"), [(2, False), (8, True)])
def test_garbage_that_begins_with_a_zero_has_no_origin(count: int, is_named: bool) -> None:
    """Zeros are among the values that ranks put in, and eight of them in a row are no chance."""
    call = gather()
    stray = values.gather_values([values.key(99, 1)], COUNT, torch.float32, CPU)[0]
    stray[:count] = 0
    assert (call.origin(call.with_chunk(0, stray)) is not None) is is_named


@pytest.mark.parametrize("salt", range(5))
def test_data_from_nowhere_has_no_origin(salt: int) -> None:
    call = gather()
    stray = values.gather_values([values.key(99, salt)], COUNT, torch.float32, CPU)[0]
    assert call.origin(call.with_chunk(0, stray), past=(1,)) is None


def test_poison_has_no_origin() -> None:
    call, found = gather(), gather().expected.clone()
    values.poison(found[10:20])
    assert call.origin(found, past=(1,)) is None


@pytest.mark.parametrize(("count", "is_named"), [(1, False), (2, True)])
def test_one_element_may_be_chance_and_two_words_are_not(count: int, is_named: bool) -> None:
    call = gather()
    assert (call.origin(call.with_chunk(0, call.inputs[2][:count])) is not None) is is_named


# a reduction


REDUCED: dict[str, tuple[Callable[[Judged], torch.Tensor], Origin]] = {
    "one rank is missing": (lambda call: call.chunk()[[0, 1]].sum(dim=0), Origin("without", (2,))),
    "one rank alone": (lambda call: call.chunk()[2], Origin("input", (2,))),
    "one rank counts twice": (lambda call: call.chunk()[[0, 1, 2, 2]].sum(dim=0), Origin("twice", (2,))),
    "another rank's result": (lambda call: call.chunk(0).sum(dim=0), Origin("result", (0,), shift=-COUNT)),
}


@pytest.mark.parametrize("what", REDUCED)
def test_a_wrong_sum_is_named(what: str) -> None:
    make, origin = REDUCED[what]
    call = reduction()
    found = call.origin(make(call))
    assert found is not None
    assert (found.kind, found.ranks, found.shift) == (origin.kind, origin.ranks, origin.shift)
    assert found.matched == found.wrong > 30


@pytest.mark.parametrize(("other", "past"), [(1, (1,)), (3, ())], ids=["earlier", "later"])
def test_a_sum_with_one_rank_of_another_step_is_named(other: int, past: tuple[int, ...]) -> None:
    call = reduction()
    parts = call.chunk().clone()
    parts[2] = reduction(other).chunk()[2]
    found = call.origin(parts.sum(dim=0), past)
    assert found is not None
    assert (found.kind, found.ranks, found.step) == ("mixed", (2,), other)


@pytest.mark.parametrize("salt", range(20))
def test_sums_from_nowhere_have_no_origin(salt: int) -> None:
    call = reduction()
    stray = values.reduce_values(
        [values.key(99, salt, rank) for rank in GROUP], COUNT, torch.float32, "sum", False, CPU
    )
    assert call.origin(stray.sum(dim=0), past=(1,)) is None


@pytest.mark.parametrize(("count", "is_named"), [(9, False), (30, True)])
def test_a_few_elements_of_a_sum_may_be_chance(count: int, is_named: bool) -> None:
    call = reduction()
    found = call.expected.clone()
    found[:count] = call.chunk()[[0, 1], :count].sum(dim=0)
    assert (call.origin(found) is not None) is is_named


def test_an_average_without_a_rank_is_named() -> None:
    """A rank that is alone leaves a zero of either sign."""
    steps = Allocate("a", "tp", 2 * COUNT), ReduceScatter("tp", View("a"), COUNT, op="avg")
    call = Judged(Scenario(PAIR, steps, seed=5), 1, (0, 1))
    found = call.origin(call.chunk()[1] / 2)
    assert found is not None
    assert (found.kind, found.ranks, found.matched) == ("without", (0,), found.wrong)


def test_an_average_over_three_has_no_origin() -> None:
    """Elements that are right within its bound differ in their bits too."""
    steps = Allocate("a", "tp", 3 * COUNT), ReduceScatter("tp", View("a"), COUNT, op="avg")
    call = Judged(Scenario(TOPOLOGY, steps, seed=5), 1)
    assert call.origin(call.chunk()[[0, 1]].sum(dim=0) / 3) is None


def test_a_minimum_in_place_of_a_maximum_has_no_origin() -> None:
    """Half of two ranks' minima are the input of the one, the others that of the other."""
    steps = Allocate("a", "tp", 2 * 400), ReduceScatter("tp", View("a"), 400, op="max")
    call = Judged(Scenario(PAIR, steps, seed=5), 1, (0, 1))
    assert call.origin(call.inputs[:, 400:800].amin(dim=0)) is None


def test_a_maximum_without_a_rank_is_named_where_enough_of_it_is_wrong() -> None:
    """Of a maximum, little changes without one rank."""
    steps = Allocate("a", "tp", 3 * 400), ReduceScatter("tp", View("a"), 400, op="max")
    call = Judged(Scenario(TOPOLOGY, steps, seed=5), 1)
    rest = call.inputs[[0, 1], 400:800].amax(dim=0)
    found = call.origin(rest)
    assert found is not None
    assert (found.kind, found.ranks, found.matched) == ("without", (2,), found.wrong)
    found = call.origin(torch.cat([rest[:40], call.expected[40:]]))
    assert found is None


def test_a_mismatch_keeps_what_it_says_itself() -> None:
    call = gather()
    found = call.with_chunk(2, call.inputs[0])
    mismatch = call.exact.compare("a", found, call.expected)
    assert isinstance(mismatch, Mismatch)
    assert mismatch.origin is None


# how sure wrong values are


def test_zeros_tell_less_than_other_values() -> None:
    zeros, others = torch.zeros(4, dtype=torch.int32), torch.arange(100, 104, dtype=torch.int32)
    for op in (None, "sum"):
        assert information(zeros, torch.float32, op, 4, wide=False) < information(others, torch.float32, op, 4, False)


@pytest.mark.parametrize(
    ("op", "wide", "told"), [(None, False, 60), ("sum", False, 16), ("sum", True, 4), ("max", False, 4)], ids=str
)
def test_values_tell_what_chance_can_do(op: str | None, wide: bool, told: int) -> None:
    found = torch.arange(100, 104, dtype=torch.int16)
    assert information(found, torch.bfloat16, op, 4, wide) == told
