"""Collectives whose counts differ inside a group: exact on the legacy path, whoever owns the buffers."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, get_args

import pytest
import torch

from harness import is_vacuous
from harness.ipc.memory import STAGING_BYTES
from harness.oracle.judge import judge
from harness.scenario.operands import FRONT, DType, Elements, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, ProgramError, ReduceScatter, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.trace.draw import Draw
from harness.trace.events import Called, Operand, Placed, Ran
from harness.world.world import World

THREE = Topology(
    "three", "explicit", families_given={"all": ((0, 1, 2),), "near": ((0, 1), (2,)), "turn": ((2, 0, 1),)}
)
TURN = (2, 0, 1)
COUNTS = (5, 3, 9)
"""Of ranks 0, 1 and 2."""
TOTAL = sum(COUNTS)
DTYPES = get_args(DType)
REDUCIBLE = [dtype for dtype in DTYPES if not dtype.startswith("float8")]
W, P = View("w"), View("p")


def window(elements: Elements = TOTAL, dtype: DType = "float32", family: str = "all") -> Allocate:
    return Allocate("w", family, elements, dtype)


def plain(elements: Elements = COUNTS, dtype: DType = "float32") -> Allocate:
    return Allocate("p", "all", elements, dtype, "plain")


def gather(part: View | None = None, counts: Elements = COUNTS, **how: Any) -> AllGather:
    return AllGather("all", W, counts, part, **how)


def scatter(part: View | None = None, counts: Elements = COUNTS, **how: Any) -> ReduceScatter:
    return ReduceScatter("all", W, counts, part, **how)


def run(ranks: World, *steps: Step, pool: str = "per-group") -> Draw:
    return ranks.run(Scenario(THREE, steps, System(pool)))


def ran(draw: Draw) -> list[list[tuple[str, str]]]:
    """Path and evidence of each collective, on each rank."""
    return [[(event.path, event.evidence) for event in trace.events if isinstance(event, Ran)] for trace in draw.traces]


LEGACY = [[("legacy", "simulated look-up")]] * 3
SOUND: tuple[list[Any], list[list[tuple[str, str]]]] = ([], LEGACY)
"""One collective that ran on every rank, and nothing found."""


def outcome(ranks: World, *steps: Step, pool: str = "per-group") -> tuple[list[Any], list[list[tuple[str, str]]]]:
    draw = run(ranks, *steps, pool=pool)
    return judge(draw), ran(draw)


# exact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", [None, P], ids=["in place", "not in place"])
def test_uneven_gather_is_exact_in_every_dtype(ranks: World, dtype: DType, part: View | None) -> None:
    assert outcome(ranks, window(dtype=dtype), plain(dtype=dtype), gather(part)) == SOUND


@pytest.mark.parametrize("dtype", REDUCIBLE)
@pytest.mark.parametrize("op", ["sum", "max"])
@pytest.mark.parametrize("part", [None, P], ids=["in place", "not in place"])
def test_uneven_reduction_is_exact_in_every_dtype(ranks: World, dtype: DType, op: str, part: View | None) -> None:
    assert outcome(ranks, window(dtype=dtype), plain(dtype=dtype), scatter(part, op=op)) == SOUND


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_uneven_mean_of_two_ranks_is_exact(ranks: World, dtype: DType) -> None:
    draw = run(ranks, window(8, dtype, "near"), ReduceScatter("near", W, (5, 3, 8), op="avg"))
    assert (judge(draw), [path for ((path, _),) in ran(draw)]) == ([], ["legacy", "legacy", "copy"])


IDLE = [(0, 3, 9), (5, 0, 9), (5, 3, 0), (0, 0, 9), (5, 0, 0)]
"""Counts with ranks that have nothing."""


@pytest.mark.parametrize("counts", IDLE)
@pytest.mark.parametrize("call", [gather, scatter])
@pytest.mark.parametrize("part", [None, P], ids=["in place", "not in place"])
def test_a_call_is_exact_where_ranks_have_nothing(
    ranks: World, call: Any, part: View | None, counts: tuple[int, ...]
) -> None:
    assert outcome(ranks, window(sum(counts)), plain(counts), call(part, counts)) == SOUND


@pytest.mark.parametrize("seed", [0, 1], ids=["all memory watched", "not watched"])
def test_a_rank_that_has_nothing_makes_its_next_call_on_the_same_buffers(ranks: World, seed: int) -> None:
    steps = window(15), plain(9), gather(P, IDLE[1]), gather(P, 5), scatter(P, IDLE[0]), scatter(P, 5)
    draw = ranks.run(Scenario(THREE, steps, System("per-group"), seed))
    paths = ["legacy", "symmetric", "legacy", "symmetric"]
    assert (judge(draw), [[path for path, _ in each] for each in ran(draw)]) == ([], [paths] * 3)


def test_a_buffer_may_be_empty_on_a_rank_and_serve_it_with_a_window(ranks: World) -> None:
    steps = Allocate("w", "all", (14, 14, 14)), Allocate("p", "all", (5, 0, 9)), gather(P, IDLE[1]), scatter(P, IDLE[1])
    assert judge(ranks.run(Scenario(THREE, steps, System("deferred")))) == []


def test_a_group_without_elements_does_not_act(ranks: World) -> None:
    steps = window(8, family="near"), AllGather("near", W, (5, 3, 0), groups=((0, 1),))
    draw = run(ranks, *steps)
    assert (judge(draw), ran(draw)) == ([], [LEGACY[0], LEGACY[0], []])


LONG = STAGING_BYTES // 4 + 5
"""Elements of float32 that do not fit into the scratch through which ranks reach each other."""


@pytest.mark.parametrize("longest", [0, 1, 2])
@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_is_exact_where_one_rank_has_more_than_fits_into_scratch(
    ranks: World, call: Any, longest: int
) -> None:
    counts = tuple(LONG if rank == longest else 3 for rank in range(3))
    assert outcome(ranks, window(sum(counts)), call(None, counts)) == SOUND


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_is_exact_around_what_fits_into_scratch(ranks: World, call: Any, over: int) -> None:
    """A gather fills the scratch with one rank's part, a reduction with a third of it for each rank."""
    fits = STAGING_BYTES // 4 if call is gather else STAGING_BYTES // 3 // 4
    counts = (fits + over, 3, 2 * fits + over)
    assert outcome(ranks, window(sum(counts)), plain(counts), call(P, counts)) == SOUND


