"""NCCL's calls as a log, for the decisions around them on a machine without a GPU.

A fake answers as NCCL does and moves no data: what the calls do is tested on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Calls = list[tuple[Any, ...]]


class FakeComm:
    """A communicator of nccl4py that notes its calls. `split` gives fakes of `size_of(color)` ranks."""

    def __init__(
        self,
        calls: Calls,
        name: str = "base",
        nranks: int = 1,
        size_of: Callable[[int | None], int] = lambda color: 1,
        has_windows: bool = True,
    ) -> None:
        self.calls, self.name, self.nranks, self.ptr = calls, name, nranks, 7
        self._comm, self._size_of, self._splits, self._has_windows = name, size_of, 0, has_windows
        self.properties = SimpleNamespace(device_api_support=has_windows, n_lsa_teams=1 if has_windows else 2)
        self.last_error = ""

    def split(self, color: int | None, key: int) -> FakeComm:
        self._splits += 1
        name = f"{self.name}.{self._splits}"
        self.calls.append(("split", self.name, color, key, name))
        return FakeComm(self.calls, name, self._size_of(color), self._size_of, self._has_windows)

    def destroy(self) -> None:
        self.calls.append(("destroy", self.name))

    def get_last_error(self) -> str:
        return self.last_error

    def allgather(self, source: torch.Tensor, output: torch.Tensor, stream: int, config: Any) -> None:
        self.calls.append(("allgather", selection(config)))

    def reduce_scatter(self, source: torch.Tensor, output: torch.Tensor, op: Any, stream: int, config: Any) -> None:
        self.calls.append(("reduce_scatter", selection(config)))

    def allreduce(self, source: torch.Tensor, output: torch.Tensor, op: Any, stream: int, config: Any) -> None:
        self.calls.append(("allreduce", selection(config)))

    def alltoall(self, source: torch.Tensor, output: torch.Tensor, stream: int, config: Any = None) -> None:
        self.calls.append(("alltoall", selection(config)))

    def broadcast(self, source: torch.Tensor, output: torch.Tensor, root: int, stream: int) -> None:
        self.calls.append(("broadcast", root, output.numel()))

    def reduce(self, source: torch.Tensor, output: torch.Tensor, op: Any, root: int, stream: int) -> None:
        self.calls.append(("reduce", root, source.numel()))


def selection(config: Any) -> str:
    """The algorithm selection that a call is forced to, or its policy; empty for neither."""
    return "" if config is None else str(config.alg_selection or config.cta_policy)


def fake_calls(monkeypatch: pytest.MonkeyPatch, calls: Calls, window: object = 0x40) -> None:
    """Replace NCCL's calls on memory and windows. `window` is what a registration gives."""
    nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")
    results = {
        "mem_alloc": 0x100000,
        "mem_free": None,
        "comm_window_register": window,
        "comm_window_deregister": None,
    }
    for name, result in results.items():
        monkeypatch.setattr(nccl, name, _noted(calls, name, result))
    monkeypatch.setattr(nccl, "get_peer_device_pointer", lambda handle, offset, peer: 4096 * (peer + 1) + offset)


def real_memory(monkeypatch: pytest.MonkeyPatch, calls: Calls, size: int) -> int:
    """Have NCCL's allocator give memory of this process, of `size` bytes that are not zero. Returns its address."""
    nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")
    memory = torch.full((size,), 99, dtype=torch.uint8)
    monkeypatch.setattr(nccl, "mem_alloc", _noted(calls, "mem_alloc", memory.data_ptr()))
    monkeypatch.setattr(nccl, "mem_free", lambda address, kept=memory: calls.append(("mem_free", address)))
    return memory.data_ptr()


def _noted(calls: Calls, name: str, result: object) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        calls.append((name, *arguments))
        return result

    return call
