"""Communicators of the simulation: rendezvous, windows and collectives by NCCL's published rules.

Invariant: the caller has the duties that it has with NCCL. Registration is collective and waits for ever. Each rank
chooses its path alone, so ranks that differ really hang. Peers are addressed by the local offset, so skewed ranks
really read and write the wrong bytes.
"""

from __future__ import annotations

from ctypes import memmove
from itertools import accumulate

import torch

from harness.ipc.memory import HOST, LEGACY, PAD, REGISTER, STAGING_BYTES, SYMMETRIC, SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import Communicator, Counts, eligible
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment, Window
from harness.substrate.sim.device import SimDevice, tensor_at
from harness.trace.events import PadOverwritten

EVIDENCE = "simulated look-up"


class SimCommunicator(Communicator):
    """One rank's end of a communicator whose members meet in row `slot` of the shared counters."""

    def __init__(
        self,
        recorder: Recorder,
        device: SimDevice,
        rendezvous: Rendezvous,
        group: GroupId,
        generation: int,
        supports_windows: bool,
        slot: int,
        shared: SharedMemory,
    ) -> None:
        super().__init__(recorder, device, rendezvous, group, generation, supports_windows)
        self._slot, self._shared = slot, shared

    @property
    def ptr(self) -> int:
        return (self._slot << 20) | 1  # the same for a re-created one, as malloc often reuses an address

    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        bases = self._rendezvous.exchange(REGISTER, segment.address - self._shared.base)
        # NCCL maps the peers' allocations whole, and applies this rank's own offset in its own to all of them.
        here = self._shared.base + part.start
        return [here + int(base) for base in bases[:, 0]] if self.supports_windows else None

    def _deregister(self, window: Window) -> None:
        pass

    def peer_pointers(self, window: Window, offset: int = 0) -> list[int]:
        assert isinstance(window.handle, list)
        return [base + offset for base in window.handle]

    def signal_pads(self) -> list[int]:
        pads = self._shared.pads[self._slot]
        return [pads[member].ctypes.data for member in range(self.size)]

    def barrier_pads(self) -> list[int]:
        pads = self._shared.barriers[self._slot]
        return [pads[member].ctypes.data for member in range(self.size)]

    def overwritten_pads(self) -> list[PadOverwritten]:
        return self._shared.overwritten(self._slot, self.id, self.rank)

    def next_epoch(self) -> int:
        return self._rendezvous.next_epoch()

    def next_barrier(self) -> int:
        return self._rendezvous.next_barrier()

    def clear_pads(self) -> None:
        """Have this rank's pads and epochs as those of a new communicator. Collective, once no peer's kernel runs."""
        for pads in (self._shared.pads, self._shared.barriers):
            pads[self._slot, self.rank, : self.size] = 0
        self._rendezvous.restart()
        self.barrier()  # before a peer signals again

    def waits_for_kernel(self, epoch: int) -> None:
        self._rendezvous.note(PAD, epoch)

    def barrier(self) -> None:
        self._rendezvous.meet(HOST)

    def all_gather(self, output: torch.Tensor, source: torch.Tensor, counts: Counts = None) -> tuple[str, str]:
        into, origin, nbytes = output.data_ptr(), source.data_ptr(), source.numel() * source.element_size()
        if self.size == 1:
            self.device.enqueue(lambda: _copy(into, origin, nbytes))
            return "copy", EVIDENCE
        self.entered("all_gather")
        # The output is what peers write, so its window decides, as with NCCL's SYMK_ST.
        window = self._symmetric_window(into)
        if window is None or counts is not None or self._is_legacy_only:
            sizes = [count * source.element_size() for count in counts or [source.numel()] * self.size]
            self.device.enqueue(lambda: self._gather_staged(into, origin, sizes))
            return "legacy", EVIDENCE
        peers = self.peer_pointers(window, into - window.address + self.rank * nbytes)
        self.device.enqueue(lambda: self._push(peers, origin, nbytes))
        return "symmetric", EVIDENCE

    def reduce_scatter(
        self, output: torch.Tensor, source: torch.Tensor, op: str, counts: Counts = None
    ) -> tuple[str, str]:
        into, origin, count, dtype = output.data_ptr(), source.data_ptr(), output.numel(), output.dtype
        if self.size == 1:
            self.device.enqueue(lambda: _copy(into, origin, count * dtype.itemsize))
            return "copy", EVIDENCE
        self.entered("reduce_scatter")
        window = self._symmetric_window(origin)
        # The source is what peers read, so its window decides, as with NCCL's SYMK_LD.
        is_eligible = counts is None and eligible("reduce_scatter", dtype, op, self.size)
        if window is None or not is_eligible or self._is_legacy_only:
            each = list(counts or [count] * self.size)
            self.device.enqueue(lambda: self._reduce_staged(into, origin, each, dtype, op))
            return "legacy", EVIDENCE
        peers = self.peer_pointers(window, origin - window.address + self.rank * count * dtype.itemsize)
        self.device.enqueue(lambda: self._pull(peers, into, count, dtype, op))
        return "symmetric", EVIDENCE

    def _symmetric_window(self, address: int) -> Window | None:
        """The window that the look-up finds, if it was registered for symmetric kernels. One without the flag hides
        those below it all the same (NCCL 2.30.7, `ncclGetSymRegType`)."""
        window = self.find_window(address)
        return window if window is not None and window.is_symmetric else None

    def _push(self, peers: list[int], source: int, nbytes: int) -> None:
        """The symmetric all-gather: store this rank's shard into every peer's output."""
        self._rendezvous.meet(SYMMETRIC)
        for address in peers:
            memmove(address, source, nbytes)
        self._rendezvous.meet(SYMMETRIC)

    def _pull(self, peers: list[int], output: int, count: int, dtype: torch.dtype, op: str) -> None:
        """The symmetric reduce-scatter: load this rank's chunk of every peer's source."""
        self._rendezvous.meet(SYMMETRIC)
        result = reduced([tensor_at(address, count, dtype) for address in peers], op)
        self._rendezvous.meet(SYMMETRIC)
        tensor_at(output, count, dtype).copy_(result)

    def _gather_staged(self, output: int, source: int, sizes: list[int]) -> None:
        """The legacy path: through scratch that every rank can read, piece by piece. `sizes`: bytes of each rank."""
        scratch = [self._shared.staging(peer).ctypes.data for peer in self.group]
        starts = list(accumulate(sizes, initial=0))
        for at in range(0, max(sizes), STAGING_BYTES):
            pieces = [min(STAGING_BYTES, max(0, size - at)) for size in sizes]
            memmove(scratch[self.rank], source + at, pieces[self.rank])
            self._rendezvous.meet(LEGACY)
            for origin, start, piece in zip(scratch, starts, pieces, strict=False):
                memmove(output + start + at, origin, piece)
            self._rendezvous.meet(LEGACY)

    def _reduce_staged(self, output: int, source: int, counts: list[int], dtype: torch.dtype, op: str) -> None:
        scratch = [self._shared.staging(peer).ctypes.data for peer in self.group]
        width = dtype.itemsize
        starts = list(accumulate(counts, initial=0))
        room = STAGING_BYTES // self.size // width
        for at in range(0, max(counts), room):
            pieces = [min(room, max(0, count - at)) for count in counts]
            for index, piece in enumerate(pieces):
                memmove(scratch[self.rank] + index * room * width, source + (starts[index] + at) * width, piece * width)
            self._rendezvous.meet(LEGACY)
            chunk, own = self.rank * room * width, pieces[self.rank]
            result = reduced([tensor_at(origin + chunk, own, dtype) for origin in scratch], op) if own else None
            self._rendezvous.meet(LEGACY)
            if result is not None:
                tensor_at(output + at * width, own, dtype).copy_(result)


def _copy(output: int, source: int, nbytes: int) -> None:
    memmove(output, source, nbytes)


def reduced(parts: list[torch.Tensor], op: str) -> torch.Tensor:
    """Elementwise sum, avg or max of tensors of one dtype, accumulated in fp32 (int32 for int32)."""
    dtype = parts[0].dtype
    wide = torch.stack([part.to(torch.float32) if dtype.is_floating_point else part for part in parts])
    if op == "max":
        return wide.amax(dim=0).to(dtype)
    total = wide.sum(dim=0, dtype=wide.dtype)
    return (total / len(parts) if op == "avg" else total).to(dtype)
