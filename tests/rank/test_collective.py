"""A collective on one rank: what surrounds the call that the library or a kernel makes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from msgspec import structs

from harness.ipc.memory import SharedMemory
from harness.rank.buffers import LiveBuffers
from harness.rank.collective import Call
from harness.rank.exact import ExactData
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import GUARD, View
from harness.scenario.steps import AllGather, Collective, ReduceScatter
from harness.substrate.bits import bits
from harness.substrate.sim.substrate import SimSubstrate
from harness.system.context import ProcessGroup
from harness.trace.events import Called, Changed, Entered, Event, Lost, Mismatch, Operand, Overwritten, Ran
from tests.tools.one_rank import Rank

ROOM, COUNT = 100, 40
KEYS = [17]
GATHER = AllGather("tp", View("a", 10), COUNT, View("b"))
SCATTER = ReduceScatter("tp", View("a", 10), COUNT, View("b", 20))


@pytest.fixture
def buffers(alone: Rank) -> LiveBuffers:
    live = LiveBuffers(alone.substrate)
    for name in "ab":
        live.place(name, ROOM + GUARD, GroupId(()), lambda: torch.zeros(ROOM + GUARD, dtype=torch.int32))
    alone.events.clear()
    return live


def call(alone: Rank, buffers: LiveBuffers, step: Collective) -> Call:
    return Call(alone.substrate, buffers, step, ProcessGroup(alone.substrate, "tp", GroupId((0,))))


def spoiled(alone: Rank, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[torch.Tensor], object]) -> None:
    """Have the library's all-gather do `spoil` to its output once it is done."""
    communicator = alone.substrate.communicator(GroupId((0,)))
    original = communicator.all_gather

    def gather(output: torch.Tensor, *rest: object) -> tuple[str, str]:
        found = original(output, *rest)  # type: ignore[arg-type]
        spoil(output)
        return found

    monkeypatch.setattr(communicator, "all_gather", gather)


