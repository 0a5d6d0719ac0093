"""What the driver is given at a launch: a fake one notes it, so no GPU is needed."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from threading import Barrier
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.system import cuda
from harness.system.cuda import CudaSource
from tests.tools.launched import SOURCE
from tests.tools.nvrtc import needs_nvrtc

STREAM, FUNCTION = 0x77, 0x1001


class Ranks(ctypes.Structure):
    _fields_ = [("at", ctypes.c_int64 * 4), ("rank", ctypes.c_int32)]


class Either(ctypes.Union):
    _fields_ = [("word", ctypes.c_uint32), ("half", ctypes.c_uint16)]


class Error(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1


class Driver(SimpleNamespace):
    """As `cuda.bindings.driver`, as far as a launch goes. It copies arguments of so many bytes."""

    CUlaunchConfig = CUlaunchAttribute = SimpleNamespace
    CUstream = int
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="most shared")
    CUlaunchAttributeID = SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION="early")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_old = False
        self.error, self.set_error = Error.CUDA_SUCCESS, Error.CUDA_SUCCESS
        self.seen: list[list[bytes]] = []
        self.configs: list[Any] = []
        self.set: list[tuple[object, ...]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.CUlaunchAttribute = lambda: SimpleNamespace(value=SimpleNamespace())

    def cuKernelGetFunction(self, kernel: int) -> tuple[Error, int]:  # noqa: N802
        return Error.CUDA_SUCCESS, kernel + 1

    def cuFuncSetAttribute(self, *given: object) -> tuple[Error]:  # noqa: N802
        self.set.append(given)
        return (self.set_error,)

    def cuLaunchKernelEx(self, config: Any, function: int, pointers: int, extra: int) -> tuple[Error]:  # noqa: N802
        self.meanwhile()
        assert (function, extra) == (FUNCTION, 0)
        at = (ctypes.c_void_p * len(self.sizes)).from_address(pointers)
        assert all(each % 16 == 0 for each in at)
        self.seen.append([ctypes.string_at(each, size) for each, size in zip(at, self.sizes, strict=True)])
        self.configs.append(config)
        return (self.error,)


class Loaded:
    """As cuda-core's kernel."""

    handle = FUNCTION - 1

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def arguments_info(self) -> list[SimpleNamespace]:
        if self._driver.is_old:
            raise NotImplementedError("Driver version 12.4 or newer is required")
        return [SimpleNamespace(size=size) for size in self._driver.sizes]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    fake, bindings = Driver(), ModuleType("cuda.bindings")
    bindings.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: STREAM, raising=False)
    monkeypatch.setattr(cuda, "_loaded", lambda *key: cuda._Kernel(Loaded(fake)))
    cuda._configured.cache_clear()
    return fake


@pytest.fixture
def source(tmp_path: Path) -> CudaSource:
    (tmp_path / "add.cu").write_text("")
    return CudaSource(tmp_path / "add.cu")


@pytest.mark.parametrize(
    ("argument", "due"),
    [
        (np.int64(-5), struct.pack("<q", -5)),
        (np.uint64(2**64 - 1), b"\xff" * 8),
        (np.int32(-5), struct.pack("<i", -5)),
        (np.uint8(200), b"\xc8"),
        (np.bool_(True), b"\x01"),
        (np.float32(0.1), struct.pack("<f", 0.1)),
        (np.float16(0.5), struct.pack("<e", 0.5)),
        (np.float64("nan"), struct.pack("<d", float("nan"))),
        (np.complex64(1 + 2j), struct.pack("<ff", 1, 2)),
        (ctypes.c_int32(-7), struct.pack("<i", -7)),
        (ctypes.c_bool(True), b"\x01"),
        (ctypes.c_void_p(None), bytes(8)),
        (ctypes.c_float(1.5), struct.pack("<f", 1.5)),
        (Ranks((1, 2, 3, -4), 9), struct.pack("<4qi4x", 1, 2, 3, -4, 9)),
        (Either(0x10002), struct.pack("<I", 0x10002)),
        ((ctypes.c_int64 * 3)(4, 5, 6), struct.pack("<3q", 4, 5, 6)),
    ],
)
def test_a_value_arrives_with_its_width(driver: Driver, source: CudaSource, argument: Any, due: bytes) -> None:
    tensor = torch.zeros(2)
    driver.sizes = [8, len(due), 8]
    source.launch("put", 1, 1, tensor, argument, tensor[1:])
    address = tensor.data_ptr()
    assert driver.seen == [[struct.pack("<Q", address), due, struct.pack("<Q", address + 4)]]


def test_each_launch_has_its_own_values(driver: Driver, source: CudaSource) -> None:
    driver.sizes = [8, 16]
    for turn in range(3):
        source.launch("put", 1, 1, np.int64(turn), (ctypes.c_int64 * 2)(turn, -turn))
    source.launch("put", 1, 1, np.float64(0.5), (ctypes.c_int64 * 2)(7, 8))  # the same widths and other types
    due = [[struct.pack("<q", turn), struct.pack("<2q", turn, -turn)] for turn in range(3)]
    assert driver.seen == [*due, [struct.pack("<d", 0.5), struct.pack("<2q", 7, 8)]]


