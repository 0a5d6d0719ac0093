"""Sends and receives of which one side is registered: what is lost, and what is not."""

from __future__ import annotations

import pytest
from msgspec import structs

from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllToAll,
    Capture,
    Collective,
    EndCapture,
    InFlight,
    Prepare,
    Release,
    Replay,
    SendReceive,
    Step,
)
from harness.world.world import World
from tests.tools.scenes import APART, explicit, findings, rules, scenario

STAGED, LARGE = 4096, 4097
"""fp32 elements of which a rank sends as many as NCCL stages, and one more."""
OTHER = {"window": "plain", "plain": "window"}


def buffers(output: str, source: str, count: int) -> tuple[Step, ...]:
    return (
        Allocate("o", "tp", 2 * count + 300, role=output),  # type: ignore[arg-type]
        Allocate("s", "tp", 2 * count + 300, role=source),  # type: ignore[arg-type]
    )


def sent(count: int, shift: int = 1) -> Collective:
    return SendReceive("tp", View("o", 1), count, View("s", 64), shift)


def exchanged(count: int) -> Collective:
    return AllToAll("tp", View("o"), source=View("s"), counts=((3, count), (5, 7)))


@pytest.mark.parametrize("make", [sent, exchanged])
@pytest.mark.parametrize("output", ["window", "plain"])
def test_a_send_of_which_one_side_is_registered_is_lost(ranks: World, output: str, make: object) -> None:
    found = findings(ranks, scenario(*buffers(output, OTHER[output], LARGE), make(LARGE)))  # type: ignore[operator]
    assert rules(found) == ["half-registered", "wrong-data"]
    has, lacks = (1, 0) if output == "window" else (0, 1)
    assert f"tp[0,1] finds the memory of rank {has} in a window, and that of rank {lacks} in none" in str(found[0])
    assert "rank 0 sends 16388 bytes of 's' to 'o' of rank 1" in str(found[0])


@pytest.mark.parametrize("make", [sent, exchanged])
@pytest.mark.parametrize(
    ("output", "source", "count"),
    [("window", "window", LARGE), ("plain", "plain", LARGE), ("window", "plain", STAGED), ("plain", "window", STAGED)],
)
def test_a_send_of_which_both_sides_are_alike_or_that_is_staged_arrives(
    ranks: World, output: str, source: str, count: int, make: object
) -> None:
    assert findings(ranks, scenario(*buffers(output, source, count), make(count))) == []  # type: ignore[operator]


def test_a_rank_that_sends_to_itself_loses_nothing(ranks: World) -> None:
    assert findings(ranks, scenario(*buffers("window", "plain", LARGE), sent(LARGE, shift=2))) == []


def test_an_all_to_all_of_nccls_own_asks_each_rank_for_both(ranks: World) -> None:
    call = AllToAll("tp", View("o"), LARGE, View("s"))
    assert findings(ranks, scenario(*buffers("window", "plain", LARGE), call)) == []


def captured(call: Collective, output: str, source: str) -> tuple[Step, ...]:
    """A graph of a large call, behind a small one that warms up, replayed once."""
    warmed = (
        *(Allocate(name, "tp", 2, role=role) for name, role in (("w", output), ("v", source))),  # type: ignore[arg-type]
        AllToAll("tp", View("w"), 1, View("v")),
        *map(Release, ("w", "v")),
    )
    return Prepare("g"), *warmed, Capture("g"), *buffers(output, source, LARGE), call, EndCapture("g"), Replay("g")


EVEN = AllToAll("tp", View("o"), LARGE, View("s"))


@pytest.mark.parametrize("call", [sent(LARGE), exchanged(LARGE), EVEN])
@pytest.mark.parametrize("output", ["window", "plain"])
def test_a_captured_call_cannot_register_ordinary_memory(ranks: World, output: str, call: Collective) -> None:
    found = findings(ranks, scenario(*captured(call, output, OTHER[output])))
    assert {*rules(found)} == {"half-registered", "wrong-data"}
    assert found[0].rule == "half-registered"
    has, lacks = (1, 0) if output == "window" else (0, 1)
    assert f"registers the memory of rank {has}, which NCCL's allocator gave" in str(found[0])
    assert f"and not that of rank {lacks}, which is ordinary memory" in str(found[0])


