"""CUDA graphs of programs that know nothing of the harness: captures, and a caching pool that registers what it takes.

With a GPU both are PyTorch's. Without one a capture is `libcudart`'s alone, and the pool follows PyTorch's rule that a
block goes back to the stream that it came from.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HAS_GPU = Path("/dev/nvidiactl").exists()
SEGMENT = 2 << 20
CAPTURING, OTHER = 0x51, 0x52
"""Streams, where there is no GPU. 0 is the default stream."""
GLOBAL, THREAD_LOCAL, RELAXED = range(3)
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
PAUSE = 0.005
"""Seconds."""
_KEPT: list[Any] = []


class Cudart:
    """libcudart as a library that is linked with it reaches it: the loader chooses the first of each name."""

    def __init__(self) -> None:
        ctypes.CDLL("libcudart.so.12", mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(None)

    def begin(self, stream: int, mode: int = GLOBAL) -> int:
        return int(self.library.cudaStreamBeginCapture(ctypes.c_void_p(stream), mode))

    def begin_to_graph(self, stream: int, mode: int = GLOBAL) -> int:
        no, none = ctypes.c_void_p(None), ctypes.c_size_t(0)
        return int(self.library.cudaStreamBeginCaptureToGraph(ctypes.c_void_p(stream), no, no, no, none, mode))

    def end(self, stream: int) -> int:
        return self.end_with_graph(stream)[0]

    def end_with_graph(self, stream: int) -> tuple[int, ctypes.c_void_p]:
        graph = ctypes.c_void_p()
        return int(self.library.cudaStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))), graph

    def instantiate(self, graph: ctypes.c_void_p, how: str = "", *more: ctypes.c_void_p) -> ctypes.c_void_p:
        """What a graph can be launched as. `how` is the rest of the function's name."""
        made = ctypes.c_void_p()
        assert getattr(self.library, f"cudaGraphInstantiate{how}")(ctypes.byref(made), graph, *more) == 0
        return made

    def launch(self, executable: ctypes.c_void_p, stream: int = 0, twin: str = "") -> int:
        return int(getattr(self.library, f"cudaGraphLaunch{twin}")(executable, ctypes.c_void_p(stream)))

    def join(self, origin: int, stream: int) -> int:
        """In place of an event that one stream records and another waits for."""
        return int(self.library.fakeStreamJoins(ctypes.c_void_p(origin), ctypes.c_void_p(stream)))


@contextmanager
def captured() -> Iterator[int]:
    """Capture a graph of what the block enqueues on the stream that it gets."""
    if not HAS_GPU:
        cudart = Cudart()
        assert cudart.begin(CAPTURING) == 0
        yield CAPTURING
        assert cudart.end(CAPTURING) == 0
        return
    import torch

    _KEPT.append(torch.cuda.CUDAGraph())
    with torch.cuda.graph(_KEPT[-1], capture_error_mode="thread_local"):
        yield torch.cuda.current_stream().cuda_stream


class Graph:
    """A graph that is captured on a stream of its own or of another graph, and launched there. Steps lie some
    milliseconds apart, since times decide what is found."""

    def __init__(self, other: Graph | None = None) -> None:
        if HAS_GPU:
            import torch

            self._graph, self._side = torch.cuda.CUDAGraph(), other._side if other else torch.cuda.Stream()
            _KEPT.append(self)

    @contextmanager
    def captured(self) -> Iterator[int]:
        """Capture what the block enqueues on the stream that it gets."""
        if HAS_GPU:
            import torch

            with torch.cuda.graph(self._graph, stream=self._side, capture_error_mode="thread_local"):
                yield torch.cuda.current_stream().cuda_stream
        else:
            self._cuda = Cudart()
            assert self._cuda.begin(CAPTURING) == 0
            yield CAPTURING
            result, graph = self._cuda.end_with_graph(CAPTURING)
            assert result == 0
            self._executable = self._cuda.instantiate(graph)
            self._cuda.library.cudaGraphDestroy(graph)
        time.sleep(PAUSE)

    @contextmanager
    def beside(self) -> Iterator[int]:
        """Work eagerly on the stream of the graph."""
        if not HAS_GPU:
            yield CAPTURING
            return
        import torch

        with torch.cuda.stream(self._side):
            yield torch.cuda.current_stream().cuda_stream

    def launch(self, times: int = 1) -> None:
        for _ in range(times):
            time.sleep(PAUSE)
            if HAS_GPU:
                with self.beside():
                    self._graph.replay()
            else:
                assert self._cuda.launch(self._executable, CAPTURING) == 0
        time.sleep(PAUSE)


@contextmanager
def other_stream() -> Iterator[int]:
    """A second stream, on which the block works."""
    if not HAS_GPU:
        yield OTHER
        return
    import torch

    with torch.cuda.stream(torch.cuda.Stream()):
        yield torch.cuda.current_stream().cuda_stream


class Pool:
    """A caching pool over segments that `take` gives. `grown` gets each new one when the pool has handed its block
    out."""

    def __init__(self, take: Callable[[int], int], grown: Callable[[int, int], object]) -> None:
        self._take, self._grown = take, grown
        self._new: list[tuple[int, int]] = []
        self._free: dict[int, list[int]] = {}
        if HAS_GPU:
            import torch

            callbacks = ALLOCATE(lambda size, *_: self._segment(size)), FREE(lambda *_: None)
            places = (ctypes.cast(each, ctypes.c_void_p).value for each in callbacks)
            allocator = torch._C._cuda_customAllocator(*places)
            self._pool = torch.cuda.MemPool(allocator)
            _KEPT.extend((*callbacks, allocator, self._pool))

    def block(self, stream: int = 0) -> int:
        """A block for the work of a stream, which is PyTorch's current one, until `release`."""
        address = self._tensor() if HAS_GPU else self._told(self._cached(stream))
        while self._new:
            self._grown(*self._new.pop(0))
        return address

    def release(self, address: int, stream: int = 0) -> None:
        """Give a block back to the stream that it came from."""
        self._free.setdefault(stream, []).append(address)
        if not HAS_GPU and "torch" in sys.modules:
            sys.modules["torch"].freed(address)
        _KEPT[:] = [each for each in _KEPT if getattr(each, "address", None) != address]

    def _segment(self, size: int) -> int:
        address = self._take(size)
        self._new.append((address, size))
        return address

    def _told(self, address: int) -> int:
        """Without a GPU a stand-in for torch hears of the pool's blocks, if the program has one."""
        if "torch" in sys.modules:
            sys.modules["torch"].allocated(address, SEGMENT)
        return address

    def _cached(self, stream: int) -> int:
        free = self._free.get(stream)
        return free.pop() if free else self._segment(SEGMENT)

    def _tensor(self) -> int:
        import torch

        with torch.cuda.use_mem_pool(self._pool):
            _KEPT.append(_Block(torch.empty(SEGMENT, dtype=torch.uint8, device="cuda")))
        return int(_KEPT[-1].address)


class _Block:
    """A tensor that is not to be released yet."""

    def __init__(self, tensor: Any) -> None:
        self.tensor, self.address = tensor, tensor.data_ptr()