class Copies:
    """A kernel of a group of one rank."""

    captures = False

    def reduce_scatter(self, context: object, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        output.copy_(source)


def test_operands_are_recorded_before_the_call_and_its_path_after_it(alone: Rank, buffers: LiveBuffers) -> None:
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    source = Operand("b", buffers["b"].body.data_ptr(), 4 * COUNT)
    output = Operand("a", buffers["a"].body.data_ptr() + 40, 4 * COUNT)
    assert isinstance(alone.events[0], Called)
    assert (alone.events[0].source, alone.events[0].output) == (source, output)
    assert [type(event) for event in alone.events] == [Called, Ran]


@pytest.mark.parametrize(
    ("step", "facts"),
    [
        (GATHER, ("all_gather", "int32", None, COUNT, "library", "tp", (), False)),
        (
            AllGather("ep", View("w"), (COUNT,), claim=True),
            ("all_gather", "int32", None, COUNT, "library", "ep", ("output",), True),
        ),
        (
            ReduceScatter("tp", View("w"), COUNT, View("b"), op="max"),
            ("reduce_scatter", "int32", "max", COUNT, "library", "tp", ("source",), False),
        ),
        (
            ReduceScatter("tp", View("a"), COUNT, View("w"), via="kernel"),
            ("reduce_scatter", "int32", "sum", COUNT, "kernel", "tp", (), False),
        ),
    ],
    ids=["a gather", "in place and claimed", "a reduction", "by a kernel"],
)
def test_a_call_is_recorded_with_its_facts(
    alone: Rank, buffers: LiveBuffers, step: Collective, facts: tuple[object, ...]
) -> None:
    buffers.place("w", ROOM + GUARD, GroupId((0,)), lambda: torch.zeros(ROOM + GUARD, dtype=torch.int32))
    call(alone, buffers, step).run(KEYS, kernel=Copies())
    (called,) = (event for event in alone.events if isinstance(event, Called))
    assert msgspec.structs.astuple(called)[3:-2] == facts


@pytest.mark.parametrize(
    ("path", "chooses_freely", "is_free"),
    [("legacy", True, True), ("symmetric", True, True), ("copy", True, False), ("legacy", False, False)],
)
def test_a_path_is_free_where_the_library_chose_it(
    alone: Rank, buffers: LiveBuffers, monkeypatch: pytest.MonkeyPatch, path: str, chooses_freely: bool, is_free: bool
) -> None:
    monkeypatch.setattr(alone.substrate, "chooses_freely", chooses_freely)
    monkeypatch.setattr(alone.substrate.communicator(GroupId((0,))), "all_gather", lambda *operands: (path, "the log"))
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    assert [event for event in alone.events if isinstance(event, Ran)] == [Ran(path, "the log", None, is_free)]


@pytest.mark.parametrize("step", [GATHER, SCATTER], ids=lambda step: step.kind)
def test_the_result_is_exact(alone: Rank, buffers: LiveBuffers, step: Collective) -> None:
    call(alone, buffers, step).run(KEYS, kernel=None)
    assert not any(isinstance(event, Mismatch) for event in alone.events)
    assert torch.equal(
        buffers["a"].body[10:50], buffers["b"].body[20:60] if step is SCATTER else buffers["b"].body[:40]
    )


def test_an_element_that_the_call_did_not_write_is_poison_and_a_mismatch(
    alone: Rank, buffers: LiveBuffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    communicator = alone.substrate.communicator(GroupId((0,)))
    monkeypatch.setattr(communicator, "all_gather", lambda *operands: ("copy", "nothing ran"))
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    found = alone.events[-1]
    assert isinstance(found, Mismatch)
    assert (found.elements, found.found) == (COUNT, "-1 (0xffffffff)")
    assert (found.had_poison, found.untouched) == (True, COUNT)


def test_one_wrong_element_is_a_mismatch(alone: Rank, buffers: LiveBuffers, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled(alone, monkeypatch, lambda output: bits(output)[7].add_(1))
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    found = alone.events[-1]
    assert isinstance(found, Mismatch)
    assert (found.elements, found.index) == (1, 7)


@pytest.mark.parametrize("first", [0, 1], ids=["was right", "was wrong"])
def test_an_output_that_changes_while_it_is_judged_is_judged_as_it_was_and_has_changed(
    alone: Rank, buffers: LiveBuffers, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    compare = ExactData.compare

    def meanwhile(*judged: Any) -> Mismatch | None:
        bits(buffers["a"].body)[17].add_(1 - 2 * first)
        return compare(*judged)

    spoiled(alone, monkeypatch, lambda output: bits(output)[7].add_(first))
    monkeypatch.setattr(ExactData, "compare", meanwhile)
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    *wrong, change = [event for event in alone.events if isinstance(event, Mismatch | Changed)]
    assert [(event.elements, event.index) for event in wrong] == [(1, 7)] * first
    assert isinstance(change, Changed)
    assert (change.elements, change.of, change.index) == (1, COUNT, 7)


@pytest.mark.parametrize(("past", "index"), [(-1, 9), (COUNT, 0)], ids=["before the view", "behind it"])
def test_a_store_beside_the_output_view_is_seen(
    alone: Rank, buffers: LiveBuffers, monkeypatch: pytest.MonkeyPatch, past: int, index: int
) -> None:
    body = buffers["a"].body
    spoiled(alone, monkeypatch, lambda output: body[10 + past].add_(1))
    call(alone, buffers, GATHER).run(KEYS, kernel=None)
    assert alone.events[-1] == Overwritten("a", "fence", index, 1)


def test_a_group_of_one_makes_a_kernel_call_by_the_library(alone: Rank, buffers: LiveBuffers) -> None:
    """A kernel has no peer there."""
    step = AllGather("tp", View("a"), COUNT, View("b"), via="kernel")
    call(alone, buffers, step).run(KEYS, kernel=None)
    assert [event.path for event in alone.events if isinstance(event, Ran)] == ["copy"]


@pytest.mark.parametrize("evidence", [frozenset(), frozenset({"digests"})])
def test_the_digest_of_the_output_is_recorded_if_the_world_has_digests(
    memory: SharedMemory, evidence: frozenset[str]
) -> None:
    memory.reset()
    rank = Rank(SimSubstrate(0, memory, evidence), memory)
    rank.substrate.start_recording(rank.events.append)
    rank.substrate.begin([(GroupId((0,)),)], [0], {GroupId((0,)): 0})
    live = LiveBuffers(rank.substrate)
    for name in "ab":
        live.place(name, ROOM + GUARD, GroupId(()), lambda: torch.zeros(ROOM + GUARD, dtype=torch.int32))
    call(rank, live, GATHER).run(KEYS, kernel=None)
    written = zlib.crc32(live["a"].body[10:50].numpy().tobytes())
    assert [event.digest for event in rank.events if isinstance(event, Ran)] == [written if evidence else None]


# in functional form


class Returns:
    """Gives back a tensor of its own, of what the source holds, with one element more if it is `wrong`."""

    functional = True

    def __init__(self, wrong: int = 0) -> None:
        self.result, self._wrong = torch.empty(0, dtype=torch.int32), wrong

    def all_gather(self, context: object, source: torch.Tensor) -> torch.Tensor:
        self.result = source.clone()
        self.result[7] += self._wrong
        return self.result

    def reduce_scatter(self, context: object, source: torch.Tensor, op: str) -> torch.Tensor:
        return self.all_gather(context, source)


def by_kernel(alone: Rank, buffers: LiveBuffers, step: Collective, kernel: object) -> list[Event]:
    """A call of a group of one that goes through a kernel all the same."""
    made = call(alone, buffers, structs.replace(step, via="kernel"))
    alone.substrate.communicator(GroupId((0,))).size = 2
    made.run(KEYS, kernel)
    return alone.events


@pytest.mark.parametrize(
    "step",
    [GATHER, SCATTER, AllGather("tp", View("a"), COUNT), ReduceScatter("tp", View("a"), COUNT)],
    ids=["gather", "scatter", "gather in place", "scatter in place"],
)
def test_a_result_that_is_returned_is_compared_and_copied_to_the_output(
    alone: Rank, buffers: LiveBuffers, step: Collective
) -> None:
    kernel = Returns()
    events = by_kernel(alone, buffers, step, kernel)
    assert [type(event) for event in events if not isinstance(event, Entered)] == [Called, Ran]
    called = next(event for event in events if isinstance(event, Called))
    body = buffers[called.output.buffer].body
    start = (called.output.address - body.data_ptr()) // 4
    assert torch.equal(body[start : start + COUNT], kernel.result)
    assert kernel.result.data_ptr() != called.output.address


def test_a_wrong_result_that_is_returned_is_a_mismatch(alone: Rank, buffers: LiveBuffers) -> None:
    events = by_kernel(alone, buffers, GATHER, Returns(wrong=1))
    assert [(event.elements, event.index) for event in events if isinstance(event, Mismatch)] == [(1, 7)]


def test_a_returned_tensor_is_kept_after_its_output_was_written_again(alone: Rank, buffers: LiveBuffers) -> None:
    kernel = Returns()
    by_kernel(alone, buffers, GATHER, kernel)
    first = kernel.result
    by_kernel(alone, buffers, GATHER, kernel)
    first[3] += 1
    buffers.release_all()
    assert [(event.buffer, event.index) for event in alone.events if isinstance(event, Lost)] == [("", 3)]


# captured


@pytest.mark.parametrize(
    ("captures", "has_barrier", "path"), [(True, True, "kernel"), (True, False, "copy"), (False, True, "copy")]
)
def test_a_call_is_captured_by_a_kernel_that_says_so_where_ranks_meet_on_the_device(
    captures: bool, has_barrier: bool, path: str, alone: Rank, buffers: LiveBuffers
) -> None:
    kernel, device = Copies(), alone.substrate.device
    kernel.captures, device.has_barrier = captures, has_barrier
    with device.capture() as graph:
        captured = call(alone, buffers, msgspec.structs.replace(SCATTER, via="kernel")).capture(4, kernel)
    captured.fill(KEYS)
    graph.replay()
    assert [event.path for event in alone.events if isinstance(event, Ran)] == [path]
    assert captured.compare() is None


def test_a_captured_call_runs_at_no_time_but_a_replay(alone: Rank, buffers: LiveBuffers) -> None:
    with alone.substrate.device.capture() as graph:
        captured = call(alone, buffers, GATHER).capture(index=4, kernel=None)
    assert (captured.index, buffers["a"].body.any().item()) == (4, False)
    captured.fill(KEYS)
    graph.replay()
    assert captured.compare() is None
    assert torch.equal(buffers["a"].body[10:50], captured.expected)
