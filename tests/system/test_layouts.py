"""Tensors in other layouts: gathers along columns, and sources that are not contiguous."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Step
from harness.system.layouts import in_rank_order, rows_of, spread
from harness.world.world import World
from tests.tools.scenes import findings, rules, scenario

PLACE = "tests.tools.planted.layouts"


def gather(count: int, role: str = "plain", in_place: bool = False) -> tuple[Step, ...]:
    made = Allocate("a", "tp", 2 * count), Allocate("b", "tp", count + 2, role=role)  # type: ignore[arg-type]
    return *made, AllGather("tp", View("a"), count, None if in_place else View("b", 1), via="kernel")


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (2, 2), (9, 3), (7, 1), (12, 4)])
def test_the_rows_of_a_matrix_divide_its_elements(count: int, rows: int) -> None:
    assert rows_of(count) == rows


def test_a_gather_along_columns_is_put_in_rank_order() -> None:
    shares = [torch.arange(6) + 10 * rank for rank in range(3)]
    side_by_side = torch.cat([share.view(2, 3) for share in shares], dim=1)
    assert torch.equal(in_rank_order(side_by_side.reshape(-1), 2, 3), torch.cat(shares))


def test_a_spread_source_has_the_same_elements_and_is_not_contiguous() -> None:
    source = torch.arange(5)
    assert (spread(source).tolist(), spread(source).is_contiguous()) == (source.tolist(), False)


@pytest.mark.parametrize("count", [12, 7, 1])
@pytest.mark.parametrize("role", ["window", "plain"])
def test_a_gather_along_columns_is_right(ranks: World, role: str, count: int) -> None:
    for in_place in (False, True):
        assert findings(ranks, scenario(*gather(count, role, in_place), kernels=f"{PLACE}:Along")) == []


@pytest.mark.parametrize(("count", "found"), [(12, ["wrong-data"]), (7, [])])
def test_a_gather_along_columns_that_has_its_shape_alone_is_wrong(ranks: World, count: int, found: list[str]) -> None:
    assert rules(findings(ranks, scenario(*gather(count, "window"), kernels=f"{PLACE}:ForgetsToTurn"))) == found


@pytest.mark.parametrize(("kernels", "found"), [("Strided", []), ("IgnoresStrides", ["wrong-data"])])
def test_a_plug_in_that_takes_strides_gets_a_source_with_gaps(ranks: World, kernels: str, found: list[str]) -> None:
    assert rules(findings(ranks, scenario(*gather(12), kernels=f"{PLACE}:{kernels}"))) == found


@pytest.mark.parametrize(("role", "in_place"), [("window", False), ("plain", True)])
def test_a_source_in_a_window_or_in_the_output_has_no_gaps(ranks: World, role: str, in_place: bool) -> None:
    assert findings(ranks, scenario(*gather(12, role, in_place), kernels=f"{PLACE}:IgnoresStrides")) == []