def test_uneven_calls_follow_one_another_on_one_buffer(ranks: World) -> None:
    draw = run(ranks, window(), plain(), gather(P), scatter(P), gather(), scatter())
    assert (judge(draw), ran(draw)) == ([], [LEGACY[0] * 4] * 3)


# the path, ownership and claims


@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_takes_the_legacy_path_over_an_owned_buffer(ranks: World, call: Any) -> None:
    even = run(ranks, window(), call(None, 5))
    uneven = run(ranks, window(), call())
    assert (ran(even), ran(uneven)) == ([[("symmetric", "simulated look-up")]] * 3, LEGACY)


def rules(draw: Draw) -> list[str]:
    return [finding.rule for finding in judge(draw)]


@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_over_a_window_of_another_group_is_silent(ranks: World, call: Any) -> None:
    assert rules(run(ranks, window(family="near"), call(None, 5))) == ["wrong-owner"]
    assert outcome(ranks, window(family="near"), call()) == SOUND


@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_over_no_window_is_silent(ranks: World, call: Any) -> None:
    assert rules(run(ranks, window(), call(None, 5), pool="tests.tools.planted:NeverRegisters")) == ["unregistered"]
    assert outcome(ranks, window(), call(), pool="tests.tools.planted:NeverRegisters") == SOUND


@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_over_a_buffer_at_different_offsets_is_silent(ranks: World, call: Any) -> None:
    shift = Allocate("s", "all", (100, 400, 100))
    assert rules(run(ranks, shift, window(), call(None, 5)))[0] == "offset-mismatch"
    assert outcome(ranks, shift, window(), call()) == SOUND


