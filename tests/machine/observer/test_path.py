"""NCCL's word on the path of calls is counted at the calls that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.observer.records import Call, Process
from tests.tools.fake_libnccl import recorded

BEGIN = """
nccl = Nccl()
world = nccl.world(2)
memory, other = nccl.alloc(), nccl.alloc()
nccl.register(world, memory)
"""


def paths(program: str, folder: Path, **more: str) -> list[tuple[int, int, int, int]]:
    """Of each call: how often it was made, and how often on each path."""
    process, _ = recorded(BEGIN + program, folder, ranks=2, more=more)
    assert process.unmatched == 0
    return counted(process)


def counted(process: Process) -> list[tuple[int, int, int, int]]:
    calls = [fact for fact in process.facts if isinstance(fact, Call)]
    return [(call.calls, call.symmetric, call.legacy, call.copy) for call in calls]


THREE = "for _ in range(3): nccl.all_gather(world, other, memory)"


@pytest.mark.parametrize(
    ("variable", "path"),
    [("", (3, 3, 0, 0)), ("FAKE_NCCL_SLOW_PATH", (3, 0, 3, 0)), ("FAKE_NCCL_COPY_ENGINE", (3, 0, 0, 3))],
)
def test_each_path_has_a_count_of_its_own(variable: str, path: tuple[int, ...], tmp_path: Path) -> None:
    assert paths(THREE, tmp_path, **({variable: "1"} if variable else {})) == [path]


def test_calls_on_other_buffers_are_told_apart(tmp_path: Path) -> None:
    program = "nccl.all_gather(world, other, memory); nccl.all_gather(world, memory, other)"
    assert paths(program, tmp_path) == [(1, 1, 0, 0), (1, 0, 1, 0)]


def test_the_calls_of_a_group_are_found_by_their_buffers(tmp_path: Path) -> None:
    program = """
for _ in range(4):
    nccl.call("GroupStart")
    nccl.all_gather(world, memory, other)
    nccl.all_gather(world, other, memory)
    nccl.call("GroupStart")
    nccl.all_gather(world, memory, memory)
    nccl.call("GroupEnd")
    nccl.call("GroupEnd")
"""
    assert paths(program, tmp_path) == [(4, 0, 4, 0), (4, 4, 0, 0), (4, 4, 0, 0)]


def test_calls_of_equal_buffers_on_two_communicators_are_told_apart(tmp_path: Path) -> None:
    program = """
child = nccl.split(world, 0)
nccl.all_gather(world, memory, memory)
nccl.call("GroupStart")
nccl.all_gather(child, memory, memory)
nccl.call("GroupEnd")
"""
    assert paths(program, tmp_path) == [(1, 1, 0, 0), (1, 0, 1, 0)]


def test_a_call_that_nccl_says_nothing_of_has_no_path(tmp_path: Path) -> None:
    (process,) = recorded("nccl = Nccl(); nccl.all_gather(nccl.world(), None, None)", tmp_path)
    assert counted(process) == [(1, 0, 0, 0)]


def test_a_call_of_a_group_that_nccl_says_nothing_of_takes_no_later_word(tmp_path: Path) -> None:
    program = """
alone = nccl.world(1, 0, name=f"alone-{RANK}")
nccl.call("GroupStart"); nccl.all_gather(alone, memory, memory); nccl.call("GroupEnd")
nccl.call("GroupStart"); nccl.all_gather(world, memory, memory); nccl.call("GroupEnd")
"""
    assert paths(program, tmp_path) == [(1, 0, 0, 0), (1, 1, 0, 0)]


def test_a_word_that_comes_from_a_thread_of_nccl_finds_its_call(tmp_path: Path) -> None:
    assert paths(THREE, tmp_path, FAKE_NCCL_TELL_IN_A_THREAD="1") == [(3, 3, 0, 0)]


def test_the_evidence_of_ranks_reads_the_same_library(tmp_path: Path) -> None:
    program = """
from harness.substrate.nccl.calls import Calls
calls = Calls()
before = calls.written
nccl.all_gather(world, other, memory)
call = calls.last_since(before)
assert (call.is_symmetric, str(call), call.send) == (1, "AllGather_ST", other.value), str(call)
"""
    assert paths(program, tmp_path) == [(1, 1, 0, 0)]


def test_muted_calls_are_no_calls_past_the_observer(tmp_path: Path) -> None:
    program = """
from harness.machine.observer.control import Observer
with Observer.find().muted():
    nccl.all_gather(world, other, memory)
"""
    assert paths(program, tmp_path) == []
