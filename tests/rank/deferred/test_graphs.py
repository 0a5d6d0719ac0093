"""Graphs on a rank: replays run on new values, and what changes beside them is seen."""

from __future__ import annotations

import weakref

import pytest
import torch

from harness.rank.buffers import LiveBuffers
from harness.rank.deferred.calls import DeferredCall
from harness.rank.deferred.graphs import GRAPH_STREAM, Graphs
from harness.rank.exact import ExactData
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import GUARD, View
from harness.scenario.steps import STREAMS, AllGather
from harness.substrate.bits import bits
from harness.substrate.sim.device import SimDevice, tensor_at
from harness.trace.events import Entered, Lost, Mismatch, Overwritten, Replayed, SourceChanged, Touched
from tests.tools.one_rank import Rank

COUNT = 8
SEED = 5


@pytest.fixture
def buffers(alone: Rank) -> LiveBuffers:
    live = LiveBuffers(alone.substrate)
    for name in ("output", "other"):
        live.place(name, COUNT + GUARD, GroupId(()), lambda: torch.zeros(COUNT + GUARD, dtype=torch.int32))
    return live


@pytest.fixture
def graphs(alone: Rank, buffers: LiveBuffers) -> Graphs:
    return Graphs(alone.substrate, buffers, SEED)


def captured(alone: Rank, buffers: LiveBuffers, factor: int = 1, spoils: int | None = None) -> DeferredCall:
    """A call of a group of one, captured at step 3, whose output is `factor` times its source. It changes the element
    `spoils` of its source."""
    exact = ExactData(AllGather("tp", View("output"), COUNT), (0,), 0, torch.device("cpu"))
    call = DeferredCall(alone.substrate, GroupId((0,)), exact, 3, "output", "source")
    output, source = buffers["output"].body, torch.zeros(COUNT, dtype=torch.int32)
    call.take(output, source)
    call.before()

    def gather() -> None:
        output.copy_(source * factor)
        if spoils is not None:
            source[spoils] += 1

    alone.substrate.device.enqueue(gather)
    call.after()
    return call


def capture(alone: Rank, graphs: Graphs, buffers: LiveBuffers, factor: int = 1, spoils: int | None = None) -> None:
    graphs.capture("g")
    graphs.add(captured(alone, buffers, factor, spoils), ["output"])
    graphs.end()
    alone.events.clear()


def test_the_stream_of_graphs_is_none_that_programs_may_use() -> None:
    assert GRAPH_STREAM not in range(STREAMS)


def test_a_graph_is_prepared_and_captured_on_its_stream(alone: Rank, graphs: Graphs) -> None:
    device = alone.substrate.device
    assert isinstance(device, SimDevice)
    streams = [device.current_stream]
    for step in (lambda: graphs.begin("g"), lambda: graphs.capture("g"), graphs.end):
        step()
        streams.append(device.current_stream)
    assert streams == [0, GRAPH_STREAM, GRAPH_STREAM, 0]


def test_ordinary_memory_of_a_capture_stays_as_long_as_its_graph(alone: Rank, graphs: Graphs) -> None:
    """A replay writes it, released or not."""
    graphs.capture("g")
    tensor = torch.zeros(COUNT)
    kept = weakref.ref(tensor)
    graphs.hold(tensor)
    graphs.end()
    del tensor
    lives = [kept() is not None]
    graphs.clear()
    assert [*lives, kept() is not None] == [True, False]


def test_nothing_is_captured_once_a_graph_ends(alone: Rank, graphs: Graphs) -> None:
    graphs.capture("g")
    assert (alone.substrate.device.is_capturing, alone.substrate.graph) == (True, "g")
    graphs.end()
    assert (alone.substrate.device.is_capturing, alone.substrate.graph) == (False, None)


def test_to_end_where_no_graph_is_under_way_does_nothing(graphs: Graphs) -> None:
    graphs.end()
    graphs.end()


def test_a_replay_is_entered_and_shows_the_step_of_the_call(alone: Rank, graphs: Graphs, buffers: LiveBuffers) -> None:
    capture(alone, graphs, buffers)
    graphs.replay("g", 6)
    assert alone.events == [Entered("replay", 0), Replayed(3)]


def test_every_replay_runs_on_new_values(alone: Rank, graphs: Graphs, buffers: LiveBuffers) -> None:
    capture(alone, graphs, buffers)
    found = []
    for index in (6, 7):
        graphs.replay("g", index)
        found.append(buffers["output"].body.tolist())
    assert found[0] != found[1]


