"""The device of a rank without a GPU: memory of this process, and work that is done at once.

Invariant: work runs when it is enqueued, so no stream ever waits for another; captured work runs at replays alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import string_at

import numpy as np
import torch

from harness.substrate.device import Copy, Device, Graph


class SimGraph:
    """Device work in the order of its capture."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


class SimDevice(Device):
    """Streams are numbers: they decide which free blocks an allocation may take, and nothing else."""

    torch_device = torch.device("cpu")
    has_barrier = True

    def __init__(self) -> None:
        self.current_stream = 0
        self._graph: SimGraph | None = None

    @contextmanager
    def stream(self, index: int) -> Iterator[None]:
        before, self.current_stream = self.current_stream, index
        try:
            yield
        finally:
            self.current_stream = before

    def record_stream(self, tensor: torch.Tensor) -> None:
        """Nothing: enqueued work is done by the time that this is called."""

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        self._graph = graph = SimGraph()
        try:
            yield graph
        finally:
            self._graph = None

    @property
    def is_capturing(self) -> bool:
        return self._graph is not None

    def view(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size, torch.uint8)

    def copy(self, address: int, size: int) -> Copy:
        return string_at(address, size)

    def read(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size, torch.uint8).clone()

    def enqueue(self, work: Callable[[], None]) -> None:
        if self._graph is None:
            work()
        else:
            self._graph.work.append(work)

    def synchronize(self) -> None:
        """Nothing: enqueued work is done by the time that this is called."""


class _At:
    """Memory that NumPy wraps without a copy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}


def tensor_at(address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """A view of `count` elements at an address of this process. The caller keeps the memory alive."""
    return torch.from_numpy(np.asarray(_At(address, count * dtype.itemsize))).view(dtype)
