"""The protocol a rank runs on, and the bookkeeping both substrates share.

Invariant: every segment, window and communicator that comes or goes is recorded as a fact at the
moment it does, by the substrate and not by the system under test, so a system cannot mislead the
oracle about what it owns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import torch

from harness import trace
from harness.layout import Group, Partition
from harness.trace import Event

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


class Segment:
    """One piece from the window-capable allocator. `windows` are those live over it on this rank."""

    def __init__(self, ident: int, pool: str, address: int, size: int) -> None:
        self.ident, self.pool, self.address, self.size = ident, pool, address, size
        self.windows: list[Window] = []

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + self.size

    def __repr__(self) -> str:
        return f"<Segment {self.ident}: {self.size} bytes at {self.address:#x} of pool {self.pool!r}>"


class Window:
    """The registration of a segment with one communicator. `close` is local and may be called twice."""

    def __init__(self, ident: int, communicator: Communicator, segment: Segment, handle: object) -> None:
        self.ident, self.communicator, self.segment, self.handle = ident, communicator, segment, handle
        self.address, self.size = segment.address, segment.size
        self.is_valid = True

    def close(self) -> None:
        """Deregister. Local; the caller makes sure that no collective uses the window."""
        self.communicator.deregister(self)

    def __repr__(self) -> str:
        state = "live" if self.is_valid else "closed"
        return f"<Window {self.ident}: {state}, segment {self.segment.ident}, {self.communicator}>"


class Pool(ABC):
    """A caching allocator over segments. Callbacks see each segment come and go, in order."""

    def __init__(self, substrate: Substrate, name: str) -> None:
        self.substrate, self.name = substrate, name
        self.segments: list[Segment] = []
        self.on_allocated: list[Callable[[Segment], None]] = []
        self.on_freed: list[Callable[[Segment], None]] = []

    @abstractmethod
    def use(self) -> AbstractContextManager[None]:
        """Route this thread's allocations (`torch.empty` and the rest) into the pool. Local."""

    @abstractmethod
    def trim(self) -> None:
        """Free the pool's segments if nothing in it is in use. Local."""

    @abstractmethod
    def close(self) -> None:
        """Free every segment that holds no live block; blocks still in use keep theirs. Local."""

    def allocated(self, address: int, size: int) -> Segment:
        """Note a new segment and tell the subscribers. Called by the allocator, inside an allocation."""
        segment = Segment(next(self.substrate.idents), self.name, address, size)
        self.segments.append(segment)
        self.substrate.record(trace.SegmentAllocated(segment.ident, self.name, address, size))
        for callback in self.on_allocated:
            callback(segment)
        return segment

    def freed(self, address: int) -> Segment:
        """Note that a segment is about to go: first the subscribers, then the fact of what is still live."""
        segment = next(segment for segment in self.segments if segment.address == address)
        for callback in self.on_freed:
            callback(segment)
        self.segments.remove(segment)
        live = tuple(window.ident for window in segment.windows)
        self.substrate.record(trace.SegmentFreed(segment.ident, live))
        return segment


class Communicator(ABC):
    """This rank's end of a communicator. Registration and collectives are collective over `group`.

    `supports_windows` predicts whether a registration yields a window (NCCL: device API support and
    one LSA team). `ptr` is the raw `ncclComm_t` address (on `sim`, a number as unique).
    """

    def __init__(self, substrate: Substrate, group: Group, generation: int, supports_windows: bool) -> None:
        self.substrate, self.group, self.generation = substrate, group, generation
        self.rank, self.size = group.index(substrate.rank), len(group)
        self.supports_windows = supports_windows
        self.ident = next(substrate.idents)
        self.windows: list[Window] = []
        substrate.record(trace.CommCreated(self.ident, group, generation, supports_windows))

    def __repr__(self) -> str:
        return f"<Communicator {list(self.group)}#{self.generation}>"

    @property
    @abstractmethod
    def ptr(self) -> int: ...

    def register(self, segment: Segment) -> Window | None:
        """Register a segment. Collective over the group, in the same order everywhere, no timeout.

        Returns None where registration succeeds without a window (no symmetric support).
        """
        self.entered("register")
        handle = self._register(segment)
        window = Window(next(self.substrate.idents), self, segment, handle)
        null = handle is None
        self.substrate.record(
            trace.Registered(window.ident, self.ident, segment.ident, segment.address, segment.size, null)
        )
        if null:
            return None
        self.windows.append(window)
        segment.windows.append(window)
        return window

    def deregister(self, window: Window) -> None:
        """Deregister a window. Local; a second call does nothing."""
        if not window.is_valid:
            return
        window.is_valid = False
        self._deregister(window)
        self.windows.remove(window)
        window.segment.windows.remove(window)
        self.substrate.record(trace.Deregistered(window.ident))

    def find_window(self, address: int) -> Window | None:
        """NCCL's look-up: the window with the highest base at or below `address`, if it reaches that far.

        Only the start address is tested, so a tensor may overrun what this returns, and an
        overlapping window can hide another (NCCL 2.32, `ncclDevrFindWindow`).
        """
        below = [window for window in self.windows if window.address <= address]
        best = max(below, key=lambda window: window.address, default=None)
        return best if best is not None and address < best.address + best.size else None

    def entered(self, call: str) -> None:
        """Record that this rank is about to block in `call`."""
        self.substrate.record(trace.Entered(call, self.ident))

    @abstractmethod
    def _register(self, segment: Segment) -> object | None: ...

    @abstractmethod
    def _deregister(self, window: Window) -> None: ...

    @abstractmethod
    def all_gather(self, output: torch.Tensor, source: torch.Tensor) -> tuple[str, str]:
        """Gather `source` of every rank into `output`, in group order. Returns (path, evidence)."""

    @abstractmethod
    def reduce_scatter(self, output: torch.Tensor, source: torch.Tensor, op: str) -> tuple[str, str]:
        """Reduce chunk i of every rank's `source` into rank i's `output`. Returns (path, evidence)."""

    @abstractmethod
    def peer_pointers(self, window: Window, offset: int = 0) -> list[int]:
        """Address of `offset` in every rank's end of the window, valid in this process. Local."""

    @abstractmethod
    def signal_pads(self) -> list[int]:
        """Address of every rank's signal pad: int32[size], zero at first, one word for each sender. Local."""

    @abstractmethod
    def next_epoch(self) -> int:
        """The next value of this communicator's barrier; grows by one at every call on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait on the host until every rank is here and its stream is idle. Collective."""

    @abstractmethod
    def waits_for_kernel(self, epoch: int) -> None:
        """Note that a kernel on this rank is about to wait for `epoch` on its signal pad."""

    def destroyed(self) -> None:
        """Note that the communicator is gone, and its windows with it."""
        for window in list(self.windows):
            window.is_valid = False
            window.segment.windows.remove(window)
        self.windows.clear()
        self.substrate.record(trace.CommDestroyed(self.ident))


