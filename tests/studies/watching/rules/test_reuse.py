"""Which tensor has memory of a graph at a launch: decided by times, and by nothing that lies within their margin."""

from __future__ import annotations

import msgspec
import pytest

from harness.machine.observer.records import Fact, Graph, Held, History
from harness.studies.watching.judging import Judged, judge
from tests.tools.recorded import BASE, comm, gather, process, registration

GRAPH = Graph(1, 1_000, 2_000, 3, 5_000, 9_000, True, "/home/me/train.py:40 step", "/home/me/serve.py:7 run")
OTHER = msgspec.structs.replace(GRAPH, capture=2)
CALL = gather(1, captured=True)
TENSOR = Held(BASE, 64, 3_000, 0, 100, "/home/me/serve.py:9 prefill")
READ = History("read", 0, 1_000_000)


def judged(*facts: Fact, graph: Graph = GRAPH, state: History = READ, call: Fact = CALL) -> Judged:
    """Two ranks that capture a call, and end with these facts."""
    done = lambda rank: [comm(1, rank), *registration(1), graph, call, *facts, state]  # noqa: E731
    return judge([process(done(rank), rank) for rank in (0, 1)])


def found(*facts: Fact, graph: Graph = GRAPH, call: Fact = CALL) -> list[str]:
    return [
        each.explanation for each in judged(*facts, graph=graph, call=call).findings if each.rule == "captured-reuse"
    ]


def tensor(**changes: object) -> Held:
    return msgspec.structs.replace(TENSOR, **changes)


def test_a_tensor_that_has_the_memory_at_a_launch_is_named_with_call_capture_and_launch() -> None:
    (finding,) = (each for each in judged(TENSOR).findings if each.rule == "captured-reuse")
    assert finding.ranks == (0, 1)
    assert finding.explanation == (
        "the graph of capture 1 (train.py:40 step) writes, at launch 1 of 3 (serve.py:7 run), the output that "
        "all_gather 1 (model.py:31 forward) on comm[0,1] was captured with on rank 0; a tensor of 64 bytes that was "
        "allocated 1.0 ms after the capture (serve.py:9 prefill) has this memory."
    )


@pytest.mark.parametrize(
    "held",
    [
        tensor(since=2_050),
        tensor(since=4_950, until=8_000),
        tensor(until=5_050),
        tensor(until=4_000),
        tensor(since=6_000, until=8_000),
        tensor(since=9_500),
        tensor(address=BASE + (1 << 20)),
    ],
    ids=["came with the end", "came with launch", "went with launch", "went", "between", "after", "elsewhere"],
)
def test_a_tensor_that_does_not_surely_have_the_memory_at_a_launch_is_none(held: Held) -> None:
    assert found(held) == []


def test_the_last_launch_counts_as_the_first_does() -> None:
    (text,) = found(tensor(since=8_000))
    assert "at launch 3 of 3, the output" in text


def test_a_source_is_read() -> None:
    (text,) = found(TENSOR, call=gather(1, receive=BASE + (1 << 20), send=BASE, captured=True))
    assert "reads, at launch 1" in text


@pytest.mark.parametrize("changed", [{"launches": 0, "first": 0, "last": 0}, {"ended": 0}, {"capture": 0}], ids=str)
def test_a_graph_that_never_ran_or_is_not_known_is_none(changed: dict[str, int]) -> None:
    assert found(TENSOR, graph=msgspec.structs.replace(GRAPH, **changed)) == []


def test_a_call_belongs_to_the_graph_that_came_last_before_it() -> None:
    elsewhere = gather(1, receive=BASE + (1 << 20), captured=True)
    (text,) = found(OTHER, elsewhere, tensor(address=BASE + (1 << 20)))
    assert "capture 2" in text


def test_a_call_that_was_not_captured_runs_at_no_launch() -> None:
    assert found(TENSOR, call=gather(1)) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("on", "the process has not ended by itself"),
        ("not-asked", "symm watch --graph-memory judges that"),
        ("own", "a memory history of its own"),
        ("switched-off", "switched PyTorch's memory history off"),
        ("cannot", "PyTorch gave no memory history"),
        ("no-torch", "no PyTorch with CUDA"),
        ("", "could not be switched on"),
        ("part", "no longer has the tensors that came early"),
    ],
)
def test_what_is_not_judged_is_said_with_its_reason(state: str, said: str) -> None:
    (sentence,) = judged(state=History(state, 3_000)).assembled.left_out
    assert sentence.startswith("Whether other tensors got memory of graphs on ranks 0, 1: ")
    assert said in sentence


@pytest.mark.parametrize("state", [READ, History("part", 1_500)], ids=["whole", "lost before the capture ended"])
def test_nothing_is_said_where_the_history_is_whole(state: History) -> None:
    assert judged(state=state).assembled.left_out == ()


@pytest.mark.parametrize("changed", [{"launches": 0, "first": 0, "last": 0}, {"is_for_window": False}], ids=str)
def test_nothing_is_said_of_graphs_that_never_ran_or_reach_ordinary_memory(changed: dict[str, int]) -> None:
    graph = msgspec.structs.replace(GRAPH, **changed)
    assert judged(graph=graph, state=History("own")).assembled.left_out == ()
