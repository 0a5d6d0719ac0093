"""The built-in all-to-all with a count for every pair, on GPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world.world import World
from tests.system.test_splits import TABLES, moved, paths
from tests.tools.scenes import SQUARE, findings, scenario

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
        steps = moved(table, dtype)
        assert findings(four, scenario(*steps, topology=SQUARE, pool="deferred", kernels=kernels)) == []
        assert paths(four, *steps, kernels=kernels) == [{"kernel"}] * 4
