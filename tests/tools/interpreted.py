"""What the interpreter's process can do: run a collective for every rank of a group, a barrier, a rounding.

Memory is numpy's and tensors go as integers of their width, because torch's pickles share memory by descriptor.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime.interpreter import TensorHandle, interpreter_builder

from harness.kernels.barrier import barrier_kernel
from harness.kernels.rounding import to_bfloat16_bits
from harness.rank.main import die_with_parent
from harness.system.collectives import TritonCollectives
from tests.tools import far
from tests.tools.interpreter import serve

Bits = NDArray[Any]
FENCE = 64
"""Elements on either side of an output that must not change."""
FENCE_BYTE = 0xA5


class OneProcess:
    """The context of one rank of a group whose ranks all run here, one after the other, so that none need wait."""

    device, counts = torch.device("cpu"), ()

    def __init__(self, rank: int, whole: list[torch.Tensor]) -> None:
        self.rank, self.size, self._whole = rank, len(whole), whole

    def peer_addresses(self, tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.data_ptr() == self._whole[self.rank].data_ptr()
        return torch.tensor([each.data_ptr() for each in self._whole])

    def barrier(self) -> None:
        pass


Shifts = list[int]
"""For each rank, by how many elements a tensor lies behind an address that is a multiple of 64 bytes."""


def _fenced(count: int, dtype: torch.dtype, shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Memory filled with a pattern, and `count` elements in the middle of it."""
    memory = torch.full(((count + shift + 2 * FENCE) * dtype.itemsize,), FENCE_BYTE, dtype=torch.uint8).view(dtype)
    return memory, memory[FENCE + shift : FENCE + shift + count]


def _placed(sources: list[Bits], dtype: str, shifts: Shifts) -> list[torch.Tensor]:
    """Sources that are given as bytes."""
    tensors = [torch.from_numpy(source).view(getattr(torch, dtype)) for source in sources]
    placed = [_fenced(each.numel(), each.dtype, shift)[1] for each, shift in zip(tensors, shifts, strict=True)]
    for tensor, place in zip(tensors, placed, strict=True):
        place.view(torch.uint8).copy_(tensor.view(torch.uint8))
    return placed


def _taken(fenced: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[Bits], bool]:
    """The outputs as bytes, and whether the fences around them are whole."""
    outputs, whole = [output.view(torch.uint8).numpy().copy() for _, output in fenced], True
    for memory, output in fenced:
        output.view(torch.uint8).fill_(FENCE_BYTE)
        whole = whole and bool((memory.view(torch.uint8) == FENCE_BYTE).all())
    return outputs, whole


def _pushed(
    kind: str, sources: list[Bits], dtype: str, peers: Shifts | None, own: Shifts | None
) -> tuple[list[Bits], bool]:
    kernels, even = TritonCollectives(), [0] * len(sources)
    tensors = _placed(sources, dtype, own or even)
    count = tensors[0].numel() * (len(tensors) if kind == "all_gather" else 1)
    fenced = [_fenced(count, tensors[0].dtype, shift) for shift in peers or even]
    outputs = [output for _, output in fenced]
    for rank, source in enumerate(tensors):
        getattr(kernels, kind)(OneProcess(rank, outputs), outputs[rank], source)
    return _taken(fenced)


def all_gather(
    sources: list[Bits], dtype: str, peers: Shifts | None = None, own: Shifts | None = None
) -> tuple[list[Bits], bool]:
    """Outputs of every rank as bytes, for sources as bytes, and whether nothing else was written. `peers` are the
    shifts of the tensors that peers address, `own` those of the others."""
    return _pushed("all_gather", sources, dtype, peers, own)


def all_to_all(
    sources: list[Bits], dtype: str, peers: Shifts | None = None, own: Shifts | None = None
) -> tuple[list[Bits], bool]:
    """The same."""
    return _pushed("all_to_all", sources, dtype, peers, own)


