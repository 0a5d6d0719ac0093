"""The built-in kernels in CUDA C++ on GPUs: bit for bit, on new random data, eager and in graphs.

Ranks share a GPU where there are fewer GPUs than ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import judge
from harness.oracle.case import Case
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, Recreate, ReduceScatter
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.cuda_calls import MADE

pytest.importorskip("cuda.core", reason="nothing compiles CUDA C++ here: cuda-core is missing")
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
ALLOCATE = Allocate("a", "tp", 64), AllGather("tp", View("a"), 8, via="kernel")


@pytest.fixture(scope="module")
def worlds() -> Iterator[Callable[[int], World]]:
    """The world of so many ranks: one at a time."""
    running: dict[int, World] = {}

    def world(size: int) -> World:
        if size not in running:
            for other in [*running]:
                running.pop(other).close()
            running[size] = World(size, "nccl", deadline=90)
        return running[size]

    yield world
    for each in running.values():
        each.close()


def topology(size: int) -> Topology:
    return Topology(f"tp{size}", "sglang", {"tp": size})


@pytest.mark.parametrize("name", sorted(MADE, key=lambda name: MADE[name][1]))
def test_calls_are_right_to_the_last_bit(worlds: Callable[[int], World], name: str) -> None:
    _, size, _ = MADE[name]
    draw = worlds(size).run(Scenario(topology(size), ALLOCATE, System(f"tests.tools.cuda_calls:{name}")))
    assert [str(finding) for finding in judge(draw)] == []


@pytest.mark.parametrize("size", [2, 4])
def test_programs_go_through_them(worlds: Callable[[int], World], size: int) -> None:
    count = 3000 * size
    calls = (
        AllGather("tp", View("a"), 1000, via="kernel"),
        ReduceScatter("tp", View("a"), 1000, via="kernel"),
        AllReduce("tp", View("a"), count, via="kernel"),
    )
    once = Allocate("a", "tp", count, "bfloat16"), *calls
    again = Recreate("tp"), Allocate("b", "tp", 64), AllGather("tp", View("b"), 8, via="kernel")
    draw = worlds(size).run(Scenario(topology(size), (*once, *again), System(collectives="cuda")))
    paths = {use.ran.path for uses in Case(draw).calls.values() for use in uses if use.ran}
    assert ([str(finding) for finding in judge(draw)], paths) == ([], {"kernel"})


def on_a_rank(worlds: Callable[[int], World], name: str) -> Any:
    (found,) = worlds(1).call(f"tests.tools.launched:{name}")
    return found


class TestOfALaunch:
    def test_a_struct_arrives_by_value(self, worlds: Callable[[int], World]) -> None:
        first, second = [*range(100, 132), -7, -3, 1], [*range(200, 232), 9, 5, 10]
        assert on_a_rank(worlds, "unpacked") == [first, second, first, second]

    def test_an_early_one_starts_before_the_one_ahead_ends_and_sees_what_that_wrote(
        self, worlds: Callable[[int], World]
    ) -> None:
        if not on_a_rank(worlds, "sm_90"):
            pytest.skip("no kernel starts early before sm_90")
        for how, is_early, seen, started in on_a_rank(worlds, "early"):
            assert (how, is_early, seen, started) == (how, is_early, [1, 2, 3], [is_early] * 3)

    def test_it_has_more_shared_memory_than_the_driver_gives_unasked(self, worlds: Callable[[int], World]) -> None:
        assert on_a_rank(worlds, "filled") == [7]

    def test_one_that_the_driver_refuses_names_kernel_grid_and_error(self, worlds: Callable[[int], World]) -> None:
        found = on_a_rank(worlds, "refused")
        assert "'fill' of launched.cu on a grid of (3, 2)" in found
        assert "CUDA_ERROR_INVALID_VALUE" in found

    def test_one_with_other_arguments_is_refused(self, worlds: Callable[[int], World]) -> None:
        assert "[1] bytes" in on_a_rank(worlds, "mistaken")


@pytest.mark.parametrize(("kernels", "rules"), [("Pushes", set()), ("LeavesTheRest", {"wrong-data"})])
def test_the_example_is_right_and_its_mistake_is_found(
    worlds: Callable[[int], World], kernels: str, rules: set[str]
) -> None:
    steps = Allocate("a", "tp", 2048, "bfloat16"), AllGather("tp", View("a"), 1001, via="kernel")
    draw = worlds(2).run(Scenario(topology(2), steps, System(collectives=f"examples.cuda_push:{kernels}")))
    assert {finding.rule for finding in judge(draw)} == rules
