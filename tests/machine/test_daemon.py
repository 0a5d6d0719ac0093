"""The daemon of MPS: what it answers, what is seen of it, and that what does not end is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine import daemon
from tests.tools.clock import FakeClock
from tests.tools.mps_daemon import pid_of


@pytest.fixture
def place(machine: Path) -> Iterator[dict[str, str]]:
    """The environment of a daemon in a place of its own."""
    pipes = machine / "default"
    yield {**os.environ, daemon.PIPES: str(pipes)}
    (pipes / "quit").touch()


def test_a_launched_daemon_answers(place: dict[str, str]) -> None:
    assert (daemon.launch(place), daemon.answers(place)) == ("", True)


def test_where_there_is_no_daemon_nothing_answers(place: dict[str, str]) -> None:
    assert not daemon.answers(place)


def test_a_daemon_that_refuses_is_reported_with_its_status(place: dict[str, str]) -> None:
    failed = daemon.launch({**place, "MPS_REFUSES": "1"})
    assert failed == "nvidia-cuda-mps-control -d exited with status 3"


def test_a_daemon_that_never_answers_is_given_up_after_its_time(place: dict[str, str]) -> None:
    fake = FakeClock()
    failed = daemon.launch({**place, "MPS_MUTE": "1"}, fake.clock)
    assert failed == "nvidia-cuda-mps-control started and does not answer"
    assert daemon.PATIENCE < fake.seconds < daemon.PATIENCE + 1


def test_without_the_program_nothing_is_installed(machine: Path) -> None:
    before = daemon.is_installed()
    (machine / "bin" / daemon.CONTROL).unlink()
    assert (before, daemon.is_installed()) == (True, False)


def test_a_program_that_cannot_be_run_is_reported(machine: Path, place: dict[str, str]) -> None:
    (machine / "bin" / daemon.CONTROL).unlink()
    assert daemon.launch(place) == "nvidia-cuda-mps-control cannot be run (FileNotFoundError)"


def test_a_daemon_is_found_by_its_folder(machine: Path, place: dict[str, str]) -> None:
    private = {**place, daemon.PIPES: str(machine / "pipe")}
    (machine / "pipe").mkdir()
    daemon.launch(private)
    pid = pid_of(machine / "pipe")
    found = daemon.serves(pid, machine), daemon.serves(pid, machine / "other")
    (machine / "pipe" / "quit").touch()
    assert found == (True, False)


def test_a_process_that_does_not_end_is_killed_after_its_time() -> None:
    stubborn = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fake = FakeClock()
    daemon.end([stubborn.pid], fake.clock)
    assert stubborn.wait() == -9
    assert fake.seconds >= daemon.PATIENCE / 2


def test_processes_that_have_ended_are_not_waited_for() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fake = FakeClock()
    daemon.end([ended.pid], fake.clock)
    assert fake.slept == []
