"""The built-in all-to-all with a count for every pair, on GPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world.world import World
from tests.system.test_splits import TABLES, assert_right

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def four() -> Iterator[World]:
    with World(4, "nccl", deadline=60) as world:
        yield world


@pytest.mark.parametrize("kernels", ["triton", "tests.system.test_splits:Staged"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_right_breaks_nothing_and_every_rank_runs_the_kernel(
    four: World, table: tuple[tuple[int, ...], ...], kernels: str
) -> None:
    for dtype in ("float32", "uint8"):
        assert_right(four, table, kernels, dtype)
