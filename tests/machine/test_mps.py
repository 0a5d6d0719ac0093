"""MPS: one that runs is used, a private one ends with its last user, and where there is none the reason is shown."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from harness.errors import MachineError
from harness.machine import gpus, mps
from harness.world import world as world_module
from harness.world.platform import Platform, choose
from harness.world.world import World
from tests.tools.fake_gpus import UUIDS, equip
from tests.tools.mps_daemon import leftovers, pid_of, runs


def test_a_private_daemon_serves_in_a_folder_of_its_own(machine: Path) -> None:
    served = mps.start()
    pipes = served.environment[mps.PIPES]
    try:
        assert (served.how, served.has_daemon) == ("a private MPS daemon", True)
        assert runs(pid_of(pipes))
        assert Path(pipes).is_relative_to(machine / "tmp")
        assert Path(served.environment[mps.LOGS]).is_dir()
    finally:
        served.close()


def test_closing_ends_the_private_daemon_and_removes_its_folder(machine: Path) -> None:
    served = mps.start()
    pid = pid_of(served.environment[mps.PIPES])
    served.close()
    assert (runs(pid), leftovers(machine)) == (False, [])


def test_closing_twice_is_closing_once(machine: Path) -> None:
    served = mps.start()
    served.close()
    served.close()
    assert leftovers(machine) == []


def test_two_worlds_of_a_process_share_a_daemon_until_both_are_closed(machine: Path) -> None:
    first, second = mps.start(), mps.start()
    pid = pid_of(first.environment[mps.PIPES])
    assert second.environment == first.environment
    first.close()
    assert runs(pid)
    second.close()
    assert (runs(pid), leftovers(machine)) == (False, [])


def test_a_daemon_and_its_clients_name_the_gpus_that_are_left_by_uuid(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is left GPU 1 calls it 0, so a client that asks for 1 would find none."""
    equip(monkeypatch, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    served = mps.start()
    served.close()
    uuids = [gpu.uuid for gpu in gpus.inventory()]
    assert served.environment["CUDA_VISIBLE_DEVICES"] == ",".join(uuids)
    assert (len(uuids), len({*uuids})) == (2, 2)
    assert gpus.only(1) == {"CUDA_VISIBLE_DEVICES": uuids[1]}


@pytest.mark.parametrize("setting", ["2,", "2,,1"])
def test_a_daemon_is_left_what_is_named_ahead_of_an_empty_word(
    machine: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    equip(monkeypatch, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    served = mps.start()
    served.close()
    assert served.environment["CUDA_VISIBLE_DEVICES"] == UUIDS[2]


@pytest.mark.parametrize("setting", [None, "", "0,MIG-1"])
def test_a_daemon_is_left_what_it_is_where_no_whole_gpus_are_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    equip(monkeypatch, 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    served = mps.start()
    served.close()
    assert "CUDA_VISIBLE_DEVICES" not in served.environment


@pytest.mark.parametrize(("order", "is_named"), [("", False), ("PCI_BUS_ID", True)])
def test_a_number_is_no_uuid_where_cuda_may_sort_unequal_cards(
    machine: Path, monkeypatch: pytest.MonkeyPatch, order: str, is_named: bool
) -> None:
    equip(monkeypatch, 2)
    unequal = [msgspec.structs.replace(gpu, name=name) for gpu, name in zip(gpus.inventory(), "ab", strict=True)]
    monkeypatch.setattr(gpus, "present", lambda: unequal)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    served = mps.start()
    served.close()
    assert served.environment.get("CUDA_VISIBLE_DEVICES") == (unequal[1].uuid if is_named else None)


def test_a_daemon_can_be_started_again(machine: Path) -> None:
    mps.start().close()
    again = mps.start()
    assert runs(pid_of(again.environment[mps.PIPES]))
    again.close()


@pytest.fixture
def running(machine: Path) -> Iterator[int]:
    """A daemon that another user has started in the default place."""
    pipes = machine / "default"
    environment = {**os.environ, mps.PIPES: str(pipes)}
    subprocess.run([mps.CONTROL, "-d"], env=environment, check=True, stdout=subprocess.DEVNULL)
    yield pid_of(pipes)
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


def test_without_the_program_ranks_take_turns_and_the_reason_is_shown(machine: Path) -> None:
    (machine / "bin" / mps.CONTROL).unlink()
    served = mps.start()
    served.close()
    assert (served.environment, served.has_daemon) == ({}, False)
    assert served.how == "taking turns, which is slow: nvidia-cuda-mps-control is not on the PATH"


def test_where_the_daemon_does_not_start_ranks_take_turns_and_the_reason_is_shown(
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
        pid = pid_of(pipes)
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


def test_ranks_with_a_gpu_each_start_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(mps, "start", lambda: started.append("started"))
    with World(2, "sim"):
        assert started == []
