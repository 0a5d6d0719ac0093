"""What a campaign did, counted: draws, what their traces show, and never what is run to shrink."""

from __future__ import annotations

from harness.campaign.tally import Tally
from harness.oracle.findings import Leak
from harness.oracle.judge import Verdict
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.events import Began, Placed, Ran, Registered, SegmentAllocated
from harness.trace.trace import Trace
from tests.tools.campaigns import RIGHT

EVENTS = (SegmentAllocated(0, "tp", 4096, 512), Registered(0, 0, 0, 4096, 512, False), Ran("symmetric", "sim"))
CLEAN = Verdict([])


def drawn(*traces: tuple[Ran | Registered | SegmentAllocated, ...]) -> Draw:
    return Draw(RIGHT, tuple(Trace(rank, events) for rank, events in enumerate(traces)), (), 1.0, 20.0)


def test_what_every_rank_did_is_counted() -> None:
    tally = Tally()
    tally.count(drawn(EVENTS, EVENTS), CLEAN, 0.5, is_expected=False)
    assert (tally.draws, tally.collectives, tally.windows) == (1, 2, 2)


def test_a_collective_whose_path_nothing_shows_is_unseen() -> None:
    tally = Tally()
    tally.count(drawn((Ran("unknown", "none"), Ran("legacy", "sim"))), CLEAN, 0.5, is_expected=False)
    assert (tally.collectives, tally.unseen, tally.seen) == (2, 1, 1)


def test_a_collective_whose_path_nccl_chose_is_counted_as_free() -> None:
    tally = Tally()
    ran = Ran("legacy", "the log", is_free=True), Ran("symmetric", "the log", is_free=True), Ran("copy", "one rank")
    tally.count(drawn(ran), CLEAN, 0.5, is_expected=False)
    assert (tally.collectives, tally.free, tally.unseen, tally.seen) == (3, 2, 0, 0)


def test_calls_that_a_plug_in_refused_are_counted_apart() -> None:
    steps = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4, via="kernel"))
    scenario = Scenario(Topology("two", "sglang", {"tp": 2}), steps)
    tally = Tally()
    for ran in (Ran("symmetric", "sim", is_unsupported=True), Ran("legacy", "sim"), Ran("kernel", "sim")):
        draw = Draw(scenario, (Trace(0, (Began(1), ran)),), (), 1.0, 20.0)
        tally.count(draw, CLEAN, 0.5, is_expected=False)
    assert (tally.by_kernel, tally.fell_back, tally.unsupported, tally.kernel_calls) == (1, 1, 1, 3)


def test_a_call_of_unequal_sizes_shows_no_path_that_is_judged() -> None:
    topology = Topology("two", "sglang", {"tp": 2})
    steps = (Allocate("a", "tp", 8), AllGather("tp", View("a"), (3, 5)), AllGather("tp", View("a"), 4))
    for step, seen in ((1, 0), (2, 1)):
        tally, trace = Tally(), Trace(0, (Began(step), Ran("legacy", "shown")))
        tally.count(Draw(Scenario(topology, steps), (trace,), (), 1.0, 20.0), CLEAN, 0.5, is_expected=False)
        assert tally.seen == seen


def test_a_call_on_a_buffer_that_the_policy_declined_shows_no_path_that_is_judged() -> None:
    steps = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4))
    scenario = Scenario(Topology("two", "sglang", {"tp": 2}), steps)
    for is_declined, seen in ((True, 0), (False, 1)):
        placed = Placed("a", -1, 4096, 64, is_declined=is_declined)
        tally, trace = Tally(), Trace(0, (Began(0), placed, Began(1), Ran("legacy", "shown")))
        tally.count(Draw(scenario, (trace,), (), 1.0, 20.0), CLEAN, 0.5, is_expected=False)
        assert tally.seen == seen


def test_calls_that_a_kernel_ran_and_those_that_fell_back_are_counted_apart() -> None:
    steps = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4, via="kernel"), AllGather("tp", View("a"), 4))
    scenario = Scenario(Topology("two", "sglang", {"tp": 2}), steps)
    for path, counts in (("kernel", (1, 0)), ("legacy", (0, 1)), ("symmetric", (0, 1)), ("copy", (0, 0))):
        tally = Tally()
        trace = Trace(0, (Began(1), Ran(path, "shown"), Began(2), Ran("legacy", "shown")))
        tally.count(Draw(scenario, (trace,), (), 1.0, 20.0), CLEAN, 0.5, is_expected=False)
        assert (tally.by_kernel, tally.fell_back) == counts


def test_the_most_that_one_rank_held_stays() -> None:
    tally = Tally()
    for size in (64, 512, 128):
        tally.count(drawn((SegmentAllocated(0, "tp", 4096, size),)), CLEAN, 0.5, is_expected=False)
    assert tally.held == 512


def test_the_same_layout_counts_once() -> None:
    tally = Tally()
    for _ in range(2):
        tally.count(drawn(EVENTS), CLEAN, 0.5, is_expected=False)
    assert (tally.draws, len(tally.layouts), len(tally.groups)) == (2, 1, 1)


def test_an_expected_finding_is_counted_by_its_rule() -> None:
    tally = Tally()
    for is_expected in (True, False):
        verdict = Verdict([Leak("shown", step=0, ranks=(0,))])
        tally.count(drawn(EVENTS), verdict, 0.5, is_expected=is_expected)
    assert tally.expected == {"leak": 1}


def test_the_rate_is_that_of_drawing() -> None:
    tally = Tally(shrinking=100)
    assert tally.draws_per_second == 0
    tally.count(drawn(EVENTS), CLEAN, 0.5, is_expected=False)
    assert tally.draws_per_second == 2
