"""A policy's own calls of a library under NCCL's name, seen by the observer in front of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MachineError
from tests.tools.fake_libnccl import fake_nccl
from tests.tools.observed_rank import ran


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        fake_nccl()
    except MachineError as error:
        pytest.skip(str(error))


def test_a_policys_calls_become_events_and_muted_ones_do_not(tmp_path: Path) -> None:
    program = """
address = allocate()
window = register(address)
with observer.muted():
    allocate()
nccl.call("CommWindowDeregister", comm, window)
nccl.call("MemFree", address)
"""
    said, events, _ = ran(program, tmp_path)
    assert events == ["SegmentAllocated", "Entered", "Registered", "Deregistered", "SegmentFreed"]
    assert said == [0, 0, 0]


def test_a_step_denies_the_next_segment_and_no_other(tmp_path: Path) -> None:
    said, events, is_due = ran("heard.substrate.deny()\nobserver.deny_next()\nallocate()\nallocate()\n", tmp_path)
    assert (said[0] != 0, said[1], events, is_due) == (True, 0, ["SegmentDenied", "SegmentAllocated"], False)


def test_a_step_refuses_one_segment_at_every_registration(tmp_path: Path) -> None:
    program = """
heard.substrate.refusal.is_due = True
one, other = allocate(), allocate()
register(one), register(other), register(one)
"""
    said, events, _ = ran(program, tmp_path)
    assert [each != 0 for each in said] == [False, False, True, False, True]
    assert events[2:] == [
        *("Entered", "Unregistrable", "RegistrationFailed"),
        *("Entered", "Registered"),
        *("Entered", "RegistrationFailed"),
    ]


def test_a_segment_that_is_freed_under_its_window_is_held_back_until_it_is_released(tmp_path: Path) -> None:
    program = """
observer.hold_frees(True)
address = allocate()
register(address)
nccl.call("MemFree", address)
ctypes.memset(address, 1, SIZED)
said.append(observer.release_held())
"""
    said, events, _ = ran(program, tmp_path)
    assert (said, events[-1]) == ([0, 0, 0], "SegmentFreed")
