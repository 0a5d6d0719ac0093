"""Captures are observed as libcudart's functions are called; programs get the results that they get without us."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.observer.records import (
    Call,
    CaptureBegan,
    CaptureEnded,
    Fact,
    Process,
    RegisterEntered,
    read_all,
)
from tests.tools.fake_libnccl import compiled, fake_cudart, fake_nccl, observed, plain, python, recorded, run

SETUP = (
    "from tests.tools.graph_programs import *; import threading; cuda = Cudart(); nccl = Nccl(); comm = nccl.world()"
)
CALL = "nccl.call('AllGather', None, None, 16, 9, comm, POINTER({}))"
LINKED = """
#include <stddef.h>
int cudaStreamBeginCapture(void *, int);
int cudaStreamEndCapture(void *, void **);
int ncclMemAlloc(void **, size_t);
int main(void) {
  void *graph, *memory, *stream = (void *)81;
  if (cudaStreamBeginCapture(stream, 1) || ncclMemAlloc(&memory, 4096)) return 1;
  return cudaStreamEndCapture(stream, &graph) || !graph;
}
"""
OWN = """
#include <stddef.h>
int begin(void) {
  int cudaStreamBeginCapture(void *, int);
  return 1 + cudaStreamBeginCapture((void *)81, 0);
}
int cudaStreamBeginCapture(void *stream, int mode) { return 76; }
"""


@pytest.fixture(autouse=True)
def cudart() -> Path:
    """The stand-in is there before a program opens it."""
    return fake_cudart()


def ran(folder: Path, *lines: str) -> Process:
    (process,) = recorded("\n".join((SETUP, *lines)), folder)
    return process


def seen(process: Process) -> list[str]:
    return [type(process.facts[index]).__name__ for index in process.order]


def calls(process: Process) -> list[tuple[int, bool]]:
    """How often each call was made, and whether it was captured."""
    return [(fact.calls, fact.captured) for fact in process.facts if isinstance(fact, Call)]


def of(process: Process, kind: type[Fact]) -> list[Fact]:
    return [process.facts[index] for index in process.order if isinstance(process.facts[index], kind)]


def test_a_capture_begins_and_ends_in_order_with_calls(tmp_path: Path) -> None:
    process = ran(tmp_path, "cuda.begin(81)", CALL.format(81), "cuda.end(81)")
    assert seen(process) == ["CommCreated", "CaptureBegan", "Graph", "Call", "CaptureEnded"]
    (began,), (ended,) = of(process, CaptureBegan), of(process, CaptureEnded)
    assert isinstance(began, CaptureBegan)
    assert isinstance(ended, CaptureEnded)
    assert (began.stream, began.mode, ended.stream, ended.thread) == (81, "global", 81, began.thread)
    assert "Cudart.begin" in began.site.splitlines()[0]


def test_equal_calls_in_and_outside_of_a_capture_are_two_facts(tmp_path: Path) -> None:
    lines = "for _ in range(3):", f" {CALL.format(81)}; cuda.begin(81); {CALL.format(81)}; cuda.end(81)"
    process = ran(tmp_path, *lines)
    assert calls(process) == [(3, False), (3, True)]


def test_calls_on_a_stream_that_is_not_captured_are_not(tmp_path: Path) -> None:
    process = ran(tmp_path, "cuda.begin(81)", CALL.format(82), CALL.format(0), "cuda.end(81)")
    assert calls(process) == [(2, False)]


def test_calls_on_a_stream_that_joined_a_capture_are_captured(tmp_path: Path) -> None:
    process = ran(tmp_path, "cuda.begin(81)", "cuda.join(81, 82)", CALL.format(82), "cuda.end(81)", CALL.format(82))
    assert calls(process) == [(1, True), (1, False)]


def test_captures_at_one_place_are_one_fact_and_each_is_in_order(tmp_path: Path) -> None:
    process = ran(tmp_path, "for _ in range(1000): cuda.begin(81), cuda.end(81)", "cuda.begin(81); cuda.end(81)")
    assert len(process.order) == 1 + 2 * 1001
    assert [type(fact).__name__ for fact in process.facts[1:]] == ["CaptureBegan", "CaptureEnded", "CaptureBegan"]


def test_a_capture_into_a_graph_that_is_there_is_observed(tmp_path: Path) -> None:
    process = ran(tmp_path, "cuda.begin_to_graph(81, RELAXED)", CALL.format(81), "cuda.end(81)")
    assert [(fact.mode, fact.stream) for fact in process.facts if isinstance(fact, CaptureBegan)] == [("relaxed", 81)]
    assert calls(process) == [(1, True)]


def test_a_capture_that_fails_to_begin_is_none(tmp_path: Path) -> None:
    process = ran(tmp_path, "assert cuda.begin(0) == 900", CALL.format(0))
    assert seen(process) == ["CommCreated", "Call"]


def test_an_end_that_another_thread_may_not_make_ends_nothing(tmp_path: Path) -> None:
    ends = "wrong = threading.Thread(target=lambda: found.append(cuda.end(81))); wrong.start(); wrong.join()"
    lines = (
        "found = []; cuda.begin(81)",
        ends,
        "assert found == [908]",
        CALL.format(81),
        "cuda.end(81)",
        CALL.format(81),
    )
    process = ran(tmp_path, *lines)
    assert seen(process) == ["CommCreated", "CaptureBegan", "Graph", "Call", "CaptureEnded", "Call"]
    assert calls(process) == [(1, True), (1, False)]


def test_an_end_of_a_stream_that_captures_nothing_ends_no_other_capture(tmp_path: Path) -> None:
    lines = "cuda.begin(81)", "assert cuda.end(82) == 401", CALL.format(81), "cuda.end(81)", CALL.format(81)
    assert calls(ran(tmp_path, *lines)) == [(1, True), (1, False)]


def test_a_registration_has_the_thread_that_entered_it(tmp_path: Path) -> None:
    register = "nccl.register(comm, nccl.alloc())"
    beside = f"beside = threading.Thread(target=lambda: {register}); beside.start(); beside.join()"
    process = ran(tmp_path, "cuda.begin(81)", register, beside, "cuda.end(81)")
    (began,) = of(process, CaptureBegan)
    own, other = of(process, RegisterEntered)
    assert isinstance(began, CaptureBegan)
    assert isinstance(own, RegisterEntered)
    assert isinstance(other, RegisterEntered)
    assert own.thread == began.thread != other.thread


def test_a_forked_child_is_in_no_capture_of_its_parent(tmp_path: Path) -> None:
    lines = "cuda.begin(81); child = os.fork()", f"if not child: comm = nccl.world(name='c'); {CALL.format(81)}"
    program = "\n".join((SETUP, *lines, "else: os.waitpid(child, 0)", "os._exit(0)"))
    parent, child = sorted(recorded(program, tmp_path), key=lambda process: process.began)
    assert (seen(parent), calls(child)) == (["CommCreated", "CaptureBegan"], [(1, False)])


def test_a_program_that_is_linked_with_libcudart_is_observed(tmp_path: Path) -> None:
    libraries = f"-L{fake_nccl().parent}", "-lcudart", "-lnccl"
    program = compiled(LINKED, tmp_path, *libraries)
    run([str(program)], observed(tmp_path, tmp_path / "out"))
    (process,) = read_all(tmp_path / "out")
    assert seen(process) == ["CaptureBegan", "Allocated", "CaptureEnded"]


def test_a_libcudart_that_is_loaded_for_its_user_alone_is_found(tmp_path: Path) -> None:
    program = "library = ctypes.CDLL('libcudart.so.12'); own = ctypes.CDLL(None)\nNccl()\n"
    program += "print(own.cudaStreamBeginCapture(ctypes.c_void_p(81), 0), library.cudaStreamBeginCapture(None, 0))"
    assert run(python(program), observed(tmp_path, None)) == "0 900\n"


def test_a_library_with_a_libcudart_of_its_own_keeps_it(tmp_path: Path) -> None:
    library = compiled(OWN, tmp_path, "-shared", "-fPIC")
    program = f"ctypes.CDLL('libcudart.so.12'); print(ctypes.CDLL({str(library)!r}).begin())"
    assert run(python(program), observed(tmp_path, None)) == run(python(program), plain(tmp_path)) == "77\n"


def test_without_libcudart_a_capture_fails_as_of_a_symbol_that_is_not_found(tmp_path: Path) -> None:
    program = "print(ctypes.CDLL(None).cudaStreamBeginCapture(None, 0)); Nccl().alloc()"
    assert run(python(program), observed(tmp_path, tmp_path / "out")) == "302\n"
    (process,) = read_all(tmp_path / "out")
    assert seen(process) == ["Allocated"]


def test_a_listener_hears_of_no_capture_and_a_muted_thread_tells_of_none(tmp_path: Path) -> None:
    lines = (
        "from harness.machine.observer.control import Observer; heard = []; seen = Observer.find()",
        "seen.listen(heard.append); cuda.begin(81); cuda.end(81); nccl.alloc()",
        "with seen.muted(): cuda.begin(82), cuda.end(82)",
        "assert [type(each).__name__ for each in heard] == ['Allocated']; seen.listen(None)",
    )
    assert seen(ran(tmp_path, *lines)) == ["CommCreated", "CaptureBegan", "CaptureEnded", "Allocated"]
