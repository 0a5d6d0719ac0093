"""Operands: counts for each rank, and which element types reduce exactly."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.operands import ITEMSIZE, at, divides_exactly, is_averaged, is_summed_exactly


@pytest.mark.parametrize(("rank", "count"), [(0, 5), (1, 7)])
def test_count_of_a_rank_is_its_own_where_they_differ(rank: int, count: int) -> None:
    assert at((5, 7), rank) == count


def test_count_of_a_rank_is_the_one_for_all_where_there_is_one() -> None:
    assert at(5, 7) == 5


def test_every_type_but_eight_bit_floats_is_summed_exactly() -> None:
    assert {dtype for dtype in ITEMSIZE if not is_summed_exactly(dtype)} == {"float8_e4m3fn", "float8_e5m2"}


@pytest.mark.parametrize(("size", "is_exact"), [(1, True), (2, True), (3, False), (6, False), (8, True)])
def test_an_average_of_floats_is_exact_over_powers_of_two(size: int, is_exact: bool) -> None:
    assert divides_exactly("float32", size) == is_exact


def test_an_average_of_integers_is_never_exact() -> None:
    assert not divides_exactly("int32", 2)


def test_every_type_but_integers_is_averaged() -> None:
    assert {dtype for dtype in ITEMSIZE if not is_averaged(dtype)} == {"int8", "uint8", "int32", "int64"}


@pytest.mark.parametrize("dtype", ITEMSIZE)
def test_the_size_of_an_element_is_that_of_torch(dtype: str) -> None:
    assert getattr(torch, dtype).itemsize == ITEMSIZE[dtype]
