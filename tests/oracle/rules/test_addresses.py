"""Peer addresses: one that is used after its window is found, with the window's end; so is one past the segment."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter, Release, Step, Trim
from harness.world.world import World
from tests.tools.scenes import findings, first, rules, scenario, unsaid

KEEPS = "harness.system.planted.kernels:KeepsPeerAddresses"
RULE = "stale-peer-address"


def gather(name: str) -> tuple[Step, ...]:
    return Allocate(name, "tp", 256), AllGather("tp", View(name), 100, via="kernel")


def scatter(name: str) -> tuple[Step, ...]:
    return Allocate(name, "tp", 256), ReduceScatter("tp", View(name), 100, via="kernel")


ENDS: dict[str, tuple[Step, ...]] = {
    "The window went with its communicator at step 3 (recreate)": (Release("a"), Recreate("tp")),
    "The window was deregistered at step 3 (trim)": (Release("a"), Trim()),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_write_by_a_kept_address_is_found_with_the_end_of_its_window(ranks: World, end: str) -> None:
    found = first(findings(ranks, scenario(*gather("a"), *ENDS[end], *gather("b"), kernels=KEEPS)), RULE)
    assert (found.step, found.ranks) == (5, (0,))
    claims = ("step 5 (all_gather) on tp[0,1]: rank 0 wrote 0x", "rank 1's memory", "with tp[0,1] at step 0", end)
    assert unsaid(found, *claims) == []


@pytest.mark.parametrize("end", ENDS)
def test_a_read_by_a_kept_address_is_found(ranks: World, end: str) -> None:
    found = first(findings(ranks, scenario(*scatter("a"), *ENDS[end], *scatter("b"), kernels=KEEPS)), RULE)
    assert (found.step, found.ranks) == (5, (0,))
    assert unsaid(found, "rank 0 read, or wrote zeros,", "rank 1's memory", end) == []


def test_it_comes_before_the_wrong_data_that_follows(ranks: World) -> None:
    steps = (*gather("a"), Release("a"), Recreate("tp"), *gather("b"))
    assert rules(findings(ranks, scenario(*steps, kernels=KEEPS))) == [RULE, "wrong-data"]


@pytest.mark.parametrize("end", ENDS)
def test_addresses_that_are_asked_for_at_every_call_are_silent(ranks: World, end: str) -> None:
    steps = (*gather("a"), *scatter("w"), Release("w"), *ENDS[end], *gather("b"), *scatter("c"))
    assert findings(ranks, scenario(*steps)) == []


def test_an_address_that_is_kept_as_long_as_its_window_is_silent(ranks: World) -> None:
    steps = (*gather("a"), AllGather("tp", View("a"), 50, via="kernel"), Release("a"), *gather("b"))
    assert findings(ranks, scenario(*steps, kernels=KEEPS)) == []


def test_a_peer_address_past_the_end_of_the_peers_segment_is_out_of_bounds(ranks: World) -> None:
    found = first(findings(ranks, scenario(*gather("a"), kernels="ReachesTooFar")), "out-of-bounds")
    assert (found.step, found.ranks) == (1, (0,))
    claims = (
        "rank 0 wrote 0x",
        "at byte 2097",
        "of rank 1's segment",
        "registered with tp[0,1] at step 0",
        "ends before",
    )
    assert unsaid(found, *claims) == []


def test_peers_are_mapped_as_far_as_their_segment_goes_where_the_window_is_shorter(ranks: World) -> None:
    steps = (Allocate("a", "tp", 4096), AllGather("tp", View("a"), 2048, via="kernel"))
    assert rules(findings(ranks, scenario(*steps, pool="ShortWindow"))) == ["partly-registered"]
