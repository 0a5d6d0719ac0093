"""GPUs: which the driver has, and which `CUDA_VISIBLE_DEVICES` leaves."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from harness.machine.gpus import Gpu, inventory, number, only, visible, why_no_gpu

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


@pytest.mark.parametrize("unknown", ["-1", "3", "GPU-dddd", "NoDevFiles", "", "GPU-"])
def test_a_name_for_no_gpu_or_for_several_hides_those_behind_it(unknown: str) -> None:
    assert chosen(f"1,{unknown},0") == [1]


def test_a_whole_uuid_chooses_its_gpu() -> None:
    assert chosen("GPU-bbbb-1") == [1]


def test_the_beginning_of_a_uuid_chooses_its_gpu() -> None:
    assert chosen("GPU-c,GPU-aa") == [2, 0]


def test_indices_and_uuids_may_be_mixed() -> None:
    assert chosen("GPU-cccc-2,0") == [2, 0]


@pytest.mark.parametrize("setting", ["0,0", "1,2,1", "GPU-aaaa-0,GPU-aa", "GPU-bb,1"])
def test_a_gpu_that_is_named_twice_hides_all(setting: str) -> None:
    """Else the leases of a run would wait for a second one in vain."""
    assert chosen(setting) == []


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


@pytest.mark.parametrize(
    ("setting", "why"), [("1,1", " (CUDA_VISIBLE_DEVICES='1,1' leaves none of 3 GPUs)"), ("", ""), (None, "")]
)
def test_a_setting_that_leaves_no_gpu_is_the_reason_unless_it_says_so(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, setting: str | None, why: str
) -> None:
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert why_no_gpu() == why


@pytest.mark.parametrize(("count", "shown"), [(1, "1 GPU"), (2, "2 GPUs")])
def test_gpus_are_counted_in_words(count: int, shown: str) -> None:
    assert number([Gpu("GPU-0", "card", 80 << 30, "600.1")] * count) == shown


@pytest.mark.parametrize(("setting", "left"), [(None, "1"), ("2,0", "0"), ("GPU-a, GPU-b", "GPU-b")])
def test_a_process_that_sees_one_gpu_alone_sees_the_one_of_that_index(
    setting: str | None, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert only(1) == {"CUDA_VISIBLE_DEVICES": left}
