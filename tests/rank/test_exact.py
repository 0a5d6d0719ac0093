"""Exact data of a collective: every rank's part in it, and where an output differs from it."""

from __future__ import annotations

import pytest
import torch

from harness.rank.exact import ExactData, Span, changed
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Collective, ReduceScatter
from harness.trace.events import Changed, Mismatch

CPU = torch.device("cpu")
GROUP = (4, 2, 7)
KEYS = [11, 12, 13]
GATHER = AllGather("tp", View("a"), 5)
SCATTER = ReduceScatter("tp", View("a"), 5)


def everyone(step: Collective) -> list[ExactData]:
    return [ExactData(step, GROUP, index, CPU) for index in range(len(GROUP))]


def test_every_rank_gathers_the_inputs_of_all_in_group_order() -> None:
    inputs = [each.inputs(KEYS, torch.int32, wide=False) for each in everyone(GATHER)]
    gathered = torch.cat([mine for mine, _ in inputs])
    assert [torch.equal(expected, gathered) for _, expected in inputs] == [True] * 3


def test_every_rank_scatters_its_chunk_of_the_sum() -> None:
    inputs = [each.inputs(KEYS, torch.int32, wide=False) for each in everyone(SCATTER)]
    total = sum(mine for mine, _ in inputs)
    assert torch.equal(torch.cat([expected for _, expected in inputs]), total)


def test_chunks_of_unequal_counts_follow_each_other() -> None:
    counts = tuple({4: 3, 2: 0, 7: 2}.get(rank, 9) for rank in range(8))
    gather = [ExactData(AllGather("tp", View("a"), counts), GROUP, index, CPU) for index in range(3)]
    assert gather[0].spans == gather[2].spans == [Span(0, 3, 0, 0), Span(3, 5, 2, 0)]
    assert [len(each.inputs(KEYS, torch.int32, wide=False)[0]) for each in gather] == [3, 0, 2]


def test_an_exact_output_has_no_mismatch() -> None:
    expected = torch.arange(15, dtype=torch.int32)
    assert everyone(GATHER)[0].compare("a", expected.clone(), expected) is None


@pytest.mark.parametrize(("index", "chunk"), [(0, 0), (4, 0), (5, 1), (14, 2)])
def test_a_mismatch_of_a_gather_names_the_chunk_of_the_first_wrong_element(index: int, chunk: int) -> None:
    expected = torch.zeros(15, dtype=torch.int32)
    output = expected.clone()
    output[index] = 3
    found = everyone(GATHER)[1].compare("a", output, expected)
    assert found == Mismatch("a", 1, 15, index, chunk, "0 (0x00000000)", "3 (0x00000003)")


def test_wrong_elements_that_hold_poison_are_counted_from_the_first_one_on() -> None:
    expected, output = torch.arange(15, dtype=torch.uint8), torch.arange(15, dtype=torch.uint8)
    output[[2, 3, 7]] = 255
    output[9], output[11] = 0, 255
    found = everyone(GATHER)[0].compare("a", output, expected)
    assert found is not None
    assert (found.elements, found.had_poison, found.untouched) == (5, True, 3)


def test_elements_that_the_source_filled_held_no_poison() -> None:
    output = torch.tensor([0, -1, -1], dtype=torch.int32)
    found = everyone(GATHER)[0].compare("a", output, torch.arange(3, dtype=torch.int32), slice(0, 2))
    assert found is not None
    assert (found.had_poison, found.untouched) == (False, 0)


def test_a_mismatch_of_a_scatter_is_in_the_ranks_own_chunk() -> None:
    found = everyone(SCATTER)[2].compare("a", torch.ones(5), torch.zeros(5))
    assert found is not None
    assert (found.elements, found.index, found.chunk) == (5, 0, 2)


def test_floats_are_compared_by_their_bits() -> None:
    """Minus zero equals zero, and NaN equals nothing."""
    gather = everyone(GATHER)[0]
    found = gather.compare("a", torch.tensor([-0.0]), torch.tensor([0.0]))
    assert found is not None
    assert (found.expected, found.found) == ("0.0 (0x00000000)", "-0.0 (0x80000000)")
    nan = torch.tensor([float("nan")])
    assert gather.compare("a", nan, nan.clone()) is None


def test_an_output_that_stays_has_not_changed() -> None:
    assert changed("a", torch.ones(5), torch.ones(5)) is None


def test_an_output_that_changed_shows_the_first_element_before_and_after() -> None:
    before = torch.arange(5, dtype=torch.int32)
    after = before.clone()
    after[2:4] = 9
    assert changed("a", before, after) == Changed("a", 2, 5, 2, "2 (0x00000002)", "9 (0x00000009)")
