"""Refusals that several kinds of steps share: counts for each rank, and buffers that are alive."""

from __future__ import annotations

import pytest

from harness.scenario.alive import Alive
from harness.scenario.layouts.groups import GroupId
from harness.scenario.refusal import Refused, check_one_each, counts, live_buffer
from harness.scenario.steps import Allocate, Release
from harness.scenario.topology import Topology

PAIR = Topology("pair", "sglang", {"tp": 2})


def test_one_count_stands_for_every_rank() -> None:
    assert counts("count", 3, PAIR, PAIR.acting("tp")) == {0: 3, 1: 3}


def test_each_rank_has_its_count() -> None:
    assert counts("count", (3, 0), PAIR, PAIR.acting("tp")) == {0: 3, 1: 0}


def test_a_rank_that_does_not_act_has_none() -> None:
    assert counts("count", (3, -4), PAIR, (GroupId((0,)),)) == {0: 3}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (-3, "count -3 on rank 0 is negative"),
        ((1, -1), "count -1 on rank 1 is negative"),
        ((1,), "count lists 1 ranks in a world of 2"),
    ],
)
def test_counts_that_are_missing_or_negative_are_refused(given: int | tuple[int, ...], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        counts("count", given, PAIR, PAIR.acting("tp"))


def test_one_offset_for_each_rank_may_be_none_at_all() -> None:
    check_one_each("offset", (0, -1), PAIR)  # whether it fits is for its buffer to say


def test_a_live_buffer_is_found_by_name() -> None:
    alive = Alive(PAIR)
    alive.take(Allocate("a", "tp", 8))
    assert live_buffer("a", alive).allocation == Allocate("a", "tp", 8)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [((), "was never allocated"), ((Allocate("a", "tp", 8), Release("a")), "was released")],
    ids=["never allocated", "released"],
)
def test_a_buffer_that_is_not_alive_is_refused_with_what_became_of_it(
    steps: tuple[Allocate | Release, ...], reason: str
) -> None:
    alive = Alive(PAIR)
    for step in steps:
        alive.take(step)
    with pytest.raises(Refused, match=f"buffer 'a' {reason}"):
        live_buffer("a", alive)
