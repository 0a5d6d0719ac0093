"""The verdict matrix: which cells there are, and what a cell is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.scenario.system import POOLS
from harness.scenario.topology import Placement, Topology
from harness.strategies.flows import applies
from harness.studies import matrix
from harness.world.world import World


def test_configurations_are_by_default_those_of_the_report() -> None:
    found = matrix.configurations()
    assert [topology.name for topology in found if applies("all", topology)] == [*matrix.KEY_CONFIGURATIONS]
    assert {name.split("-")[0] for name in matrix.KEY_CONFIGURATIONS} == {"deepseek", "qwen3"}


def test_tokens_differ_only_where_there_are_two_attention_dp_ranks() -> None:
    every = matrix.cells(matrix.configurations(), POOLS)
    assert {topology.name for topology, _, _, tokens in every if tokens == "padded"} - {
        topology.name for topology, _, _, tokens in every if tokens == "uneven"
    } == {"qwen3-32b-tp4"}


def test_one_topology_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="deepseek-r1-tp8-dpa8"):
        matrix.cells(matrix.configurations()[:1] * 2, POOLS)


def test_a_cell_in_which_nothing_was_tested_is_not_called_clean(tmp_path: Path) -> None:
    apart = Topology("apart", "sglang", {"tp": 2}, Placement(2, 1))
    with World(2, "sim") as world:
        (cell,) = matrix.run(world, [(apart, "explicit", "deferred", "padded")], 3, 1.0, tmp_path)
    assert (cell.draws, cell.tested, cell.found) == (3, 0, ())


def test_cells_can_be_narrowed() -> None:
    chosen = matrix.cells(matrix.configurations()[:1], POOLS, sites=("explicit",), tokens=("uneven",))
    assert [each[1:] for each in chosen] == [("explicit", pool, "uneven") for pool in POOLS]


def test_narrowing_to_no_cell_names_the_topology() -> None:
    with pytest.raises(UsageError, match="qwen3-32b-tp4 has one"):
        matrix.cells(matrix.configurations()[-1:], POOLS, tokens=("uneven",))


def test_a_pool_given_twice_is_judged_once() -> None:
    assert len(matrix.cells(matrix.configurations()[:1], ("deferred", "deferred"))) == 4


def test_a_topology_without_communication_is_refused() -> None:
    with pytest.raises(UsageError, match="'alone'"):
        matrix.cells([Topology("alone", "sglang", {"tp": 1, "pp": 2})], POOLS)
