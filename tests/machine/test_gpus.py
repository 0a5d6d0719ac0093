"""GPUs: what `CUDA_VISIBLE_DEVICES` leaves, which NCCL is there, and what ranks on NCCL are told."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from harness.machine.gpus import Gpu, inventory, visible
from harness.machine.nccl import environment as nccl_environment
from harness.machine.nccl import node_environment
from harness.machine.nccl import version as nccl_version

FOUND = [Gpu(f"GPU-{letter * 4}-{index}", f"card {index}", 80 << 30, "600.1") for index, letter in enumerate("abc")]


def chosen(setting: str | None) -> list[int]:
    """Positions among all GPUs of those that a setting leaves, in its order."""
    return [FOUND.index(gpu) for gpu in visible(FOUND, setting)]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with the three GPUs above, in place of the real one; `open` counts sessions not shut down."""
    fake = SimpleNamespace(open=0)

    def session(change: int) -> None:
        fake.open += change

    fake.nvmlInit = lambda: session(1)
    fake.nvmlShutdown = lambda: session(-1)
    fake.nvmlSystemGetDriverVersion = lambda: "600.1"
    fake.nvmlDeviceGetCount = lambda: len(FOUND)
    fake.nvmlDeviceGetHandleByIndex = lambda index: FOUND[index]
    fake.nvmlDeviceGetUUID = lambda gpu: gpu.uuid
    fake.nvmlDeviceGetName = lambda gpu: gpu.name
    fake.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(total=gpu.memory)
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


# CUDA_VISIBLE_DEVICES


def test_without_a_setting_every_gpu_is_visible() -> None:
    assert chosen(None) == [0, 1, 2]


def test_an_empty_setting_hides_every_gpu() -> None:
    assert chosen("") == []


@pytest.mark.parametrize(("setting", "order"), [("0", [0]), ("2,0", [2, 0]), ("1,2,0", [1, 2, 0])])
def test_indices_choose_gpus_in_their_order(setting: str, order: list[int]) -> None:
    assert chosen(setting) == order


def test_spaces_around_an_index_mean_nothing() -> None:
    assert chosen(" 2 , 1 ") == [2, 1]


@pytest.mark.parametrize("unknown", ["-1", "3", "GPU-dddd", "NoDevFiles"])
def test_a_name_for_no_gpu_hides_those_behind_it(unknown: str) -> None:
    assert chosen(f"1,{unknown},0") == [1]


def test_a_whole_uuid_chooses_its_gpu() -> None:
    assert chosen("GPU-bbbb-1") == [1]


def test_the_beginning_of_a_uuid_chooses_its_gpu() -> None:
    assert chosen("GPU-c,GPU-aa") == [2, 0]


def test_indices_and_uuids_may_be_mixed() -> None:
    assert chosen("GPU-cccc-2,0") == [2, 0]


# the driver


def test_the_inventory_lists_what_the_driver_has(driver: SimpleNamespace) -> None:
    assert inventory() == FOUND


def test_the_inventory_heeds_cuda_visible_devices(driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert inventory() == [FOUND[2], FOUND[1]]


def test_the_inventory_closes_its_session(driver: SimpleNamespace) -> None:
    inventory()
    assert driver.open == 0


def test_the_inventory_is_empty_without_the_drivers_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert inventory() == []


def test_the_inventory_is_empty_without_a_driver(driver: SimpleNamespace) -> None:
    def refuse() -> None:
        raise RuntimeError("Driver Not Loaded")

    driver.nvmlInit = refuse
    assert inventory() == []


# NCCL


def with_nccl(monkeypatch: pytest.MonkeyPatch, get_version: Any) -> None:
    bindings = SimpleNamespace(nccl=SimpleNamespace(get_version=get_version))
    monkeypatch.setitem(sys.modules, "nccl.bindings", bindings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "version"), [(22703, (2, 27, 3)), (23000, (2, 30, 0)), (23212, (2, 32, 12))])
def test_the_version_number_of_nccl_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch, number: int, version: tuple[int, int, int]
) -> None:
    with_nccl(monkeypatch, lambda: number)
    assert nccl_version() == version


def test_no_version_without_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nccl.bindings", None)
    assert nccl_version() is None


def test_no_version_where_the_library_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise RuntimeError("libnccl.so.2: cannot open shared object file")

    with_nccl(monkeypatch, refuse)
    assert nccl_version() is None


# the environment of ranks


@pytest.mark.parametrize("ranks_per_gpu", [1, 2, 16])
def test_multicast_is_always_off(ranks_per_gpu: int) -> None:
    environment = nccl_environment(ranks_per_gpu)
    assert (environment["NCCL_NVLS_ENABLE"], environment["TORCH_SYMM_MEM_DISABLE_MULTICAST"]) == ("0", "1")


def test_a_rank_with_a_gpu_of_its_own_is_not_held_back() -> None:
    assert not {"NCCL_MULTI_RANK_GPU_ENABLE", "NCCL_MAX_CTAS"} & nccl_environment(1).keys()


@pytest.mark.parametrize("ranks_per_gpu", [2, 8, 16])
def test_ranks_that_share_a_gpu_are_allowed_to(ranks_per_gpu: int) -> None:
    assert nccl_environment(ranks_per_gpu)["NCCL_MULTI_RANK_GPU_ENABLE"] == "1"


@pytest.mark.parametrize(("ranks_per_gpu", "blocks"), [(2, "16"), (4, "8"), (8, "4"), (16, "2"), (40, "1")])
def test_the_more_ranks_share_a_gpu_the_fewer_blocks_each_may_use(ranks_per_gpu: int, blocks: str) -> None:
    assert nccl_environment(ranks_per_gpu)["NCCL_MAX_CTAS"] == blocks


def test_a_limit_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_MAX_CTAS", "7")
    assert nccl_environment(8)["NCCL_MAX_CTAS"] == "7"


def test_processes_of_two_nodes_say_that_they_are_on_different_hosts() -> None:
    assert node_environment(0)["NCCL_HOSTID"] != node_environment(1)["NCCL_HOSTID"]


def test_processes_of_different_nodes_talk_over_sockets() -> None:
    assert (node_environment(0)["NCCL_NET"], node_environment(0)["NCCL_MNNVL_ENABLE"]) == ("Socket", "0")
