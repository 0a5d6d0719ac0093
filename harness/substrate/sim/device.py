"""The device of a rank without a GPU: memory of this process, and work that is done at once.

Invariant: work runs when it is enqueued, so no stream ever waits for another. Captured work runs at replays alone; work
in flight where it is waited for, in an order that its streams allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import string_at
from functools import partial
from time import sleep
from typing import NamedTuple

import numpy as np
import torch

from harness.substrate.bits import place
from harness.substrate.device import Copy, Device, Graph


class SimGraph:
    """Device work in the order of its capture."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


class _Work(NamedTuple):
    """A piece of work in flight, with its place in the order of the calls."""

    number: int
    is_collective: bool
    run: Callable[[], object]


def _run(queue: deque[_Work], last: int) -> None:
    """Do the work of a stream up to that of a number."""
    while queue:
        work = queue.popleft()
        work.run()
        if work.number == last:
            return


class SimDevice(Device):
    """Streams are numbers: they decide which free blocks an allocation may take, and nothing else."""

    torch_device = torch.device("cpu")
    has_barrier = True

    def __init__(self, pooled: range = range(0)) -> None:
        """`pooled`: the addresses of this rank's pools."""
        self.current_stream = 0
        self._graph: SimGraph | None = None
        self._queues: dict[int, deque[_Work]] = {}
        """What is in flight, by the number of its stream."""
        self._count = 0
        self._used: list[torch.Tensor] = []
        """What streams in flight use beside the one that it was allocated on."""
        self._landed: list[Callable[[], None]] = []
        """What is to be done once nothing is in flight."""
        self._has_waited = False
        self._is_eager = True
        self._pooled, self._is_recording = pooled, False

    @contextmanager
    def stream(self, index: int) -> Iterator[None]:
        before, self.current_stream = self.current_stream, index
        try:
            yield
        finally:
            self.current_stream = before

    def record_stream(self, tensor: torch.Tensor) -> None:
        if self.is_in_flight:
            self._used.append(tensor)

    @contextmanager
    def in_flight(self, is_eager: bool = True) -> Iterator[None]:
        self._is_eager = is_eager
        try:
            with super().in_flight(is_eager):
                yield
        finally:
            self._queues.clear()
            self._used.clear()
            for work in self._landed:
                work()
            self._landed.clear()

    @contextmanager
    def landed(self) -> Iterator[None]:
        """Under it the host runs at once what it enqueues. What was in flight stays there, as it may wait for ranks
        that take no part in this and wait on the host meanwhile: their device would go on."""
        was = self.is_in_flight, self._queues, self._used
        self.is_in_flight, self._queues, self._used = False, {}, []
        try:
            yield
        finally:
            self.is_in_flight, self._queues, self._used = was

    def once_landed(self, work: Callable[[], None]) -> None:
        """Do the work of the host that has to wait for what is in flight."""
        if self.is_in_flight:
            self._landed.append(work)
        else:
            work()

    @contextmanager
    def waited(self) -> Iterator[None]:
        """Under it this host counts as one that has waited for its device, as one does that frees memory on a GPU. A
        rank that did wait here might wait for a peer that waits for it."""
        self._has_waited = True
        try:
            yield
        finally:
            self._has_waited = False

    def once_waited(self, work: Callable[[], None]) -> None:
        """Do the work at once, or where this host counts as one that has waited, once nothing is in flight."""
        if self._has_waited:
            self.once_landed(work)
        else:
            work()

    @contextmanager
    def recorded(self, called: Callable[[Callable[[], object]], object]) -> Iterator[None]:
        if not self.does_later:
            yield
            return
        from harness.substrate.sim.recorded import recorded  # noqa: PLC0415  (only where plug-ins run later)

        def kernel(launch: Callable[[], object]) -> None:
            self.take_part(partial(called, launch))

        def operation(launch: Callable[[], object]) -> None:
            self.enqueue(partial(called, launch))  # it waits for no rank, so other streams may overtake it

        self._is_recording = True
        try:
            with recorded(kernel, operation, self._without_block):
                yield
        finally:
            self._is_recording = False

    def take_part(self, work: Callable[[], object]) -> None:
        if self._is_recording:
            self.enqueue(work, is_collective=True)
        else:
            work()

    def _without_block(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same memory; of a pool's without its block, which goes where the pool policy lets it go."""
        if tensor.untyped_storage().data_ptr() not in self._pooled:  # a view without elements has no address of its own
            return tensor
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in sizes) if tensor.numel() else 0
        return tensor_at(place(tensor), span, tensor.dtype).as_strided(tensor.shape, tensor.stride())

    def flush(self) -> None:
        # Collectives run in the order of their calls, in which no two ranks wait for each other in a circle.
        queues = [*self._queues.values()]
        numbers = sorted(each.number for queue in queues for each in queue if each.is_collective)
        for number in (*numbers, self._count):
            for queue in queues if self._is_eager else ():
                while queue and not queue[0].is_collective:
                    queue.popleft().run()
            for queue in queues:
                if number == self._count or any(each.number == number for each in queue):
                    _run(queue, number)
        self._queues.clear()
        self._used.clear()

    def stall(self, milliseconds: int) -> None:
        self.enqueue(lambda: sleep(milliseconds / 1000))

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

    def reach(self, address: int, size: int) -> torch.Tensor:
        return self.view(address, size)

    def copy(self, address: int, size: int, known: Copy | None = None) -> Copy:
        # most memory is as it was, and a copy costs more than a look, as its pages are new ones
        return known if isinstance(known, bytes) and self._holds(address, size, known) else string_at(address, size)

    def _holds(self, address: int, size: int, known: bytes) -> bool:
        """Whether memory holds these bytes. Each word is read once: `memcmp` reads one that differs again, and ends
        there as if all were equal where a peer has just restored it."""
        if len(known) != size:
            return False
        now, then = np.asarray(_At(address, size)), np.frombuffer(known, np.uint8)
        words = size // 8 * 8
        is_same = not (now[:words].view(np.uint64) != then[:words].view(np.uint64)).any()
        return is_same and not (now[words:] != then[words:]).any()

    def read(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size, torch.uint8).clone()

    def enqueue(self, work: Callable[[], object], is_collective: bool = False) -> None:
        if self._graph is not None:
            self._graph.work.append(work)
        elif self.is_in_flight:
            queue = self._queues.setdefault(self.current_stream, deque())
            queue.append(_Work(self._count, is_collective, work))
            self._count += 1
        else:
            work()

    def synchronize(self) -> None:
        """Have done what is in flight; everything else was done when it was enqueued."""
        self.flush()


class _At:
    """Memory that NumPy wraps without a copy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}


def tensor_at(address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """A view of `count` elements at an address of this process. The caller keeps the memory alive."""
    return torch.from_numpy(np.asarray(_At(address, count * dtype.itemsize))).view(dtype)