@pytest.mark.parametrize("call", [gather, scatter])
def test_uneven_call_that_claims_the_symmetric_path_is_slow_path(ranks: World, call: Any) -> None:
    (finding,) = judge(run(ranks, window(), call(claim=True)))
    assert (finding.rule, finding.step, finding.ranks) == ("slow-path", 1, (0, 1, 2))
    assert "claims the symmetric path, which a call of unequal sizes never takes; the call took the legacy path" in (
        str(finding)
    )


def test_even_call_that_claims_the_symmetric_path_is_silent(ranks: World) -> None:
    assert judge(run(ranks, window(), gather(None, 5, claim=True))) == []


def test_counts_that_differ_between_groups_alone_are_even(ranks: World) -> None:
    draw = run(ranks, window(family="near"), AllGather("near", W, (4, 4, 7)))
    paths = [path for ((path, _),) in ran(draw)]
    assert (judge(draw), paths) == ([], ["symmetric", "symmetric", "copy"])


# vacuous draws


def test_a_draw_of_uneven_calls_alone_is_vacuous(ranks: World) -> None:
    assert is_vacuous(run(ranks, window(), plain(), gather(P), scatter()))


def test_a_draw_with_an_even_call_beside_an_uneven_one_is_not_vacuous(ranks: World) -> None:
    assert not is_vacuous(run(ranks, window(), gather(), gather(None, 5)))


# kernels


class OfEqualSizes:
    """A plug-in that does not say `uneven`."""

    def __init__(self) -> None:
        self.all_gather, self.reduce_scatter = TritonCollectives().all_gather, TritonCollectives().reduce_scatter


