"""MPS: one that runs is used, a private one ends with who started it, and where there is none it is said.

NVIDIA's daemon is played by a shell script of its name, which takes the same orders.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest

from harness.errors import MachineError
from harness.machine import mps
from harness.world import world as world_module
from harness.world.platform import Platform, choose
from harness.world.world import World

CONTROL = """#!/bin/bash
pipe=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then
  [ -z "$MPS_REFUSES" ] || exit 3
  (
    echo $BASHPID > $pipe/pid.new; mv $pipe/pid.new $pipe/pid
    while [ ! -e $pipe/quit ]; do sleep 0.05; done
    rm -f $pipe/pid
  ) &
  while [ ! -e $pipe/pid ]; do sleep 0.02; done
  exit 0
fi
[ -e $pipe/pid ] || { echo "Cannot find MPS control daemon process"; exit 1; }
read order
[ "$order" != quit ] || [ -n "$MPS_STUBBORN" ] || touch $pipe/quit
"""


def until(claim: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the daemon's program on the PATH, and no daemon. Temporary folders go to `tmp`."""
    for name in ("bin", "tmp", "default"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / mps.CONTROL
    program.write_text(CONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(mps, "DEFAULT_PIPES", str(tmp_path / "default"))
    monkeypatch.setattr(mps, "_running", [])
    monkeypatch.delenv(mps.PIPES, raising=False)
    return tmp_path


def daemon(pipes: Path | str) -> int:
    return int(Path(pipes, "pid").read_text())


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def leftovers(machine: Path) -> list[Path]:
    return list((machine / "tmp").iterdir())


def test_a_private_daemon_serves_in_a_folder_of_its_own(machine: Path) -> None:
    served = mps.start()
    pipes = served.environment[mps.PIPES]
    try:
        assert (served.how, served.serves) == ("a private MPS daemon", True)
        assert runs(daemon(pipes))
        assert Path(pipes).is_relative_to(machine / "tmp")
        assert Path(served.environment[mps.LOGS]).is_dir()
    finally:
        served.close()


def test_closing_ends_the_private_daemon_and_removes_its_folder(machine: Path) -> None:
    served = mps.start()
    pid = daemon(served.environment[mps.PIPES])
    served.close()
    assert (runs(pid), leftovers(machine)) == (False, [])


def test_closing_twice_is_closing_once(machine: Path) -> None:
    served = mps.start()
    served.close()
    served.close()
    assert leftovers(machine) == []


def test_two_worlds_of_a_process_share_a_daemon_until_both_are_closed(machine: Path) -> None:
    first, second = mps.start(), mps.start()
    pid = daemon(first.environment[mps.PIPES])
    assert second.environment == first.environment
    first.close()
    assert runs(pid)
    second.close()
    assert (runs(pid), leftovers(machine)) == (False, [])


def test_a_daemon_can_be_started_again(machine: Path) -> None:
    mps.start().close()
    again = mps.start()
    assert runs(daemon(again.environment[mps.PIPES]))
    again.close()


def test_a_daemon_that_does_not_quit_is_killed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_STUBBORN", "1")
    served = mps.start()
    pid = daemon(served.environment[mps.PIPES])
    served.close()
    assert (runs(pid), leftovers(machine)) == (False, [])


HOLD = """
import time
from harness.machine import mps
print(mps.start().environment[mps.PIPES], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_private_daemon_ends_with_a_process_that_is_killed(machine: Path, death: signal.Signals) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert holder.stdout is not None
    pid = daemon(holder.stdout.readline().strip())
    holder.send_signal(death)
    holder.wait()
    holder.stdout.close()
    assert until(lambda: not runs(pid) and not leftovers(machine))


@pytest.fixture
def running(machine: Path) -> Iterator[int]:
    """A daemon that somebody else has started in the default place."""
    pipes = machine / "default"
    environment = {**os.environ, mps.PIPES: str(pipes)}
    subprocess.run([mps.CONTROL, "-d"], env=environment, check=True, stdout=subprocess.DEVNULL)
    yield daemon(pipes)
    (pipes / "quit").touch()


def test_a_daemon_that_runs_already_is_used_and_left_alone(machine: Path, running: int) -> None:
    served = mps.start()
    served.close()
    assert served.environment == {mps.PIPES: str(machine / "default")}
    assert served.how == f"an MPS daemon that runs already ({machine / 'default'})"
    assert (runs(running), leftovers(machine)) == (True, [])


def test_a_daemon_that_the_environment_names_is_used(
    machine: Path, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "DEFAULT_PIPES", str(machine / "nowhere"))
    monkeypatch.setenv(mps.PIPES, str(machine / "default"))
    assert mps.start().environment == {mps.PIPES: str(machine / "default")}


def test_without_the_program_ranks_take_turns_and_it_is_said(machine: Path) -> None:
    (machine / "bin" / mps.CONTROL).unlink()
    served = mps.start()
    served.close()
    assert (served.environment, served.serves) == ({}, False)
    assert served.how == "taking turns, which is slow: nvidia-cuda-mps-control is not on the PATH"


def test_where_the_daemon_does_not_start_ranks_take_turns_and_it_is_said(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPS_REFUSES", "1")
    served = mps.start()
    assert served.environment == {}
    assert served.how == "taking turns, which is slow: nvidia-cuda-mps-control -d exited with status 3"
    assert leftovers(machine) == []


@pytest.fixture
def shared_gpu(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds whose ranks share a GPU, as far as the world can tell."""

    def chosen(substrate: str, ranks: int, evidence: Sequence[str] = ()) -> Platform:
        return msgspec.structs.replace(choose(substrate, ranks), why="one GPU", ranks_per_gpu=ranks)

    monkeypatch.setattr(world_module, "choose", chosen)


def pipes_of(substrate: object, slots: object) -> str:
    return os.environ.get(mps.PIPES, "")


def test_ranks_that_share_a_gpu_use_the_daemon_which_ends_with_their_world(machine: Path, shared_gpu: None) -> None:
    with World(2, "sim") as world:
        (pipes,) = set(world.call("tests.machine.test_mps:pipes_of"))
        pid = daemon(pipes)
        assert world.platform.why == "one GPU, 2 ranks a GPU: a private MPS daemon"
    assert (runs(pid), leftovers(machine)) == (False, [])


def test_a_world_that_cannot_start_leaves_no_daemon(
    machine: Path, shared_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(ranks: int) -> None:
        raise MachineError("no room")

    monkeypatch.setattr("harness.ipc.memory.SharedMemory.create", full)
    with pytest.raises(MachineError, match="no room"):
        World(2, "sim")
    assert leftovers(machine) == []


def test_ranks_with_a_gpu_each_start_no_daemon(machine: Path) -> None:
    with World(2, "sim"):
        assert leftovers(machine) == []