def reduce_scatter(
    sources: list[Bits], dtype: str, op: str, peers: Shifts | None = None, own: Shifts | None = None
) -> tuple[list[Bits], bool]:
    """The same."""
    kernels, even = TritonCollectives(), [0] * len(sources)
    tensors = _placed(sources, dtype, peers or even)
    fenced = [_fenced(tensors[0].numel() // len(tensors), tensors[0].dtype, shift) for shift in own or even]
    for rank, (_, output) in enumerate(fenced):
        kernels.reduce_scatter(OneProcess(rank, tensors), output, tensors[rank], op)  # type: ignore[arg-type]
    return _taken(fenced)


def stored(kind: str, sources: list[Bits], dtype: str, peers: Shifts, own: Shifts) -> dict[int, int]:
    """How many elements of each width in bytes a call stores."""
    widths: dict[int, int] = {}

    def store(pointers: Any, value: Any, mask: Any, *more: Any) -> Any:
        width = value.data.dtype.itemsize
        widths[width] = widths.get(width, 0) + int(mask.data.sum())
        return done(pointers, value, mask, *more)

    done, interpreter_builder.create_masked_store = interpreter_builder.create_masked_store, store
    try:
        _pushed(kind, sources, dtype, peers, own)
    finally:
        interpreter_builder.create_masked_store = done
    return {width: count for width, count in widths.items() if count}


@triton.jit
def _round(words, rounded, block: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(words + index).to(tl.float32, bitcast=True)
    tl.store(rounded + index, to_bfloat16_bits(value))


def round_to_bfloat16(words: NDArray[np.int32]) -> NDArray[np.int16]:
    """bfloat16 bits of float32 bits; a multiple of 65536 of them."""
    rounded = torch.empty(len(words), dtype=torch.int16)
    _round[len(words) >> 16,](torch.from_numpy(words), rounded, block=1 << 16)
    return rounded.numpy()


def signals(rank: int, size: int, epoch: int, earlier: list[int]) -> list[list[int]]:
    """Pads of a group after one rank has passed `epoch`, its own having held `earlier`; a word behind each is -1."""
    pads = torch.zeros(size, size + 1, dtype=torch.int32)
    pads[:, size] = -1
    pads[rank, :size] = torch.tensor(earlier, dtype=torch.int32)
    addresses = torch.tensor([pad.data_ptr() for pad in pads])
    barrier_kernel[(1,)](addresses, rank, epoch, SIZE=size, LANES=triton.next_power_of_2(size))
    return pads.tolist()  # type: ignore[no-any-return]


def meet(size: int, epochs: int, barrier: bool) -> int:
    """How often a rank left an epoch before another had entered it; each in turn is the late one.

    Ranks are forked processes over shared memory. Without `barrier` they do not wait at all.
    """
    shared = mmap.mmap(-1, 1 << 16)
    entered = np.frombuffer(shared, np.int32, size)
    early = np.frombuffer(shared, np.int32, size, offset=4096)
    pads = torch.from_numpy(np.frombuffer(shared, np.int32, size * size, offset=8192).reshape(size, size))
    addresses = torch.tensor([pad.data_ptr() for pad in pads])
    parent, children = os.getpid(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            die_with_parent(parent)  # should the barrier never let go
            for epoch in range(1, epochs + 1):
                if epoch % size == rank:
                    time.sleep(0.02)
                entered[rank] = epoch
                if barrier:
                    barrier_kernel[(1,)](addresses, rank, epoch, SIZE=size, LANES=triton.next_power_of_2(size))
                early[rank] += int(entered.min() < epoch)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return int(early.sum())


def check_marks() -> None:
    """From here on, raise where a kernel marks a pointer as a multiple of what it is not: a GPU would fault there."""
    mark = TensorHandle.set_attr

    def checked(handle: Any, key: str, values: Any) -> None:
        if key == "tt.divisibility" and any(int(handle.data[0]) % value for value in values):
            raise AssertionError(f"{handle.data} is marked as a multiple of {values}")
        mark(handle, key, values)

    TensorHandle.set_attr = checked


if __name__ == "__main__":
    check_marks()
    functions = (
        all_gather,
        all_to_all,
        reduce_scatter,
        stored,
        round_to_bfloat16,
        signals,
        meet,
        far.last_block,
        far.chunk,
    )
    serve(Connection(int(sys.argv[1])), {function.__name__: function for function in functions})
