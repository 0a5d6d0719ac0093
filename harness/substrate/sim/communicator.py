"""Communicators of the simulation: rendezvous, windows and collectives by NCCL's published rules.

Invariant: the caller has the duties that it has with NCCL. Registration is collective and waits for ever. Each rank
chooses its path alone, so ranks that differ really hang. Peers are addressed by the local offset, so skewed ranks
really read and write the wrong bytes. The addresses of peers that it gives out hold as long as their window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import memmove
from itertools import accumulate

import torch

from harness.ipc.memory import HOST, PAD, REGISTER, SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.bases import STAGED_BYTES
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import Communicator, Counts, Table, eligible
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment, Window
from harness.substrate.sim.device import SimDevice
from harness.substrate.sim.memory import Arena
from harness.substrate.sim.transfers import Sides, Take, Transfers
from harness.substrate.sim.views import Views
from harness.substrate.sim.workspaces import SimWorkspaces
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
        arena: Arena,
        views: Views,
        workspaces: Arena,
    ) -> None:
        super().__init__(recorder, device, rendezvous, group, generation, supports_windows)
        self._slot, self._shared, self._arena, self._views = slot, shared, arena, views
        self._once_waited = device.once_waited
        self.workspaces = SimWorkspaces(recorder, device, rendezvous, group, self.ident, shared, workspaces, views)
        self._addresses: dict[int, list[int]] = {}
        """Where each rank's segment is mapped for a window, by the window's number, once a plug-in has asked."""
        self._transfers = Transfers(rendezvous, [shared.staging(peer).ctypes.data for peer in self.group], self.rank)

    @property
    def ptr(self) -> int:
        return (self._slot << 20) | 1  # the same for a re-created one, as malloc often reuses an address

    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        # a window may be shorter than what was allocated, or longer
        size = self._arena.behind(segment.address) or segment.size
        segments = self._rendezvous.exchange(REGISTER, segment.address - self._shared.base, size)
        return [(int(offset), int(size)) for offset, size in segments] if self.supports_windows else None

    def _deregister(self, window: Window) -> None:
        self._once_waited(lambda: self._views.close(window.ident))

    def destroyed(self) -> None:
        for window in self.windows:
            self._views.close(window.ident)
        super().destroyed()

    def peer_pointers(self, window: Window, offset: int = 0) -> list[int]:
        if window.ident not in self._addresses:
            self._addresses[window.ident] = self._mapped(window)
        # NCCL maps the peers' allocations whole, and applies this rank's own offset in its own to all of them.
        offset += window.address - window.segment.address
        return [address + offset for address in self._addresses[window.ident]]

    def _mapped(self, window: Window) -> list[int]:
        """The address of every rank's segment that belongs to this window; of this rank's own, where it lies."""
        segments = zip(self.group, _segments(window), strict=True)
        addresses = [
            window.segment.address if index == self.rank else self._views.open(window.ident, peer, *segment)
            for index, (peer, segment) in enumerate(segments)
        ]
        if not window.is_valid:
            self._views.close(window.ident)
        return addresses

    def _direct(self, window: Window, offset: int) -> list[int]:
        """The same for the library's own use, which ends with the call: where the whole shared memory is mapped."""
        here = self._shared.base + window.address - window.segment.address + offset
        return [here + segment for segment, _ in _segments(window)]

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

    def clear_pads(self) -> None:
        """Have this rank's pads and epochs as those of a new communicator. Collective, once no peer's kernel runs."""
        for pads in (self._shared.pads, self._shared.barriers):
            pads[self._slot, self.rank, : self.size] = 0
        self._rendezvous.restart()
        self.barrier()  # before a peer signals again

    @contextmanager
    def in_kernel_barrier(self) -> Iterator[None]:
        # the kernel has its epoch from the pad; this is the same number, as both count every barrier that runs
        self.device.take_part(lambda: self._rendezvous.note(PAD, self._rendezvous.next_barrier()))
        yield
        self.device.take_part(lambda: self._rendezvous.note(PAD, 0))

    def barrier(self) -> None:
        self._rendezvous.meet(HOST)

    def all_gather(self, output: torch.Tensor, source: torch.Tensor, counts: Counts = None) -> tuple[str, str]:
        into, origin, nbytes = output.data_ptr(), source.data_ptr(), source.numel() * source.element_size()
        if self.size == 1:
            return self._copied(into, origin, nbytes)
        # The output is what peers write, so its window decides, as with NCCL's SYMK_ST.
        window = self._symmetric_window(into)
        if window is None or counts is not None or self._is_legacy_only:
            sizes = [count * source.element_size() for count in counts or [source.numel()] * self.size]
            starts = accumulate(sizes, initial=0)
            takes = [
                Take(sender, 0, size, start) for sender, (size, start) in enumerate(zip(sizes, starts, strict=False))
            ]
            self._run("all_gather", lambda: self._transfers.move_staged(into, origin, sizes, takes))
            return "legacy", EVIDENCE
        peers = self._direct(window, into - window.address + self.rank * nbytes)
        self._run("all_gather", lambda: self._transfers.push(peers, origin, nbytes))
        return "copy engine" if self._is_by_copy_engine else "symmetric", EVIDENCE

    def reduce_scatter(
        self, output: torch.Tensor, source: torch.Tensor, op: str, counts: Counts = None
    ) -> tuple[str, str]:
        into, origin, count, dtype = output.data_ptr(), source.data_ptr(), output.numel(), output.dtype
        if self.size == 1:
            return self._copied(into, origin, count * dtype.itemsize)
        window = self._symmetric_window(origin)
        # The source is what peers read, so its window decides, as with NCCL's SYMK_LD.
        is_eligible = counts is None and eligible("reduce_scatter", dtype, op, self.size)
        if window is None or not is_eligible or self._is_legacy_only:
            each = list(counts or [count] * self.size)
            self._run("reduce_scatter", lambda: self._transfers.reduce_staged(into, origin, each, dtype, op))
            return "legacy", EVIDENCE
        peers = self._direct(window, origin - window.address + self.rank * count * dtype.itemsize)
        self._run("reduce_scatter", lambda: self._transfers.pull(peers, into, count, dtype, op))
        return "symmetric", EVIDENCE

    def all_reduce(self, output: torch.Tensor, source: torch.Tensor, op: str) -> tuple[str, str]:
        into, origin, count, dtype = output.data_ptr(), source.data_ptr(), output.numel(), output.dtype
        if self.size == 1:
            return self._copied(into, origin, count * dtype.itemsize)
        # Peers read the source and write the output, as with NCCL's SYMK_RSxLD_AGxST.
        windows = self._symmetric_window(origin), self._symmetric_window(into)
        is_eligible = eligible("all_reduce", dtype, op, self.size)
        if None in windows or not is_eligible or self._is_legacy_only:
            self._run("all_reduce", lambda: self._transfers.all_reduce_staged(into, origin, count, dtype, op))
            return "legacy", EVIDENCE
        reads, writes = (
            self._direct(window, address - window.address)
            for window, address in zip(windows, (origin, into), strict=True)
            if window is not None
        )
        self._run("all_reduce", lambda: self._transfers.pull_and_push(reads, writes, count, dtype, op))
        return "symmetric", EVIDENCE

    def all_to_all(self, output: torch.Tensor, source: torch.Tensor, sent: Table) -> tuple[str, str]:
        width, into = output.element_size(), output.data_ptr()
        window = self._symmetric_window(into) if self._is_by_copy_engine and self.size > 1 else None
        if window is not None and not self._is_legacy_only:
            nbytes = sent[0][0] * width
            peers = self._direct(window, into - window.address + self.rank * nbytes)
            origin = source.data_ptr()
            self._run("all_to_all", lambda: self._transfers.push_each(peers, origin, nbytes))
            return "copy engine", EVIDENCE
        takes, at = [], 0
        for sender, row in enumerate(sent):
            takes.append(Take(sender, sum(row[: self.rank]) * width, row[self.rank] * width, at))
            at += row[self.rank] * width
        largest = max(count for row in sent for count in row) * width
        is_one_call = len({count for row in sent for count in row}) == 1
        sides = self._registered(source, output, is_one_call) if largest > STAGED_BYTES else None
        return self._moved("all_to_all", output, source, [sum(row) * width for row in sent], takes, sides)

    def broadcast(self, output: torch.Tensor, source: torch.Tensor, root: int) -> tuple[str, str]:
        nbytes = output.numel() * output.element_size()
        sizes = [nbytes if index == root else 0 for index in range(self.size)]
        return self._moved("broadcast", output, source, sizes, [Take(root, 0, nbytes, 0)])

    def reduce(self, output: torch.Tensor, source: torch.Tensor, op: str, root: int) -> tuple[str, str]:
        into, origin, count, dtype = output.data_ptr(), source.data_ptr(), source.numel(), source.dtype
        if self.size == 1:
            return self._copied(into, origin, count * dtype.itemsize)
        target = into if self.rank == root else None
        self._run("reduce", lambda: self._transfers.all_reduce_staged(target, origin, count, dtype, op))
        return "legacy", EVIDENCE

    def send_receive(self, output: torch.Tensor, source: torch.Tensor, shift: int) -> tuple[str, str]:
        nbytes = output.numel() * output.element_size()
        takes = [Take((self.rank - shift) % self.size, 0, nbytes, 0)]
        sides = self._registered(source, output) if nbytes > STAGED_BYTES else None
        return self._moved("send_receive", output, source, [nbytes] * self.size, takes, sides)

    def _registered(self, source: torch.Tensor, output: torch.Tensor, is_one_call: bool = False) -> Sides | None:
        """Which operands NCCL finds registered for large sends: its all-to-all asks for both, and a captured call
        registers each that its own allocator gave (`NCCL_GRAPH_REGISTER`). None where none can be."""
        if not self.supports_windows:
            return None
        if self.device.is_capturing:
            return Sides(*(self._arena.behind(each.data_ptr()) > 0 for each in (source, output)))
        gives, takes = (self._is_in_window(each) for each in (source, output))
        return Sides(gives and takes, gives and takes) if is_one_call else Sides(gives, takes)

    def _is_in_window(self, operand: torch.Tensor) -> bool:
        address, nbytes = operand.data_ptr(), operand.numel() * operand.element_size()
        window = self.find_window(address)
        return window is not None and address + nbytes <= window.address + window.size

    def _run(self, call: str, work: Callable[[], None]) -> None:
        """Do the work of a collective in its turn. This rank enters the call then: what is in flight waits for no
        peer."""

        def entered() -> None:
            self.entered(call)
            work()

        if self.device.is_in_flight:
            self.device.enqueue(entered, is_collective=True)
        else:
            self.entered(call)
            self.device.enqueue(work)

    def _copied(self, into: int, origin: int, nbytes: int) -> tuple[str, str]:
        """A call of one rank."""
        self.device.enqueue(lambda: _copy(into, origin, nbytes))
        return "copy", EVIDENCE

    def _moved(
        self,
        kind: str,
        output: torch.Tensor,
        source: torch.Tensor,
        sizes: list[int],
        takes: list[Take],
        sides: Sides | None = None,
    ) -> tuple[str, str]:
        """A call that moves bytes, for which NCCL has no symmetric kernel. `sizes`: bytes of each rank's source."""
        into, origin = output.data_ptr(), source.data_ptr()
        if self.size == 1:
            return self._copied(into, origin, sizes[0])
        self._run(kind, lambda: self._transfers.move_staged(into, origin, sizes, takes, sides))
        return "legacy", EVIDENCE

    def _symmetric_window(self, address: int) -> Window | None:
        """The window that the look-up finds, if it was registered for symmetric kernels. One without the flag hides
        those below it all the same (NCCL 2.30.7, `ncclGetSymRegType`)."""
        window = self.find_window(address)
        return window if window is not None and window.is_symmetric else None


def _segments(window: Window) -> list[tuple[int, int]]:
    """Of every rank's segment, in group order, its place in the shared memory and its bytes."""
    assert isinstance(window.handle, list)
    return window.handle


def _copy(output: int, source: int, nbytes: int) -> None:
    memmove(output, source, nbytes)
