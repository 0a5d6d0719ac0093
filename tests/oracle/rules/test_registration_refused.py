"""Registrations that fail on one rank, that cover a part of a segment, or that lack the symmetric flag."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Refuse, Step
from harness.trace.events import Ran, Registered, RegistrationFailed, Unregistrable
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, first, rules, unsaid
from tests.tools.scenes import scenario as scene

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
BEHIND = (Allocate("front", "tp", 1024), Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
"""`a` lies more than 4096 bytes behind its segment's start."""
SWALLOWS = "harness.system.planted.pools:SwallowsRefusals"


def scenario(*steps: Step, pool: str) -> Scenario:
    return scene(*steps, pool=f"tests.tools.planted.registers:{pool}")


# one rank cannot register


def test_a_refusal_that_a_policy_swallows_is_registration_skew_and_hang(ranks: World) -> None:
    found = findings(ranks, scene(Refuse(1), *GATHER, pool=SWALLOWS))
    assert [rules(found)[0], rules(found)[-1]] == ["registration-skew", "hang"]
    assert (found[0].step, found[0].ranks) == (1, (0, 1))
    counts = "entered different numbers of registrations: rank 0: 1, rank 1: 0"
    refusal = "could not register segment 1 with tp[0,1] at step 1 (allocate) (ncclUnhandledCudaError: the memory"
    assert unsaid(found[0], counts, f"Rank 1 {refusal}") == []
    hang = first(found, "hang")
    assert unsaid(hang, f"rank 1 {refusal}", "while rank 0 waits in register of tp[0,1]") == []


def test_a_refusal_that_a_policy_lets_pass_is_raised_there_and_no_skew(ranks: World) -> None:
    found = findings(ranks, scene(Refuse(1), *GATHER, pool="per-group"))
    assert rules(found) == ["raised"]
    said = (
        "RegistrationError: ncclUnhandledCudaError: the memory of segment 1 was refused in _register_all (per_group.py"
    )
    assert unsaid(found[0], said, "on rank 1 at step 1 (allocate)") == []


def test_without_a_refusal_the_same_policy_is_sound(ranks: World) -> None:
    assert findings(ranks, scene(*GATHER, pool=SWALLOWS)) == []


def test_a_refusal_breaks_the_groups_of_its_rank_alone(ranks: World) -> None:
    steps = Refuse(3), Allocate("a", "cp", 256), AllGather("cp", View("a"), 100)
    found = findings(ranks, scene(*steps, topology=SQUARE, pool=SWALLOWS))
    assert {rank for finding in found for rank in finding.ranks if finding.rule == "registration-skew"} == {1, 3}


def test_what_was_refused_and_what_failed_are_in_the_trace(ranks: World) -> None:
    draw = ranks.run(scene(Refuse(1), *GATHER, pool=SWALLOWS))
    (failed,) = (event for event in draw.traces[1].events if isinstance(event, RegistrationFailed))
    assert (failed.segment, failed.error) == (1, "ncclUnhandledCudaError: the memory of segment 1 was refused")
    assert Unregistrable(1) in draw.traces[1].events
    assert not any(isinstance(event, RegistrationFailed | Unregistrable) for event in draw.traces[0].events)


def test_a_window_that_starts_off_a_page_fails_on_its_rank_alone(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="SwallowsMisalignment"))
    assert rules(found)[0] == "registration-skew"
    assert unsaid(found[0], "(ncclInvalidArgument: byte 512 of segment 1 is no multiple of 4096)") == []
    assert rules(findings(ranks, scenario(*GATHER, pool="Misaligned"))) == ["raised"]


# a part of a segment


@pytest.mark.parametrize("pool", ["FirstHalf", "PartsApart"])
@pytest.mark.parametrize("via", ["library", "kernel"])
def test_a_buffer_inside_the_part_that_was_registered_is_owned(ranks: World, pool: str, via: str) -> None:
    steps = (*BEHIND[:2], AllGather("tp", View("a"), 100, via=via))  # type: ignore[arg-type]
    played = scenario(*steps, pool=pool)
    assert findings(ranks, played) == []
    paths = {event.path for trace in ranks.run(played).traces for event in trace.events if isinstance(event, Ran)}
    assert paths == {"kernel" if via == "kernel" else "symmetric"}


def test_the_trace_has_the_range_that_was_registered(ranks: World) -> None:
    for trace in ranks.run(scenario(*GATHER, pool="SecondPart")).traces:
        (event,) = (event for event in trace.events if isinstance(event, Registered))
        assert (event.size, event.address % (2 << 20)) == (1 << 20, 4096)


def test_a_buffer_that_reaches_past_the_part_is_partly_registered(ranks: World) -> None:
    steps = Allocate("a", "tp", 2048), AllGather("tp", View("a"), 1024)
    assert rules(findings(ranks, scenario(*steps, pool="ShortPart"))) == ["partly-registered"]


def test_a_buffer_in_front_of_the_part_is_unregistered(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="SecondPart"))
    assert rules(found) == ["unregistered"]
    assert unsaid(found[0], "finds no window there: the one registered with tp[0,1]", "bytes 4096 to") == []
    assert findings(ranks, scenario(*BEHIND, pool="SecondPart")) == []


# the flag


def test_a_window_without_the_symmetric_flag_owns_nothing(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="WithoutFlag"))
    assert rules(found) == ["unregistered"]
    said = "lies in the window that was registered with tp[0,1] at step 0 (allocate) without the symmetric flag"
    assert unsaid(found[0], said, "the call took the legacy path") == []


def test_a_kernel_that_goes_by_peer_pointers_needs_no_flag(ranks: World) -> None:
    steps = (GATHER[0], AllGather("tp", View("a"), 100, via="kernel"))
    assert findings(ranks, scenario(*steps, pool="WithoutFlag")) == []