class ForgetsTheRest(TritonCollectives):
    """Takes every rank's count for that of the first."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.counts = context.counts[:1] * context.size
        super().all_gather(context, output, source)


@pytest.mark.parametrize("call", [gather, scatter])
@pytest.mark.parametrize("counts", [COUNTS, (5, 0, 9), (0, 0, 1)])
def test_kernels_that_say_so_take_counts_that_differ(ranks: World, counts: tuple[int, ...], call: Any) -> None:
    draw = run(ranks, window(), call(counts=counts, via="kernel"))
    assert (judge(draw), [path for ((path, _),) in ran(draw)]) == ([], ["kernel"] * 3)


@pytest.mark.parametrize("call", [gather, scatter])
def test_the_library_takes_them_from_kernels_that_do_not(ranks: World, call: Any) -> None:
    system = System("per-group", f"{__name__}:OfEqualSizes")
    draw = ranks.run(Scenario(THREE, (window(), call(via="kernel")), system))
    assert (judge(draw), [path for ((path, _),) in ran(draw)]) == ([], ["legacy"] * 3)


def test_a_kernel_that_is_wrong_about_counts_is_found(ranks: World) -> None:
    system = System("per-group", f"{__name__}:ForgetsTheRest")
    draw = ranks.run(Scenario(THREE, (window(), gather(via="kernel")), system))
    assert "wrong-data" in [finding.rule for finding in judge(draw)]


def test_the_buffer_of_a_kernel_with_counts_that_differ_is_judged(ranks: World) -> None:
    steps = window(family="near"), gather(via="kernel")
    assert "wrong-owner" in [finding.rule for finding in judge(run(ranks, *steps))]


def test_kernels_run_in_a_group_of_one_rank_too(ranks: World) -> None:
    draw = run(ranks, window(family="near"), AllGather("near", W, (4, 4, 7), via="kernel"))
    assert (judge(draw), [path for ((path, _),) in ran(draw)]) == ([], ["kernel"] * 3)


@pytest.mark.parametrize("call", [gather, scatter])
def test_a_buffer_too_small_for_the_counts_of_all_ranks_is_refused(call: Any) -> None:
    with pytest.raises(ProgramError, match=f"'w' holds {TOTAL - 1} elements behind offset 0 on rank 0, needs {TOTAL}"):
        Scenario(THREE, (window(TOTAL - 1), call()))


# where it reads and writes

OFFSETS = (40, 0, 7)


Place = tuple[str, int, int]
"""A buffer, the first element of a view in it, and how many there are."""


def views(draw: Draw) -> list[tuple[Place, Place]]:
    """For each rank, where source and output of the only call lie."""
    found = []
    for trace in draw.traces:
        base = {event.buffer: event.address for event in trace.events if isinstance(event, Placed)}
        (called,) = [event for event in trace.events if isinstance(event, Called)]
        found.append((place(called.source, base), place(called.output, base)))
    return found


def place(operand: Operand, base: dict[str, int]) -> Place:
    return operand.buffer, (operand.address - base[operand.buffer]) // 4 - FRONT, operand.size // 4


def test_views_with_one_offset_for_each_rank_begin_there(ranks: World) -> None:
    step = AllGather("all", View("w", OFFSETS), COUNTS, View("p", (1, 2, 3)))
    draw = run(ranks, window(100), plain(20), step)
    assert (judge(draw), ran(draw)) == SOUND
    assert views(draw) == [
        (("p", 1, 5), ("w", 40, TOTAL)),
        (("p", 2, 3), ("w", 0, TOTAL)),
        (("p", 3, 9), ("w", 7, TOTAL)),
    ]


def test_reduction_from_one_offset_for_each_rank_writes_to_another(ranks: World) -> None:
    step = ReduceScatter("all", View("w", OFFSETS), COUNTS, View("p", (1, 2, 3)))
    draw = run(ranks, window(100), plain(20), step)
    assert (judge(draw), ran(draw)) == SOUND
    assert views(draw) == [
        (("w", 40, TOTAL), ("p", 1, 5)),
        (("w", 0, TOTAL), ("p", 2, 3)),
        (("w", 7, TOTAL), ("p", 3, 9)),
    ]


def test_parts_in_place_lie_one_behind_the_other(ranks: World) -> None:
    draw = run(ranks, window(100), AllGather("all", View("w", OFFSETS), COUNTS))
    assert (judge(draw), ran(draw)) == SOUND
    assert [source for source, _ in views(draw)] == [("w", 40, 5), ("w", 5, 3), ("w", 7 + 8, 9)]


@pytest.mark.parametrize("kind", [AllGather, ReduceScatter])
def test_parts_in_place_lie_in_the_order_of_the_group(ranks: World, kind: type[Collective]) -> None:
    draw = run(ranks, window(family="turn"), kind("turn", W, COUNTS))
    assert (judge(draw), ran(draw)) == SOUND
    starts = dict(zip(TURN, accumulate((COUNTS[rank] for rank in TURN), initial=0), strict=False))
    parts = [source if kind is AllGather else output for source, output in views(draw)]
    assert parts == [("w", starts[rank], COUNTS[rank]) for rank in range(3)]


def test_even_call_whose_peers_are_reached_through_windows_needs_one_offset() -> None:
    with pytest.raises(ProgramError, match=r"ranks of all\[0, 1, 2\] reach peers at different offsets"):
        Scenario(THREE, (window(100), AllGather("all", View("w", OFFSETS), 5)))


def test_even_call_of_ordinary_memory_may_lie_at_one_offset_for_each_rank(ranks: World) -> None:
    step = AllGather("all", View("p", OFFSETS), 5)
    assert outcome(ranks, plain(100), step) == SOUND


def test_an_offset_for_each_rank_is_held_against_the_buffer_of_that_rank() -> None:
    step = AllGather("all", View("w", (0, 0, 84)), COUNTS)
    with pytest.raises(ProgramError, match="'w' holds 16 elements behind offset 84 on rank 2, needs 17"):
        Scenario(THREE, (window(100), step))


def test_offsets_for_other_numbers_of_ranks_are_refused() -> None:
    with pytest.raises(ProgramError, match="offset lists 2 ranks in a world of 3"):
        Scenario(THREE, (window(100), AllGather("all", View("w", (0, 1)), COUNTS)))
