"""The GPU that a rank computes on, through PyTorch.

Invariant: making the device makes this process's CUDA context on that GPU, and on no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import torch

from harness.errors import MachineError
from harness.machine.compiler import compiler
from harness.substrate.device import Copy, Device, Graph
from harness.substrate.tables import GraphTables, Tables

CYCLES = 2_000_000
"""Of a millisecond, at the highest clock of a data-centre GPU. PyTorch's kernel that sleeps counts them."""


class NcclDevice(Device):
    """The GPU number `gpu` of this process. `is_in_pool`: whether this thread's allocations go to a pool."""

    def __init__(self, gpu: int, is_in_pool: Callable[[], bool] = lambda: False) -> None:
        torch.cuda.set_device(gpu)
        torch.empty(1, device="cuda")
        self.torch_device = torch.device("cuda", gpu)
        # Ranks that share a GPU need MPS to run side by side, and a kernel that spins then takes 4 to 7 ms.
        self.has_barrier = os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1"
        self._streams: dict[int, torch.cuda.Stream] = {}
        self._tables, self._is_in_pool = Tables(self.torch_device), is_in_pool
        self._tables_of_graph: GraphTables | None = None

    @contextmanager
    def stream(self, index: int) -> Iterator[None]:
        if index not in self._streams:
            own = torch.cuda.Stream if index else torch.cuda.default_stream
            self._streams[index] = own()
        with torch.cuda.stream(self._streams[index]):
            yield

    def record_stream(self, tensor: torch.Tensor) -> None:
        tensor.record_stream(torch.cuda.current_stream())

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        spare = torch.empty(1, dtype=torch.uint8, device=self.torch_device)
        self.move_by_kernel(spare, spare)  # a kernel is loaded when it first runs, which no capture allows
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # CUDA captures no work of the default stream; without a stream PyTorch takes one of its own.
        stream = None if current == torch.cuda.default_stream() else current
        with self.tables_of(graph), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            yield graph

    @contextmanager
    def tables_of(self, graph: Any) -> Iterator[None]:
        """Give the tables that are asked for in here to `graph`, which is captured in here."""
        tables = graph.tables = self._tables_of_graph = GraphTables(self.torch_device)
        try:
            yield
        finally:
            self._tables_of_graph = None
        tables.fill()
        torch.cuda.synchronize()  # any stream may replay it

    @property
    def is_capturing(self) -> bool:
        return bool(torch.cuda.is_current_stream_capturing())

    @cached_property
    def _processors(self) -> int:
        return int(torch.cuda.get_device_properties(self.torch_device).multi_processor_count)

    @property
    def most_blocks(self) -> int:
        return max(1, self._processors // self.sharing)

    def reclaim(self) -> None:
        self.synchronize()
        # PyTorch returns blocks that other streams used at a later allocation, and at none inside `use_mem_pool`.
        torch.empty(1, device=self.torch_device)

    def table(self, numbers: Sequence[int]) -> torch.Tensor:
        if self.is_capturing:  # no copy from the host may be captured, and no graph may need what is kept elsewhere
            found = self._tables_of_graph.of(numbers) if self._tables_of_graph is not None else None
            return _filled(numbers, self.torch_device) if found is None else found
        if self._is_in_pool():  # a block of the pool would be in use for as long as the table is kept
            return super().table(numbers)
        return self._tables.of(numbers, torch._C._cuda_getCurrentRawStream(self.torch_device.index))

    def view(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size)

    def reach(self, address: int, size: int) -> torch.Tensor:
        # as one of this GPU: `as_tensor` asks CUDA, and gives a peer's memory to the peer's GPU (see `read`)
        storage = torch._C._construct_storage_from_data_pointer(address, self.torch_device, size)
        return torch.empty(0, dtype=torch.uint8, device=self.torch_device).set_(storage, 0, (size,), (1,))

    def copy(self, address: int, size: int, known: Copy | None = None) -> Copy:
        return tensor_at(address, size).clone()

    def read(self, address: int, size: int) -> torch.Tensor:
        from cuda.bindings import runtime  # noqa: PLC0415  (for the one kind of evidence that reads its peers)

        # A tensor over a peer's memory would belong to the peer's GPU, as CUDA says of the pointer. That GPU's context
        # in this process has no mapping of it: only this rank's own was given access.
        copy = torch.empty(size, dtype=torch.uint8, device=self.torch_device)
        stream, kind = torch.cuda.current_stream().cuda_stream, runtime.cudaMemcpyKind.cudaMemcpyDefault
        (error,) = runtime.cudaMemcpyAsync(copy.data_ptr(), address, size, kind, stream)
        if error != runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA cannot copy {size} bytes from {address:#x}: {error.name}")
        return copy

    def move_by_kernel(self, target: torch.Tensor, source: torch.Tensor) -> None:
        if not _lets_start_early() or not target.numel():
            super().move_by_kernel(target, source)
            return
        from harness.kernels import early  # noqa: PLC0415  (triton, only where calls are in flight)

        programs, held = -(-target.numel() // early.BLOCK), early.CAPTURED if self.is_capturing else early.EAGER
        early.early_move_kernel[(programs,)](target, source, target.numel(), held, early.BLOCK)

    def enqueue(self, work: Callable[[], object], is_collective: bool = False) -> None:
        work()  # on the current stream, which captures or runs

    def stall(self, milliseconds: int) -> None:
        torch.cuda._sleep(milliseconds * CYCLES)  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        if not self.is_capturing:  # CUDA allows no synchronization of the device during a capture
            torch.cuda.synchronize()


@cache
def _lets_start_early() -> bool:
    """Whether a kernel can let the next one start (sm_90), and Triton can compile its launcher."""
    try:
        compiler()
    except MachineError:
        return False
    return torch.cuda.get_device_capability() >= (9, 0)


class _Raw:
    """Device memory that PyTorch wraps without a copy."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


def tensor_at(address: int, size: int) -> torch.Tensor:
    """uint8[size] over memory of this process's GPU. The caller keeps the memory alive."""
    return torch.as_tensor(_Raw(address, size), device="cuda")


def _filled(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """int64 of these numbers, which kernels store: each has its own as an argument."""
    made = torch.empty(len(numbers), dtype=torch.int64, device=device)
    for each, number in zip(made, numbers, strict=True):
        each.fill_(number)
    return made