def test_threads_do_not_write_into_each_other_s_launches(driver: Driver, source: CudaSource) -> None:
    met = Barrier(4)
    driver.sizes, driver.meanwhile = [8], met.wait  # all have packed when the first is copied
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            list(threads.map(lambda number: source.launch("put", 1, 1, np.int64(number)), range(4)))
    assert sorted(driver.seen) == sorted([[struct.pack("<q", number)] for number in range(4)] * 3)


def test_a_kernel_may_have_no_arguments(driver: Driver, source: CudaSource) -> None:
    source.launch("put", 1, 1)
    assert driver.seen == [[]]


@pytest.mark.parametrize("sizes", [[8], [4, 8], [8, 4, 4], []])
def test_sizes_that_are_not_the_kernel_s_are_refused(driver: Driver, source: CudaSource, sizes: list[int]) -> None:
    driver.sizes = sizes
    for _ in range(2):
        with pytest.raises(TypeError, match=r"'put' have \[8, 4\] bytes, and the kernel takes \["):
            source.launch("put", 1, 1, torch.zeros(1), np.int32(5))
    assert not driver.seen


def test_a_driver_that_does_not_know_them_takes_what_is_given(driver: Driver, source: CudaSource) -> None:
    driver.is_old = True
    source.launch("put", 1, 1, np.int32(5))
    assert driver.seen == [[]]


@pytest.mark.parametrize(
    ("grid", "block", "due"),
    [(7, 32, (7, 1, 1, 32, 1, 1)), ((7, 2), (32, 4, 2), (7, 2, 1, 32, 4, 2)), ((7,), (1, 2), (7, 1, 1, 1, 2, 1))],
)
def test_a_launch_is_on_torch_s_stream_with_its_grid(
    driver: Driver, source: CudaSource, grid: Any, block: Any, due: tuple[int, ...]
) -> None:
    source.launch("put", grid, block, shared=1024)
    (config,) = driver.configs
    found = (
        *(getattr(config, f"gridDim{axis}") for axis in "XYZ"),
        *(getattr(config, f"blockDim{axis}") for axis in "XYZ"),
    )
    assert (found, config.sharedMemBytes, config.hStream) == (due, 1024, STREAM)
    assert not hasattr(config, "attrs")


def test_a_grid_has_three_dimensions_at_most(driver: Driver, source: CudaSource) -> None:
    with pytest.raises(ValueError, match="too many values"):
        source.launch("put", (1, 2, 3, 4), 1)


def test_the_stream_is_looked_up_at_each_launch(
    driver: Driver, source: CudaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.launch("put", 1, 1)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 0x99)
    source.launch("put", 1, 1)
    assert [each.hStream for each in driver.configs] == [STREAM, 0x99]


def test_an_early_launch_says_so_and_no_other(driver: Driver, source: CudaSource) -> None:
    for early in (True, False):
        source.launch("put", 1, 1, early=early)
    first, second = driver.configs
    (attribute,) = first.attrs
    assert (first.numAttrs, attribute.id, attribute.value.programmaticStreamSerializationAllowed) == (1, "early", 1)
    assert not hasattr(second, "attrs")


def test_shared_memory_is_asked_for_once_and_again_for_more(driver: Driver, source: CudaSource) -> None:
    for shared in (0, 64 << 10, 32 << 10, 64 << 10, 96 << 10):
        source.launch("put", 1, 1, shared=shared)
    assert driver.set == [(FUNCTION, "most shared", 64 << 10), (FUNCTION, "most shared", 96 << 10)]


@pytest.mark.parametrize("which", ["error", "set_error"])
def test_a_refusal_names_kernel_grid_and_error(driver: Driver, source: CudaSource, which: str) -> None:
    setattr(driver, which, Error.CUDA_ERROR_INVALID_VALUE)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"'put' of add.cu on a grid of \(5, 2\) .*CUDA_ERROR_INVALID_VALUE"):
            source.launch("put", (5, 2), 64, shared=300 << 10)
    assert len(driver.configs) == (2 if which == "error" else 0)


@pytest.mark.parametrize(
    "argument",
    [np.str_("text"), np.datetime64(5, "s"), np.longdouble(1), ctypes.c_char_p(b"x"), ctypes.pointer(ctypes.c_int(1))],
)
def test_what_no_kernel_can_read_is_refused(driver: Driver, source: CudaSource, argument: object) -> None:
    with pytest.raises(TypeError, match="argument 0 of 'put'"):
        source.launch("put", 1, 1, argument)
    assert not driver.seen


@needs_nvrtc
@pytest.mark.parametrize("name", ["unpack", "ahead", "behind", "fill"])
def test_what_gpus_are_tried_with_compiles(name: str) -> None:
    assert SOURCE.compiled(name, "sm_90")