def test_a_replay_that_leaves_wrong_data_is_a_mismatch(alone: Rank, graphs: Graphs, buffers: LiveBuffers) -> None:
    capture(alone, graphs, buffers, factor=3)
    graphs.replay("g", 6)
    assert [type(event) for event in alone.events] == [Entered, Replayed, Mismatch]


def test_a_buffer_that_a_replay_changes_and_is_no_operand_is_seen(
    alone: Rank, graphs: Graphs, buffers: LiveBuffers
) -> None:
    other = buffers["other"].body
    graphs.capture("g")
    graphs.add(captured(alone, buffers), ["output"])

    def stray() -> None:
        other[2:5] = 9

    alone.substrate.device.enqueue(stray)
    graphs.end()
    graphs.replay("g", 6)
    assert alone.events[-1] == Overwritten("other", "replay", 2, 3)


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_store_into_free_memory_at_a_replay_is_seen_if_memory_is_watched(
    alone: Rank, buffers: LiveBuffers, graphs: Graphs, is_watched: bool
) -> None:
    buffers.memory.is_watched = is_watched
    with alone.pool().use():
        kept = torch.empty(COUNT, dtype=torch.int32)
    address = kept.data_ptr() + (1 << 20)
    graphs.capture("g")
    graphs.add(captured(alone, buffers), ["output"])
    alone.substrate.device.enqueue(lambda: tensor_at(address, 1, torch.int32).fill_(1) and None)
    graphs.end()
    graphs.replay("g", 6)
    found = [(event.when, event.address) for event in alone.events if isinstance(event, Touched)]
    assert found == [("replay", address)] * is_watched


def test_a_source_that_its_call_changes_at_a_replay_is_seen(alone: Rank, graphs: Graphs, buffers: LiveBuffers) -> None:
    capture(alone, graphs, buffers, spoils=2)
    graphs.replay("g", 6)
    assert [type(event) for event in alone.events] == [Entered, Replayed, SourceChanged]
    assert [event.index for event in alone.events if isinstance(event, SourceChanged)] == [2]


def test_operands_may_change_at_a_replay(alone: Rank, graphs: Graphs, buffers: LiveBuffers) -> None:
    capture(alone, graphs, buffers)
    graphs.replay("g", 6)
    assert not any(isinstance(event, Overwritten) for event in alone.events)


@pytest.mark.parametrize(("group", "is_kept"), [((0,), False), ((0, 1), True)])
def test_graphs_with_calls_of_a_group_are_forgotten(
    alone: Rank, graphs: Graphs, buffers: LiveBuffers, group: tuple[int, ...], is_kept: bool
) -> None:
    capture(alone, graphs, buffers)
    graphs.forget((GroupId(group),))
    if is_kept:
        graphs.replay("g", 6)
    else:
        with pytest.raises(KeyError, match="g"):
            graphs.replay("g", 6)


# what a replay left


def lost(alone: Rank) -> list[tuple[int, int, int]]:
    return [(event.call, event.captured, event.index) for event in alone.events if isinstance(event, Lost)]


def test_the_result_of_a_replay_is_kept_until_the_next(alone: Rank, buffers: LiveBuffers, graphs: Graphs) -> None:
    capture(alone, graphs, buffers)
    for step in (6, 7):
        buffers.kept.began(step)
        graphs.replay("g", step)
    assert lost(alone) == []
    bits(buffers["output"].body)[2] += 1
    buffers.release_all()
    assert lost(alone) == [(7, 3, 2)]


def test_a_wrong_result_of_a_replay_is_not_kept(alone: Rank, buffers: LiveBuffers, graphs: Graphs) -> None:
    capture(alone, graphs, buffers, factor=2)
    graphs.replay("g", 6)
    bits(buffers["output"].body)[2] += 1
    buffers.release_all()
    assert lost(alone) == []


def test_a_replay_that_changes_what_another_call_left_loses_it(
    alone: Rank, buffers: LiveBuffers, graphs: Graphs
) -> None:
    graphs.capture("g")
    graphs.add(captured(alone, buffers), ["output"])
    alone.substrate.device.enqueue(lambda: buffers["other"].body[2:3].add_(1))
    graphs.end()
    body = buffers["other"].body
    buffers.kept.hold("output", "other", body, body.clone())
    graphs.replay("g", 6)
    buffers.release_all()
    assert lost(alone) == [(-1, -1, 2)]


def test_a_replay_may_write_over_what_a_call_left_in_its_operands(
    alone: Rank, buffers: LiveBuffers, graphs: Graphs
) -> None:
    capture(alone, graphs, buffers)
    body = buffers["output"].body
    buffers.kept.hold("output", "output", body, body.clone())
    graphs.replay("g", 6)
    buffers.release_all()
    assert lost(alone) == []