@pytest.mark.parametrize("call", [sent(LARGE), exchanged(LARGE), EVEN])
@pytest.mark.parametrize("both", ["window", "plain"])
def test_a_captured_call_whose_sides_are_alike_loses_nothing(ranks: World, both: str, call: Collective) -> None:
    assert findings(ranks, scenario(*captured(call, both, both))) == []


@pytest.mark.parametrize(("source", "is_lost"), [("window", False), ("plain", True)])
def test_a_captured_call_registers_memory_of_nccls_allocator_in_no_window(
    ranks: World, source: str, is_lost: bool
) -> None:
    """The pool registers nothing for a family of another name."""
    steps = [
        structs.replace(step, family="ep") if isinstance(step, Allocate | AllToAll) else step
        for step in captured(EVEN, "window", source)
    ]
    topology, pool = explicit(ep=((0, 1),)), "tests.tools.planted.dependent:KnowsTp"
    found = findings(ranks, scenario(*steps, topology=topology, pool=pool))
    assert ("half-registered" in rules(found), "wrong-data" in rules(found)) == (is_lost, is_lost)


def test_a_replay_that_a_peer_never_came_to_lost_nothing(ranks: World) -> None:
    """Rank 1 waits for rank 0, which has ended, while rank 2 waits for rank 1 in the replay."""
    alone = Allocate("a", "cp", 64), *captured(sent(LARGE), "window", "plain"), Allocate("b", "cp", 4 << 20)
    steps = *alone[:-2], alone[-1], AllGather("cp", View("b"), 16), alone[-2]
    topology = explicit(tp=((1, 2),), cp=((0, 1),))
    found = findings(ranks, scenario(*steps, topology=topology, pool="tests.tools.planted.ends:Exits"))
    assert rules(found) == ["rank-crash"]


def test_a_send_in_flight_is_lost_too(ranks: World) -> None:
    steps = *buffers("window", "plain", LARGE), InFlight(), sent(LARGE), InFlight(begins=False)
    assert rules(findings(ranks, scenario(*steps))) == ["half-registered", "wrong-data"]


def test_a_group_without_windows_registers_nothing(ranks: World) -> None:
    assert findings(ranks, scenario(*buffers("window", "plain", LARGE), sent(LARGE), topology=APART)) == []


def test_only_the_pairs_that_send_much_lose_it(ranks: World) -> None:
    topology = explicit(tp=((0, 1, 2),))
    table = ((0, 10, LARGE), (10, 0, 10), (10, 10, 0))
    call = AllToAll("tp", View("o"), source=View("s"), counts=table)
    found = findings(ranks, scenario(*buffers("window", "plain", LARGE), call, topology=topology))
    assert [(each.rule, each.ranks) for each in found] == [("half-registered", (0, 2)), ("wrong-data", (2,))]


LOPSIDED = Allocate("o", "tp", 8494), Allocate("s", "tp", 8495)
"""The pool below declines buffers of an odd number of elements on rank 1."""
ALONE = "tests.tools.planted.declines:DeclinesOddSizesAlone"


def test_a_call_by_copy_engines_sends_nothing(ranks: World) -> None:
    call = AllToAll("tp", View("o"), LARGE, View("s"), via="copy-engine")
    assert findings(ranks, scenario(*LOPSIDED, call, pool=ALONE)) == []


def test_nccls_own_all_to_all_in_place_sends_a_copy(ranks: World) -> None:
    assert findings(ranks, scenario(*LOPSIDED, AllToAll("tp", View("s"), LARGE), pool=ALONE)) == []


def test_an_all_to_all_of_which_one_rank_has_one_side_alone_is_lost(ranks: World) -> None:
    found = findings(ranks, scenario(*LOPSIDED, AllToAll("tp", View("o"), LARGE, View("s")), pool=ALONE))
    assert rules(found) == ["half-registered", "wrong-data"]
    words = "finds the memory of rank 0 in a window over both of its operands, and that of rank 1 in none"
    assert words in str(found[0])
