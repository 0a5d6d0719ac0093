"""The contenders: the library, PyTorch's process group, collectives under test, and copies to peers.

Invariant: a contender enqueues its call on the current stream and does not wait for it.
"""

from __future__ import annotations

from ctypes import memmove
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from harness.rank.probes.speed.operands import Operands
from harness.substrate.communicator import Communicator
from harness.system.boundary import call_system
from harness.system.collectives import CollectiveContext, Unsupported, fallback_of, load_collectives
from harness.system.functional import returned
from harness.system.opened import Opened
from harness.system.shape import is_captured, is_functional, runs

SUM = "sum"
TIMEOUT = timedelta(seconds=60)
"""For a call of PyTorch's process group."""
IN_TURN, BESIDE = "in turn", "side by side"
"""How one rank's copies to all its peers are started."""


class Contender:
    """One way to make the call. `variants` are settings that are timed apart."""

    variants: tuple[str, ...] = ("",)
    is_replayable = True
    """Whether a graph of the call may be replayed."""

    def __init__(self, communicator: Communicator, operands: Operands) -> None:
        self.communicator, self.operands = communicator, operands

    @property
    def workspace(self) -> int | None:
        """Bytes of the harness's memory that it has asked for; None where that is not known."""
        return None

    def run(self, variant: str) -> torch.Tensor:
        """Make the call. Returns where its result is. Collective."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what it holds. Collective."""


class Library(Contender):
    """The simulation's own library."""

    def run(self, variant: str) -> torch.Tensor:
        output, source, library = self.operands.output, self.operands.source, self.communicator
        if self.operands.op == "all_gather":
            library.all_gather(output, source)
        elif self.operands.op == "reduce_scatter":
            library.reduce_scatter(output, source, SUM)
        else:
            library.all_reduce(output, source, SUM)
        return output


class TorchDistributed(Contender):
    """PyTorch's process group, which the ranks make over the file `store`."""

    _made: dict[str, Any] = {}  # noqa: RUF012  (one for a process, as its ranks make it once)

    def __init__(self, communicator: Communicator, operands: Operands, store: str) -> None:
        super().__init__(communicator, operands)
        if store not in self._made:
            make: Any = dist.ProcessGroupNCCL if operands.output.is_cuda else dist.ProcessGroupGloo
            met = torch._C._distributed_c10d.FileStore(store, communicator.size)
            self._made[store] = make(met, communicator.rank, communicator.size, timeout=TIMEOUT)
        self._group = self._made[store]

    def run(self, variant: str) -> torch.Tensor:
        output, source = self.operands.output, self.operands.source
        if self.operands.op == "all_gather":
            work = self._group._allgather_base(output, source)
        elif self.operands.op == "reduce_scatter":
            work = self._group._reduce_scatter_base(output, source)
        else:
            output.copy_(source)  # PyTorch reduces in place
            work = self._group.allreduce([output])
        work.wait()
        return output


class PlugIn(Contender):
    """Collectives under test, by name."""

    def __init__(self, communicator: Communicator, operands: Operands, name: str) -> None:
        super().__init__(communicator, operands)
        self._kernels, op = load_collectives(name), operands.op
        if not operands.output.is_cuda and (instead := fallback_of(self._kernels)):
            raise Unsupported(f"it needs a GPU; the simulation runs {instead!r} in its place")
        self._more = () if op == "all_gather" else (SUM,)
        itemsize = operands.output.element_size()
        if not runs(self._kernels, op, SUM if self._more else None, False, itemsize):
            raise Unsupported(f"it has no {op} of {itemsize} bytes an element")
        self._opened = Opened(self._kernels)
        if (refusal := self._opened.open(communicator)) is not None:
            raise refusal("it refuses this communicator")
        self._counts = (operands.count,) * communicator.size
        self._returns = call_system("collectives", lambda: is_functional(self._kernels))
        is_said = call_system("collectives", lambda: is_captured(self._kernels))
        self.is_replayable = communicator.device.has_barrier and is_said

    @property
    def workspace(self) -> int:
        return self.communicator.workspaces.nbytes

    def run(self, variant: str) -> torch.Tensor:
        op, output, source = self.operands.op, self.operands.output, self.operands.source
        context = CollectiveContext(self.communicator, self._counts)
        if self._returns:
            return returned(self._kernels, op, (context, source, *self._more), output)
        make = getattr(self._kernels, op)
        call_system("collectives", lambda: make(context, output, source, *self._more), Unsupported)
        return output

    def close(self) -> None:
        self._opened.close()


class PeerCopy(Contender):
    """One copy into the next rank's memory, on every rank at once."""

    def __init__(self, communicator: Communicator, operands: Operands) -> None:
        super().__init__(communicator, operands)
        output = operands.output
        window = communicator.find_window(output.data_ptr())
        to = [] if window is None else communicator.peer_pointers(window, output.data_ptr() - window.address)
        if not to or not all(to):  # on every rank, as each reaches its own part of them
            raise Unsupported("ranks do not reach each other's memory")
        self._nbytes = operands.source.nbytes
        self._targets = [
            to[(communicator.rank + away) % communicator.size] + (away - 1) * self._nbytes
            for away in range(1, 1 + output.nbytes // self._nbytes)
        ]
        """Where each copy goes: by how many ranks its peer is away, so that no two ranks begin with the same peer."""

    def _by_cuda(self, target: int, stream: torch.cuda.Stream) -> None:
        from cuda.bindings import runtime  # noqa: PLC0415

        source, kind = self.operands.source.data_ptr(), runtime.cudaMemcpyKind.cudaMemcpyDefault
        (error,) = runtime.cudaMemcpyAsync(target, source, self._nbytes, kind, stream.cuda_stream)
        if error != runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA cannot copy {self._nbytes} bytes to a peer: {error.name}")

    def run(self, variant: str) -> torch.Tensor:
        for target in self._targets:
            if self.operands.output.is_cuda:
                self._by_cuda(target, torch.cuda.current_stream())
            else:
                memmove(target, self.operands.source.data_ptr(), self._nbytes)
        return self.operands.output


class PeerCopies(PeerCopy):
    """A copy into the memory of each peer, on every rank at once: on one stream in turn, or each on its own."""

    def __init__(self, communicator: Communicator, operands: Operands) -> None:
        super().__init__(communicator, operands)
        more = self._targets[1:] if operands.output.is_cuda else []
        self._beside = [torch.cuda.Stream() for _ in more]  # type: ignore[no-untyped-call]
        self.variants = (IN_TURN, BESIDE) if self._beside else ("",)

    def run(self, variant: str) -> torch.Tensor:
        if variant != BESIDE:
            return super().run(variant)
        current = torch.cuda.current_stream()
        for stream in self._beside:
            stream.wait_stream(current)
        for target, stream in zip(self._targets, [current, *self._beside], strict=True):
            self._by_cuda(target, stream)
        for stream in self._beside:
            current.wait_stream(stream)  # a capture waits for no stream that it did not fork to
        return self.operands.output
