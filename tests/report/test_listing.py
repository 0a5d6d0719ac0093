"""A scenario as people read it."""

from __future__ import annotations

from harness.report.listing import layout, listing
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology

TWO = Topology("two", "sglang", {"tp": 2})
STEPS = (Allocate("a", "tp", 8), AllGather("tp", View("a", 2), 1))


def head(topology: Topology = TWO, system: System | None = None) -> str:
    return next(iter(listing(Scenario(topology, STEPS, system or System(), 7))))


def test_the_first_line_holds_layout_ranks_pool_and_seed() -> None:
    assert head() == "sglang tp=2 · 2 ranks · pool deferred · seed 7"


def test_one_rank_is_singular() -> None:
    assert "· 1 rank ·" in head(Topology("one", "sglang", {"tp": 1}))


def test_nodes_are_named_where_there_are_several() -> None:
    assert "· 2 ranks on 2 nodes ·" in head(Topology("two", "sglang", {"tp": 2}, Placement(2, 1)))


def test_collectives_and_sites_are_named_where_they_are_not_the_default() -> None:
    assert "· collectives mine:Kernel · sites implicit ·" in head(system=System("deferred", "mine:Kernel", "implicit"))


def test_every_step_is_a_line_and_an_arrow_marks_one() -> None:
    _, first, second = listing(Scenario(TWO, STEPS), marked=1)
    assert (first[:4], second[:4]) == ("   0", "→  1")


def test_a_view_is_its_buffer_and_offset() -> None:
    *_, last = listing(Scenario(TWO, STEPS))
    assert "output=a+2 " in last


def test_a_layout_without_degrees_says_so() -> None:
    assert layout(Topology("one", "sglang", {})) == "sglang all degrees 1"
