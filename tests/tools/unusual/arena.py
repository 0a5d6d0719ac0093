"""A right pool policy that takes memory in few large pieces, and gives out parts of them by itself."""

from __future__ import annotations

import weakref
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.system.context import Pool, ProcessGroup, RankContext
from harness.system.planted.sound import Sound

CHUNK = 10 << 20
"""Bytes of a piece, unless one buffer needs more."""
ALIGNMENT = 512


class Arena(Sound):
    """Cuts buffers from a few large tensors that it holds to the end, by first fit. The harness's pools see no buffer.

    Right on one stream, as it knows no other. The ranks of a group ask for the same sizes and drop them at the same
    steps, so that their cuts are equal. A buffer has a storage of its own, whose end gives the cut back. A graph has
    pieces of its own.
    """

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._pieces: dict[str, list[_Piece]] = {}

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self.pool(group)
        with _Cutting(self._pieces.setdefault(pool.name, []), pool):
            yield
        if self.may_register(group):
            self.register_all(pool.segments, group)

    def close(self) -> None:
        self._pieces.clear()
        super().close()


class _Cutting(TorchDispatchMode):
    """Has every new tensor be a cut of the pieces."""

    def __init__(self, pieces: list[_Piece], pool: Pool) -> None:
        super().__init__()
        self._pieces, self._pool = pieces, pool

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.empty.memory_format:
            return func(*args, **(kwargs or {}))
        dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
        nbytes, device = args[0][0] * dtype.itemsize, torch.device((kwargs or {})["device"])
        cut = next((cut for piece in self._pieces if (cut := piece.cut(nbytes)) is not None), None)
        if cut is None:
            with self._pool.use():
                memory = torch.empty(max(CHUNK, _rounded(nbytes)), dtype=torch.uint8, device=device)
            self._pieces.append(_Piece(memory))
            cut = self._pieces[-1].cut(nbytes)
            assert cut is not None, "a new piece has room for the buffer that it was made for"
        return cut.view(dtype)


class _Piece:
    """A large tensor, and which spans of it are free, by their begins."""

    def __init__(self, memory: torch.Tensor) -> None:
        self._memory = memory
        self._free = [(0, memory.numel())]
        self._was_used = False

    def cut(self, nbytes: int) -> torch.Tensor | None:
        size = _rounded(nbytes)
        found = next(((start, end) for start, end in self._free if end - start >= size), None)
        if found is None:
            return None
        start, end = found[0], found[0] + size
        self._free.remove(found)
        if end < found[1]:
            insort(self._free, (end, found[1]))
        if self._was_used and self._memory.is_cuda and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()  # whichever stream the last one to have these bytes was used on
        cut = _Cut(self._memory.data_ptr() + start, nbytes)
        weakref.finalize(cut, self._give_back, start, end)
        if self._memory.is_cuda:
            return torch.as_tensor(cut, device=self._memory.device)
        return torch.from_numpy(np.asarray(cut))

    def _give_back(self, start: int, end: int) -> None:
        self._was_used = True
        for span in [span for span in self._free if span[1] == start or span[0] == end]:
            self._free.remove(span)
            start, end = min(start, span[0]), max(end, span[1])
        insort(self._free, (start, end))


class _Cut:
    """Bytes that NumPy and torch wrap without a copy, and hold as long as a tensor has their storage."""

    def __init__(self, address: int, nbytes: int) -> None:
        shared = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}
        self.__array_interface__ = self.__cuda_array_interface__ = shared


def _rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
