"""Graphs are observed as they are launched, by the capture that they came from, and PyTorch's history with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.observer import build
from harness.machine.observer.records import Graph, Held, History, Process, read_all
from tests.tools.fake_libnccl import fake_cudart, observed, python, recorded, start, wait_for

SETUP = """
from tests.tools.graph_programs import *
from tests.tools.fake_torch import FakeTorch
import threading
cuda = Cudart(); nccl = Nccl(); comm = nccl.world(); memory = nccl.alloc()
def capture(stream=81, made=memory):
    assert cuda.begin(stream) == 0
    nccl.call('AllGather', None, made, 16, 9, comm, POINTER(stream))
    return cuda.end_with_graph(stream)[1]
"""
WANTED = {build.HISTORY_WANTED: "1"}
CHANGE = "cuda.library.cudaGraph{}"


@pytest.fixture(autouse=True)
def cudart() -> Path:
    """The stand-in is there before a program opens it."""
    return fake_cudart()


def ran(folder: Path, *lines: str, **more: str) -> Process:
    """A program whose memory history is wanted."""
    (process,) = recorded("\n".join((SETUP, *lines)), folder, more=WANTED | more)
    return process


def graphs(process: Process) -> list[Graph]:
    return [fact for fact in process.facts if isinstance(fact, Graph) and fact.capture]


def launches(process: Process) -> list[int]:
    return [graph.launches for graph in graphs(process)]


def state(process: Process) -> str:
    return next(fact.state for fact in reversed(process.facts) if isinstance(fact, History))


def held(process: Process) -> list[Held]:
    return [fact for fact in process.facts if isinstance(fact, Held)]


@pytest.mark.parametrize("how", ["", "WithFlags", "WithParams", "WithParams_ptsz"])
@pytest.mark.parametrize("twin", ["", "_ptsz"])
def test_launches_are_counted_by_the_capture_that_they_came_from(how: str, twin: str, tmp_path: Path) -> None:
    lines = (
        f"first, second = (cuda.instantiate(capture(), {how!r}, POINTER(None)) for _ in range(2))",
        f"for each in (first, second, second): assert cuda.launch(each, 81, {twin!r}) == 0",
    )
    first, second = graphs(ran(tmp_path, *lines))
    assert (first.capture, first.launches, second.capture, second.launches) == (1, 1, 2, 2)
    assert first.began < first.ended < first.first == first.last < second.first < second.last
    assert "Cudart.launch" in second.launched_at.splitlines()[0]


def test_a_launch_that_fails_is_none(tmp_path: Path) -> None:
    assert launches(ran(tmp_path, "cuda.instantiate(capture()); assert cuda.launch(POINTER(None)) == 1")) == [0]


def test_an_address_that_comes_again_is_another_graph(tmp_path: Path) -> None:
    lines = (
        "graph = capture(); made = cuda.instantiate(graph)",
        f"{CHANGE.format('ExecDestroy')}(made); {CHANGE.format('Destroy')}(graph)",
        f"other = POINTER(); {CHANGE.format('Create')}(ctypes.byref(other), 0); assert other.value == graph.value",
        "again = cuda.instantiate(other); assert again.value == made.value; cuda.launch(again)",
    )
    assert launches(ran(tmp_path, *lines)) == [0]


def test_a_clone_and_an_update_are_of_the_capture_that_they_are_made_from(tmp_path: Path) -> None:
    lines = (
        f"graph, other = capture(), capture(); twin = POINTER(); {CHANGE.format('Clone')}(ctypes.byref(twin), graph)",
        "made = cuda.instantiate(twin); cuda.launch(made)",
        f"{CHANGE.format('ExecUpdate')}(made, other, None, None); cuda.launch(made); cuda.launch(made)",
    )
    assert launches(ran(tmp_path, *lines)) == [1, 2]


def test_calls_of_captures_that_are_open_at_once_go_to_their_own(tmp_path: Path) -> None:
    call = "nccl.call('AllGather', None, memory, 16, 9, comm, POINTER({}))"
    lines = "cuda.begin(81, RELAXED); cuda.begin(82, RELAXED)", *(call.format(each) for each in (81, 82, 82, 81))
    process = ran(tmp_path, *lines)
    order = [process.facts[index] for index in process.order]
    assert [fact.capture for fact in order if isinstance(fact, Graph)] == [1, 2, 1]


def test_a_forked_child_knows_no_graph_of_its_parent(tmp_path: Path) -> None:
    lines = (
        "FakeTorch().install(); made = cuda.instantiate(capture()); child = os.fork()",
        "if not child: nccl.world(name='c'); cuda.launch(made); sys.exit(0)",
        "os.waitpid(child, 0)",
    )
    program = "\n".join((SETUP, "import sys", *lines))
    parent, child = sorted(recorded(program, tmp_path, more=WANTED), key=lambda process: process.began)
    assert (launches(parent), state(parent), graphs(child), held(child)) == ([0], "read", [], [])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", "no-torch"),
        ("torch = FakeTorch().install()", "", "read"),
        ("torch = FakeTorch(is_old=True).install()", "", "read"),
        ("torch = FakeTorch().install(); torch._record('all')", "", "own"),
        ("torch = FakeTorch().install(); del torch._C", "", "cannot"),
        ("torch = FakeTorch().install()", "torch._record(None)", "switched-off"),
        ("torch = FakeTorch().install()", "torch._record(None); torch._record('all'); torch.allocated(1, 1)", "part"),
        ("torch = FakeTorch().install()", "os._exit(0)", "on"),
    ],
)
def test_a_history_says_what_became_of_it(before: str, after: str, expected: str, tmp_path: Path) -> None:
    assert state(ran(tmp_path, before, "made = cuda.instantiate(capture()); cuda.launch(made)", after)) == expected


def test_without_the_option_pytorchs_history_is_left_alone(tmp_path: Path) -> None:
    lines = (
        "torch = FakeTorch().install(); made = cuda.instantiate(capture()); cuda.launch(made); assert not torch.calls"
    )
    (process,) = recorded("\n".join((SETUP, lines)), tmp_path)
    assert (state(process), launches(process)) == ("not-asked", [1])


def test_a_killed_process_has_its_launches_and_a_history_that_was_not_read(tmp_path: Path) -> None:
    lines = "FakeTorch().install(); made = cuda.instantiate(capture())", "while True: cuda.launch(made)"
    out = tmp_path / "out"
    process = start(python("\n".join((SETUP, *lines))), observed(tmp_path, out, WANTED))
    wait_for(lambda: any(launches(each)[:1] > [9] for each in read_all(out)))
    process.kill()
    process.communicate()
    (seen,) = read_all(out)
    assert (launches(seen)[0] > 9, state(seen)) == (True, "on")


def test_a_capture_without_memory_for_windows_switches_no_history_on(tmp_path: Path) -> None:
    lines = "torch = FakeTorch().install(); made = cuda.instantiate(capture(81, None)); cuda.launch(made)"
    process = ran(tmp_path, lines, "assert not torch.calls")
    assert not any(isinstance(fact, History) for fact in process.facts)


@pytest.mark.parametrize(("stacks", "context"), [("first", None), ("all", "alloc")])
def test_allocations_have_stacks_where_every_stack_is_asked_for(
    stacks: str, context: str | None, tmp_path: Path
) -> None:
    lines = (
        "torch = FakeTorch().install(); made = cuda.instantiate(capture())",
        "def prefill(): torch.allocated(memory.value, 64)",
        f"assert torch.calls[0]['context'] == {context!r}",
        "time.sleep(0.005); prefill(); time.sleep(0.005); cuda.launch(made)",
    )
    (tensor,) = held(ran(tmp_path, *lines, SYMM_OBSERVER_STACKS=stacks))
    assert (tensor.size, tensor.until, "prefill" in tensor.site) == (64, 0, stacks == "all")


def test_a_tensor_is_told_with_the_times_at_which_it_came_and_went(tmp_path: Path) -> None:
    lines = (
        "torch = FakeTorch().install(); made = cuda.instantiate(capture()); time.sleep(0.005)",
        "torch.allocated(memory.value + 4096, 64); time.sleep(0.005); cuda.launch(made); time.sleep(0.005)",
        "torch.freed(memory.value + 4096); torch.allocated(77, 64)",
    )
    process = ran(tmp_path, *lines)
    (tensor,), (graph,) = held(process), graphs(process)
    assert graph.ended < tensor.since < graph.first < tensor.until
    assert tensor.margin < tensor.since - graph.ended