class Substrate(ABC):
    """What one rank stands on during one draw after another."""

    name: str
    device: torch.device
    device_barrier: bool
    """Whether kernels of different ranks run side by side, so that one may wait for another."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.record: Callable[[Event], None] = lambda event: None
        self.idents = count()
        self.pools: dict[str, Pool] = {}
        self.communicators: dict[Group, Communicator] = {}
        self.denied = False

    def describe(self) -> dict[str, Any]:
        """What the parent should know once: versions, features, and a token for `join` from rank 0. Local."""
        return {}

    def join(self, token: object) -> None:  # noqa: B027  (only where a rendezvous outside the heap is needed)
        """Come together with all processes of the world. Collective over all of them, once."""

    def world(self, size: int) -> None:  # noqa: B027
        """Prepare for draws of the first `size` ranks. Collective over all processes, at each new size."""

    @abstractmethod
    def begin(self, partitions: Sequence[Partition], node_of: Sequence[int], slots: dict[Group, int]) -> None:
        """Start a draw: create this rank's communicator in every partition. Collective over the world."""

    @abstractmethod
    def recreate(self, partition: Partition) -> None:
        """Destroy and re-create the communicators of a partition. Collective over the world."""

    @abstractmethod
    def end(self) -> None:
        """End a draw: record what leaked, then take everything back. Collective over the world."""

    @abstractmethod
    def make_pool(self, name: str) -> Pool: ...

    @abstractmethod
    def stream(self, index: int) -> AbstractContextManager[None]:
        """Make stream `index` this thread's current stream. Local."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done what this rank asked of it. Local."""

    def pool(self, name: str) -> Pool:
        """The pool of that name, made at its first use. Local."""
        if name not in self.pools:
            self.pools[name] = self.make_pool(name)
        return self.pools[name]

    def communicator(self, group: Group) -> Communicator:
        """This rank's communicator over `group`, created when the draw began."""
        return self.communicators[group]

    def locate(self, address: int) -> Segment | None:
        """The live segment that holds an address."""
        segments = (segment for pool in self.pools.values() for segment in pool.segments)
        return next((segment for segment in segments if address in segment), None)

    def refuses(self, pool: str, size: int) -> bool:
        """Whether a `Deny` step makes this segment allocation fail; one refusal uses it up."""
        if self.denied:
            self.denied = False
            self.record(trace.SegmentDenied(pool, size))
            return True
        return False

    def start_recording(self, record: Callable[[Event], None]) -> None:
        """Begin a draw's facts: numbers start again from zero, so that a replay gives the same trace."""
        self.record, self.idents, self.denied = record, count(), False
        self.pools.clear()

    def record_leaks(self) -> None:
        """Record every segment and window that is still there."""
        for pool in self.pools.values():
            for segment in pool.segments:
                self.record(trace.Leaked("segment", segment.ident, segment.size))
        for communicator in self.communicators.values():
            for window in communicator.windows:
                self.record(trace.Leaked("window", window.ident, window.size))


def eligible(kind: str, dtype: torch.dtype, op: str | None, size: int) -> bool:
    """Whether NCCL has a symmetric kernel for the call: any dtype for all-gather; sum and avg of floats
    for reduce-scatter; more than one rank (NCCL 2.32, `symmetric kernels`)."""
    if size < 2:
        return False
    return kind == "all_gather" or (op in ("sum", "avg") and dtype in FLOATS)
