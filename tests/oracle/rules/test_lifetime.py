"""Lifetime: what is freed under a window and what is left at the end is found."""

from __future__ import annotations

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Release, Trim
from harness.trace.trace import TEARDOWN
from harness.world.world import World
from tests.tools.scenes import findings, first, rules, scenario

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
TRIMMED = (*GATHER, Release("a"), Trim())

# freed-while-registered


def test_a_segment_freed_under_its_window_is_found(ranks: World) -> None:
    """The leak comes with it: nobody closes the window afterwards."""
    found = findings(ranks, scenario(*TRIMMED, pool="ForgetsToDeregister"))
    assert rules(found) == ["freed-while-registered", "leak"]
    assert (found[0].step, found[0].ranks) == (3, (0,))
    assert "was freed at step 3 (trim) while tp[0,1] still had a window over it" in str(found[0])
    assert "registered with tp[0,1] at step 0 (allocate)" in str(found[0])


def test_a_window_that_outlives_its_segment_is_a_leak(ranks: World) -> None:
    leak = first(findings(ranks, scenario(*TRIMMED, pool="ForgetsToDeregister")), "leak")
    assert "there is still window" in str(leak)


def test_a_segment_freed_after_its_window_closed_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TRIMMED)) == []


# leak


def test_a_pool_that_gives_nothing_back_leaks_its_segment_and_window(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="KeepsEverything"))
    assert rules(found) == ["leak"]
    assert (found[0].step, found[0].ranks) == (TEARDOWN, (0,))
    assert "rank 0: after the last buffer was released and the pool closed, there is still segment" in str(found[0])
    assert "of 2097152 bytes in pool '0-1', allocated at step 0 (allocate); window" in str(found[0])
    assert "of 2097152 bytes, registered with tp[0,1] at step 0 (allocate)." in str(found[0])


def test_a_tensor_that_the_pool_keeps_leaks_its_segment(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="KeepsATensor"))
    assert rules(found) == ["leak"]
    assert "there is still segment" in str(found[0])


def test_a_pool_that_gives_everything_back_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER)) == []


def test_a_draw_does_not_inherit_what_the_draw_before_leaked(ranks: World) -> None:
    ranks.run(scenario(*GATHER, pool="KeepsEverything"))
    assert findings(ranks, scenario(*GATHER)) == []
