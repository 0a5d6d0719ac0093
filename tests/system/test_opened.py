"""What a plug-in of collectives has of a communicator: open and close, identity, memory of the harness, a refusal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TypeVar

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, InFlight, Recreate, ReduceScatter, Release, Step, Straggle
from harness.system.collectives import CollectiveContext, NotOwned
from harness.system.opened import Opened
from harness.trace.draw import Draw
from harness.trace.events import Leaked, Provided, Ran
from harness.world.world import World
from tests.tools.one_rank import Rank
from tests.tools.scenes import APART, CROSSED, explicit, findings, first, rules, scenario, unsaid

T = TypeVar("T")
KERNELS, PACKETS = "tests.tools.provided", "examples.protocols:Packets"


@pytest.fixture(scope="module")
def impatient() -> Iterator[World]:
    """Two ranks, for hangs that nothing but the deadline ends."""
    with World(2, "sim", deadline=3) as world:
        yield world


def events(draw: Draw, kind: type[T]) -> list[T]:
    """The events of a kind, rank by rank."""
    return [event for trace in draw.traces for event in trace.events if isinstance(event, kind)]


def calls(name: str, family: str = "tp") -> tuple[Step, ...]:
    buffer = View(name)
    gather = AllGather(family, buffer, 8, via="kernel")
    return (
        Allocate(name, family, 16),
        Straggle(1, 30),  # its peer has to wait for it
        gather,
        gather,
        Straggle(0, 200),
        gather,
        ReduceScatter(family, buffer, 8, via="kernel"),
        Release(name),
    )


TWICE = (*calls("a"), Recreate("tp"), *calls("b"))
ONCE = (Allocate("a", "tp", 16), AllGather("tp", View("a"), 8, via="kernel"))


@pytest.mark.parametrize(
    "kernels", [PACKETS, *(f"{KERNELS}:{name}" for name in ("ByFlags", "AsksInACall", "KeepsBooks"))]
)
def test_right_collectives_in_memory_of_the_harness_are_silent_in_every_draw(ranks: World, kernels: str) -> None:
    played = scenario(*TWICE, kernels=kernels)
    assert [findings(ranks, played) for _ in range(3)] == [[]] * 3


@pytest.mark.parametrize(
    ("kernels", "rule", "claims"),
    [
        (
            "SendsTooFar",
            "out-of-bounds",
            ("8 bytes behind rank 0's workspace of tp[0,1] had changed by step 2", "at byte 131072, where 0x01000000"),
        ),
        ("AssumesZeros", "wrong-data", ()),
        (
            "SendsToBoth",
            "stale-peer-address",
            ("'s workspace of tp[0,1] had", "went with its communicator at step 8 (recreate)"),
        ),
    ],
)
def test_a_planted_fault_is_found(ranks: World, kernels: str, rule: str, claims: tuple[str, ...]) -> None:
    found = findings(ranks, scenario(*TWICE, kernels=f"{KERNELS}:{kernels}"))
    assert unsaid(first(found, rule), *claims) == []


def test_packets_to_a_workspace_of_the_last_communicator_never_come(impatient: World) -> None:
    found = findings(impatient, scenario(*TWICE, kernels=f"{KERNELS}:KeepsItsWorkspace"))
    assert (rules(found), found[0].step) == (["hang"], 11)


# open and close


def test_what_no_call_goes_to_is_not_opened(ranks: World) -> None:
    """It would stay in open."""
    played = scenario(Allocate("a", "tp", 16), AllGather("tp", View("a"), 8), kernels=f"{KERNELS}:StaysInOpen")
    assert findings(ranks, played) == []


def test_every_communicator_is_opened_and_closed_by_itself(ranks: World) -> None:
    steps = *calls("a"), *calls("b", "cp"), Recreate("cp"), *calls("c", "cp"), *calls("d")
    assert findings(ranks, scenario(*steps, topology=CROSSED, kernels=f"{KERNELS}:KeepsBooks")) == []


class Notes:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Hashable]] = []

    def open(self, context: CollectiveContext) -> None:
        self.calls.append(("open", context.identity))

    def close(self, context: CollectiveContext) -> None:
        self.calls.append(("close", context.identity))


def test_what_was_opened_last_is_closed_first(rank: Rank) -> None:
    notes, communicators = Notes(), [rank.communicator() for _ in range(3)]
    for generation, communicator in enumerate(communicators):
        communicator.generation = generation
    opened, (first, second, third) = Opened(notes), communicators
    for communicator in (first, second, first, third):
        assert opened.open(communicator) is None
    opened.close([second])
    opened.close()
    opened.close()
    expected = [("open", each.identity) for each in communicators]
    assert notes.calls == expected + [("close", each.identity) for each in (second, third, first)]


def test_nothing_is_opened_in_a_capture(rank: Rank) -> None:
    notes, communicator = Notes(), rank.communicator()
    opened = Opened(notes)
    with rank.substrate.device.capture():
        assert opened.open(communicator) is NotOwned
    assert notes.calls == []
    assert opened.open(communicator) is None
    assert notes.calls == [("open", communicator.identity)]


def test_a_hang_in_open_names_it(impatient: World) -> None:
    hang = first(findings(impatient, scenario(*ONCE, kernels=f"{KERNELS}:StaysInOpen")), "hang")
    assert unsaid(hang, "in open of tp[0,1]") == []


@pytest.mark.parametrize(
    ("kernels", "claims"),
    [
        (
            "AsksForUnlikeSizes",
            (
                "raised ValueError: ranks of a group have to ask for the same, and asked for workspace of 64 bytes on",
                "rank 0 and workspace of 65 bytes on rank 1 in open (provided.py:",
            ),
        ),
        ("RaisesInClose", ("raised ValueError: it cannot be closed in close (provided.py:", "in close of tp[0,1]")),
    ],
)
def test_an_error_names_the_method(ranks: World, kernels: str, claims: tuple[str, ...]) -> None:
    raised = first(findings(ranks, scenario(*ONCE, kernels=f"{KERNELS}:{kernels}")), "raised")
    assert unsaid(raised, *claims) == []


# memory


def in_flight(kernels: str) -> tuple[Step, ...]:
    allocate, gather = ONCE
    return allocate, InFlight(begins=True), gather, gather, InFlight(begins=False)


@pytest.mark.parametrize("kernels", [PACKETS, f"{KERNELS}:ByFlags"])
def test_a_first_call_in_flight_is_opened_while_nothing_is(ranks: World, kernels: str) -> None:
    assert findings(ranks, scenario(*in_flight(kernels), kernels=kernels)) == []


def test_a_rank_that_opens_alone_in_flight_does_not_wait_for_its_peers(impatient: World) -> None:
    """Its peer waits on the host meanwhile, with its own part of the call before in flight."""
    topology = explicit(tp=((0, 1),), cp=((1, 0),), alone=((0,), (1,)))
    allocate, gather = ONCE
    own = Allocate("b", "alone", 16), AllGather("alone", View("b"), 8, via="kernel", groups=((0,),))
    steps = allocate, gather, InFlight(begins=True), gather, *own, Allocate("c", "cp", 16), InFlight(begins=False)
    assert findings(impatient, scenario(*steps, topology=topology, pool="deferred", kernels=PACKETS)) == []


def test_memory_cannot_be_made_in_flight(ranks: World) -> None:
    raised = findings(ranks, scenario(*in_flight("AsksInACall"), kernels=f"{KERNELS}:AsksInACall"))
    said = "workspace of 512 bytes cannot be made while calls are in flight: ask for it in open(context)"
    assert unsaid(first(raised, "raised"), said) == []


def test_memory_of_the_harness_is_made_once_for_each_communicator_and_is_no_leak(ranks: World) -> None:
    draw = ranks.run(scenario(*TWICE, kernels=f"{KERNELS}:ByFlags"))
    assert [event.what for event in events(draw, Provided)] == ["flags"] * 4
    assert not [*events(draw, Leaked)]


# a refusal


def test_what_all_ranks_refuse_the_library_runs(ranks: World) -> None:
    draw = ranks.run(scenario(*ONCE, kernels=f"{KERNELS}:RefusesAll"))
    assert [(event.path, event.is_unsupported) for event in events(draw, Ran)] == [("symmetric", True)] * 2


def test_what_one_rank_refuses_hangs(impatient: World) -> None:
    hang = first(findings(impatient, scenario(*ONCE, kernels=f"{KERNELS}:RefusesAlone")), "hang")
    assert unsaid(hang, "rank 0", "in all_gather of tp[0,1]") == []


def test_where_kernels_cannot_reach_their_peers_open_falls_back(ranks: World) -> None:
    played = scenario(*TWICE, topology=APART, kernels=PACKETS)
    assert findings(ranks, played) == []
    assert {event.path for event in events(ranks.run(played), Ran)} == {"legacy"}
