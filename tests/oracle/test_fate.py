"""Fate: a rank that dies, and ranks that wait for ever, are found with the place where each one stood."""

from __future__ import annotations

import pytest

from harness.program import AllGather, Allocate, Deny, ReduceScatter, View
from harness.world import World
from tests.oracle.scenes import SQUARE, findings, rules, scenario, unsaid

TWICE = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100), Allocate("b", "tp", 256))
BY_KERNEL = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100, via="kernel"))
SCATTER = (
    Allocate("whole", "tp", 512, dtype="bfloat16"),
    Allocate("part", "tp", 128, dtype="bfloat16"),
    ReduceScatter("tp", View("whole"), 100, View("part"), via="kernel"),
)

# rank-crash


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("Dies", "was killed by signal 11 (SIGSEGV)"),
        ("WritesToNull", "was killed by signal 11 (SIGSEGV)"),
        ("Exits", "exited with status 3"),
    ],
)
def test_a_rank_that_dies_in_its_pool_is_a_crash_at_that_step(ranks: World, pool: str, how: str) -> None:
    found = findings(ranks, scenario(*TWICE, pool=pool))
    assert rules(found) == ["rank-crash"]
    assert (found[0].step, found[0].ranks) == (2, (0,))
    assert unsaid(found[0], "rank 0", how, "step 2 (allocate)") == []


def test_a_rank_that_dies_in_a_kernel_is_a_crash_in_its_collective(ranks: World) -> None:
    found = findings(ranks, scenario(*BY_KERNEL, kernels="CrashesInKernel"))
    assert rules(found) == ["rank-crash"]
    assert found[0].ranks == (1,)
    assert unsaid(found[0], "rank 1", "SIGSEGV", "step 1 (all_gather)", "all_gather kernel of tp[0,1]") == []


def test_ranks_that_live_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TWICE)) == []


def test_the_draw_after_a_crash_is_silent(ranks: World) -> None:
    ranks.run(scenario(*TWICE, pool="Dies"))
    assert findings(ranks, scenario(*TWICE)) == []


# hang


def test_a_rank_that_skips_the_last_barrier_of_a_kernel_hangs_the_others(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, topology=SQUARE, kernels="LeavesEarly"))
    assert rules(found) == ["hang"]
    assert found[0].step == 2
    where = "ranks 0–2 ", "step 2 (reduce_scatter)", "reduce_scatter kernel of tp[0,1,2,3]"
    assert unsaid(found[0], "ranks 0–3 made no progress", *where, "rank 3 ", "the end") == []


def test_a_kernel_whose_barriers_every_rank_enters_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*SCATTER, topology=SQUARE)) == []


def test_a_rank_that_skips_a_collective_hangs_the_others(ranks: World) -> None:
    """Its own output is wrong, which is seen before anyone waits."""
    found = findings(ranks, scenario(*BY_KERNEL, kernels="SkipsACall"))
    assert rules(found) == ["wrong-data", "hang"]
    assert found[0].ranks == (1,)
    assert unsaid(found[1], "rank 0 ", "step 1 (all_gather)", "all_gather kernel of tp[0,1]") == []


def test_a_collective_that_every_rank_enters_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*BY_KERNEL)) == []


def test_a_rank_refused_its_segment_hangs_the_others(ranks: World) -> None:
    """Registration-skew comes first: the rank never came to the registration that the others wait in."""
    found = findings(ranks, scenario(TWICE[0], Deny(1), Allocate("large", "tp", 1 << 19), pool="per-group"))
    assert rules(found) == ["registration-skew", "hang"]
    assert unsaid(found[1], "rank 0 ", "step 2 (allocate)", "register of tp[0,1]", "rank 1 ") == []


def test_a_refusal_that_no_rank_meets_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(TWICE[0], Deny(1), Allocate("small", "tp", 256), pool="per-group")) == []


def test_a_hang_after_a_refusal_names_the_buffer_that_was_not_allocated(ranks: World) -> None:
    """The pool registers nothing, so that the refusal alone keeps rank 1 from the collective."""
    found = findings(ranks, scenario(Deny(1), *TWICE[:2], pool="NeverRegisters"))
    assert rules(found) == ["unregistered", "hang"]
    assert unsaid(found[1], "rank 0 ", "step 2 (all_gather)", "all_gather of tp[0,1]") == []
    assert unsaid(found[1], "'a'") == []


def test_a_rank_that_never_returns_hangs_when_time_is_up(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 2.5)
    found = findings(ranks, scenario(*TWICE, pool="Sleeps"))
    assert rules(found) == ["hang"]
    assert unsaid(found[0], "rank 0 ", "step 2 (allocate)") == []


def test_the_draw_after_a_hang_is_silent(ranks: World) -> None:
    ranks.run(scenario(*SCATTER, kernels="LeavesEarly"))
    assert findings(ranks, scenario(*TWICE)) == []
