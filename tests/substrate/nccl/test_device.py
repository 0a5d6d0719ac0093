"""The GPU's decisions that need no GPU: when it synchronizes, and whether kernels may wait for each other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.substrate.nccl.device import NcclDevice

SHARED = "NCCL_MULTI_RANK_GPU_ENABLE"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of PyTorch, in their order."""
    asked: list[str] = []
    monkeypatch.delenv(SHARED, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: asked.append(f"set_device {gpu}"))
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(f"empty on {device}"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return asked


def test_the_context_is_made_on_the_ranks_own_gpu(asked: list[str]) -> None:
    assert (NcclDevice(3).torch_device, asked) == (torch.device("cuda", 3), ["set_device 3", "empty on cuda"])


@pytest.mark.parametrize(("is_shared", "has_barrier"), [("", True), ("0", True), ("1", False)])
def test_kernels_wait_for_each_other_where_each_rank_has_a_gpu(
    is_shared: str, has_barrier: bool, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARED, is_shared)
    assert NcclDevice(0).has_barrier is has_barrier


def test_a_capture_is_not_synchronized(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device = NcclDevice(0)
    asked.clear()
    device.synchronize()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    device.synchronize()
    assert asked == ["synchronize"]


def test_blocks_are_reclaimed_by_an_allocation_after_the_device_is_idle(asked: list[str]) -> None:
    device = NcclDevice(1)
    asked.clear()
    device.reclaim()
    assert asked == ["synchronize", "empty on cuda:1"]


def test_work_is_enqueued_at_once(asked: list[str]) -> None:
    NcclDevice(0).enqueue(lambda: asked.append("work"))
    assert asked[-1] == "work"


def test_tables_are_kept_but_for_those_in_the_memory_of_a_pool(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_in_pool, tensor = [False], torch.tensor
    stream = [7]
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda gpu: stream[gpu], raising=False)
    monkeypatch.setattr(torch, "tensor", lambda numbers, dtype, device: tensor(numbers, dtype=dtype))
    device = NcclDevice(0, lambda: is_in_pool[0])
    kept = device.table([1, 2])
    is_in_pool[0] = True
    assert device.table([1, 2]) is not kept
    is_in_pool[0] = False
    assert device.table([1, 2]) is kept
    stream[0] = 8
    assert device.table([1, 2]) is not kept


@pytest.mark.parametrize(("sharing", "blocks"), [(1, 132), (4, 33), (200, 1)])
def test_ranks_that_share_a_gpu_share_its_multiprocessors(
    sharing: int, blocks: int, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = [SimpleNamespace(multi_processor_count=132)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties.pop())
    device = NcclDevice(0)
    assert device.most_blocks == 132
    device.sharing = sharing  # of the next draw; PyTorch is asked once
    assert device.most_blocks == blocks
