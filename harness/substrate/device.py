"""The device that a rank computes on: a GPU, or its simulation.

Invariant: work runs in the order in which this rank enqueues it on a stream. All methods are local.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch

from harness.substrate.tables import table

Copy = bytes | torch.Tensor
"""A copy of a run of bytes: of the host's memory as bytes, of a GPU's as uint8[size] on that GPU."""


class Graph(Protocol):
    """Captured work."""

    def replay(self) -> None:
        """Run the work again, on the same addresses."""


class Device(ABC):
    """One rank's device, the same in every draw."""

    torch_device: torch.device
    """The device as PyTorch names it."""
    is_in_flight = False
    """Whether the host goes on while this thread's work is done, or waits its turn."""
    sharing = 1
    """How many ranks of the draw compute on one GPU, at most."""
    has_barrier: bool
    """Whether a kernel may wait for a kernel of another rank: those of different ranks run side by side."""

    @abstractmethod
    def stream(self, index: int) -> AbstractContextManager[None]:
        """Make stream `index` this thread's current stream."""

    @abstractmethod
    def record_stream(self, tensor: torch.Tensor) -> None:
        """Tell the allocator that the current stream uses a tensor that was allocated on another one.

        The block returns to the stream that it was allocated on. The allocator gives it out again only after the
        current stream has done what was enqueued on it until then.
        """

    @abstractmethod
    def capture(self) -> AbstractContextManager[Graph]:
        """Record what this thread enqueues, and do not run it. `replay` is collective if the recorded work is.

        Captured work keeps addresses and no tensors, so the allocator may give their blocks away.
        """

    @property
    @abstractmethod
    def is_capturing(self) -> bool:
        """Whether this thread's work is being captured."""

    @property
    def does_later(self) -> bool:
        """Whether what this thread enqueues may not be done when the host goes on, so that it may neither look at
        memory nor write there past the streams."""
        return self.is_capturing or self.is_in_flight

    @contextmanager
    def in_flight(self, is_eager: bool = True) -> Iterator[None]:
        """Under it the host does not wait for what it enqueues. `is_eager` is for a device that does not do it by
        itself: whether work of this rank alone runs as early as its stream lets it, or as late."""
        self.is_in_flight = True
        try:
            yield
        finally:
            self.is_in_flight = False

    @contextmanager
    def landed(self) -> Iterator[None]:
        """Under it nothing is in flight: the host waits for what was, and for what it enqueues. Collective if that is,
        in the order of the calls."""
        was = self.is_in_flight
        if was:
            self.synchronize()
        self.is_in_flight = False
        try:
            yield
            if was:
                self.synchronize()
        finally:
            self.is_in_flight = was

    @property
    def most_blocks(self) -> int:
        """How many blocks of a kernel run at one time, beside kernels of the other ranks that share the GPU."""
        return 1

    def recorded(self, called: Callable[[Callable[[], object]], object]) -> AbstractContextManager[None]:
        """Under it, what a plug-in launches takes part in what is captured or in flight. Only for one that never looks
        at the device: where work in flight does not run by itself, its launches run later, with their arguments of
        now, and each is `called`."""
        return nullcontext()

    def take_part(self, work: Callable[[], object]) -> None:
        """Do a piece of work of the host that goes with a plug-in's launches: now, or when they run."""
        work()

    def flush(self) -> None:  # noqa: B027  (only where work that is in flight does not run by itself)
        """Have what is in flight run before work that is not enqueued. Collective if the enqueued work is."""

    @abstractmethod
    def stall(self, milliseconds: int) -> None:
        """Let the current stream do nothing for so long, in its turn."""

    def table(self, numbers: Sequence[int]) -> torch.Tensor:
        """int64 on the device, for kernels that the current stream runs. They read it, and nothing writes there."""
        return table(numbers, self.torch_device)

    def tables_of(self, graph: Any) -> AbstractContextManager[None]:
        """Have the tables that are asked for in here live as long as `graph`, which is captured in here."""
        return nullcontext()

    @abstractmethod
    def view(self, address: int, size: int) -> torch.Tensor:
        """uint8[size] over memory of this rank's own device."""

    @abstractmethod
    def reach(self, address: int, size: int) -> torch.Tensor:
        """uint8[size] over memory that this rank can reach, as one of its own device: its own, or a peer's by its
        pointer."""

    @abstractmethod
    def copy(self, address: int, size: int, known: Copy | None = None) -> Copy:
        """A copy of memory of this rank's own device, in the form that is cheapest to compare.

        `known` is an earlier copy of it. It may be returned itself, if the memory holds the same still.
        """

    @abstractmethod
    def read(self, address: int, size: int) -> torch.Tensor:
        """A copy, uint8[size], of memory that this rank can reach: its own, or a peer's by its pointer."""

    @abstractmethod
    def enqueue(self, work: Callable[[], object], is_collective: bool = False) -> None:
        """Do a piece of device work in its turn: now, at every replay while a capture is under way, or where it is
        waited for.

        `work` may keep addresses, and no tensor of a buffer. `is_collective`: it waits for other ranks.
        """

    def move_by_kernel(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy bytes by a kernel, which the device may order otherwise than a copy. uint8[n] each. Local."""
        torch.bitwise_or(source, 0, out=target)

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done what this rank asked of it."""

    def reclaim(self) -> None:
        """Return the blocks that other streams used and that no tensor holds, on every rank at the same step.

        An engine leaves that to time, so its ranks may differ in which blocks are free.
        """
        self.synchronize()
