"""The protocol a rank runs on.

Invariant: one draw never sees what another left: facts are numbered from zero, pools are new, and
`end` takes back whatever the system under test did not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Protocol

import torch

from harness.scenario.layout import Group, Partition
from harness.substrate.communicator import Communicator
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment
from harness.trace import events as trace
from harness.trace.events import Event


class Graph(Protocol):
    """Captured work."""

    def replay(self) -> None:
        """Run the work again, on the same addresses."""


class Substrate(ABC):
    """What one rank stands on during one draw after another."""

    name: str
    device: torch.device
    device_barrier: bool
    """Whether kernels of different ranks run side by side, so that one may wait for another."""
    evidence: frozenset[str]
    """Names of the kinds of evidence that this world has (`harness.machine.evidence`)."""

    def __init__(self, rank: int, evidence: frozenset[str] = frozenset()) -> None:
        self.rank, self.evidence = rank, evidence
        self.record: Callable[[Event], None] = lambda event: None
        self.idents = count()
        self.pools: dict[str, Pool] = {}
        self.communicators: dict[Group, Communicator] = {}
        self.denied = False
        self.graph: str | None = None
        """The graph that is being prepared or captured."""

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
    def record_stream(self, tensor: torch.Tensor) -> None:
        """Tell the allocator that the current stream uses a tensor of another one: its block, which returns to its
        own stream, is not given out again before what this stream has to do by then is done. Local."""

    @abstractmethod
    def capture(self) -> AbstractContextManager[Graph]:
        """Record what this thread enqueues instead of running it. Local; `replay` is collective if what
        was recorded is. Captured work keeps addresses, not tensors: their blocks may be given away."""

    @property
    @abstractmethod
    def is_capturing(self) -> bool:
        """Whether this thread's work is being captured. Local."""

    @abstractmethod
    def view(self, address: int, size: int) -> torch.Tensor:
        """uint8[size] over memory that this process can reach: its own, or a peer's by its pointer. Local."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done what this rank asked of it. Local."""

    def reclaim(self) -> None:
        """Have blocks that other streams used return now that nobody holds them, on every rank at the same step. Local.

        An engine leaves that to time, and so its ranks may differ in what is free.
        """
        self.synchronize()

    def fault(self, error: BaseException | None) -> str:
        """In one line, what an exception says that the device or NCCL reported; empty for a mistake in Python."""
        return ""

    @abstractmethod
    def enqueue(self, work: Callable[[], None]) -> None:
        """Do a piece of device work in its turn: now, or, while a capture is under way, whenever it is replayed.

        `work` may keep addresses, and no tensor of a buffer.
        """

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
        self.record, self.idents, self.denied, self.graph = record, count(), False, None
        self.pools.clear()

    def record_leaks(self) -> None:
        """Record every segment and window that is still there."""
        for pool in self.pools.values():
            for segment in pool.segments:
                self.record(trace.Leaked("segment", segment.ident, segment.size))
        for communicator in self.communicators.values():
            for window in communicator.windows:
                self.record(trace.Leaked("window", window.ident, window.size))
