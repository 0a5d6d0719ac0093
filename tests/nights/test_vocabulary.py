"""The vocabulary: what was drawn, and nothing else, may be drawn again."""

from __future__ import annotations

from harness.nights.vocabulary import Vocabulary
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Ballast, Recreate, SendReceive
from tests.tools.scenes import PAIR, SQUARE, scenario

A = Allocate("a", "tp", 64)


def of(*played: object) -> Vocabulary:
    vocabulary = Vocabulary()
    for each in played:
        vocabulary.take(each)  # type: ignore[arg-type]
    return vocabulary


def test_what_was_not_drawn_is_no_action() -> None:
    before = of(scenario(A, AllGather("tp", View("a"), 8)))
    after = of(scenario(A, AllGather("tp", View("a"), 8)), scenario(A, Recreate("tp")))
    assert {*before.actions} == {"all_gather"}
    assert {*after.actions} == {"all_gather", "recreate"}


def test_calls_that_kernels_cannot_run_say_nothing_of_the_way() -> None:
    kernel = AllGather("tp", View("a"), 8, via="kernel")
    library = AllGather("tp", View("a"), 8)
    send = SendReceive("tp", View("b"), 8, View("a"))
    ways = [of(scenario(A, *calls)).via for calls in ([kernel], [library], [kernel, library], [])]
    assert ways == ["kernel", "library", "mixed", "library"]
    assert of(scenario(A, Allocate("b", "tp", 64), kernel, send)).via == "kernel"


def test_a_buffer_of_some_groups_shows_that_not_every_rank_takes_every_step() -> None:
    part = Allocate("a", "cp", 64, groups=((0, 2),))
    assert of(scenario(A)).is_spmd
    assert not of(scenario(A), scenario(part, topology=SQUARE)).is_spmd


def test_hazards_and_streams_are_those_that_were_drawn() -> None:
    vocabulary = of(scenario(A, Ballast("x", "tp", 0, 64)), scenario(Allocate("a", "tp", 64, stream=2)))
    assert (vocabulary.hazards, vocabulary.streams) == ({"ballast"}, 3)
    assert PAIR.world == 2
