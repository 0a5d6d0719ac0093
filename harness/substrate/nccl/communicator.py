"""NCCL communicators through `nccl4py`, with NCCL's own evidence of the path each call takes.

Invariant: the path in the trace comes from `harness.substrate.nccl.evidence`; without evidence the trace claims no
path. Calls of unequal sizes are the exception: they are broadcasts and reductions. NCCL has no symmetric kernel for
these, so the trace has `legacy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.ipc.memory import CALL, HOST, REGISTER
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import Communicator, Counts, NotOwned, RegistrationError, Table, eligible
from harness.substrate.device import Device
from harness.substrate.nccl import quiet
from harness.substrate.nccl.binding import CollectiveConfig
from harness.substrate.nccl.evidence import COPY_ENGINES, LEGACY, Asked, PathEvidence
from harness.substrate.nccl.handle import BARRIER_AT, SIGNALS_AT, WINDOW_DEFAULT, WINDOW_SYMMETRIC, NcclHandle
from harness.substrate.nccl.memory import NcclWorkspaces
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment, Window
from harness.trace import events as trace

OPS = {"sum": nc.SUM, "avg": nc.AVG, "max": nc.MAX, "min": nc.MIN}
GATHER, REDUCE, ALL_REDUCE = "SYMK_ST", "SYMK_LD", "SYMK_RSxLD_AGxST"
"""Kernels that address peers through the caller's buffer, so that skewed offsets show at every size."""


class NcclCommunicator(Communicator):
    """One rank's end of an NCCL communicator, with a registered signal pad once a kernel asks for it."""

    def __init__(
        self,
        recorder: Recorder,
        device: Device,
        rendezvous: Rendezvous,
        group: GroupId,
        generation: int,
        handle: NcclHandle,
        evidence: PathEvidence,
        expect_error: Callable[[], None],
    ) -> None:
        super().__init__(recorder, device, rendezvous, group, generation, handle.supports_windows)
        self.handle, self._evidence, self._expect_error = handle, evidence, expect_error
        self.workspaces = NcclWorkspaces(recorder, device, rendezvous, group, self.ident, handle, self.registering)

    @property
    def ptr(self) -> int:
        return int(self.handle.comm.ptr)

    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        flags = WINDOW_SYMMETRIC if symmetric else WINDOW_DEFAULT
        address = segment.address + part.start
        try:
            with self.registering():
                window = quiet.register(self.handle.comm._comm, address, len(part), flags)
        except nccl.NCCLError as error:
            raise RegistrationError(str(error)) from error
        return window if window else None

    def registering(self) -> AbstractContextManager[None]:
        """Let the parent see that this rank waits for its peers in a registration."""
        # Without windows NCCL returns at once, with ncclSuccess and a null window.
        return self._rendezvous.within(REGISTER) if self.supports_windows else nullcontext()

    def _deregister(self, window: Window) -> None:
        quiet.deregister(self.handle.comm._comm, window.handle)

    def peer_pointers(self, window: Window, offset: int = 0) -> list[int]:
        if not self.handle.has_peer_pointers:
            raise NotOwned  # a kernel cannot reach its peers, so the call falls back to the library
        if (starts := window.starts) is None or not window.is_valid:  # NCCL refuses a window that is gone
            starts = [int(nccl.get_peer_device_pointer(window.handle, 0, peer)) for peer in range(self.size)]
            window.starts = starts
        return [start and start + offset for start in starts]  # null where a peer is out of reach

    @property
    def reaches_peers(self) -> bool:
        return self.size == 1 or (self.supports_windows and self.handle.has_peer_pointers)

    def signal_pads(self) -> list[int]:
        return [pad + SIGNALS_AT for pad in self._pads()]

    def barrier_pads(self) -> list[int]:
        return [pad + BARRIER_AT for pad in self._pads()]

    def _pads(self) -> list[int]:
        self.entered("signal pads")
        with nullcontext() if self.handle.has_registered_pads else self.registering():
            pads = self.handle.pads()
        self.recorder.record(trace.Returned("signal pads", self.ident))
        return pads

    def overwritten_pads(self) -> list[trace.PadOverwritten]:
        return self.handle.overwritten(self.id)

    def next_epoch(self) -> int:
        self.handle.epoch += 1
        return self.handle.epoch

    def barrier(self) -> None:
        self.device.synchronize()
        self._rendezvous.meet(HOST)

    @quiet.quietly
    def all_gather(self, output: torch.Tensor, source: torch.Tensor, counts: Counts = None) -> tuple[str, str]:
        if counts is None:
            return self._run("all_gather", GATHER, output, source, None)
        with self._in_call("all_gather", counts):
            with nc.group():
                for root, chunk in _chunks(output, counts):
                    self.handle.comm.broadcast(source, chunk, root, stream=_stream())
            self._wait()
        return "legacy", "a broadcast a rank, which NCCL has no symmetric kernel for"

    @quiet.quietly
    def reduce_scatter(
        self, output: torch.Tensor, source: torch.Tensor, op: str, counts: Counts = None
    ) -> tuple[str, str]:
        if counts is None:
            return self._run("reduce_scatter", REDUCE, output, source, op)
        with self._in_call("reduce_scatter", counts):
            with nc.group():
                for root, chunk in _chunks(source, counts):
                    self.handle.comm.reduce(chunk, output, OPS[op], root, stream=_stream())
            self._wait()
        return "legacy", "a reduction a rank, which NCCL has no symmetric kernel for"

    @quiet.quietly
    def all_reduce(self, output: torch.Tensor, source: torch.Tensor, op: str) -> tuple[str, str]:
        return self._run("all_reduce", ALL_REDUCE, output, source, op)

    @quiet.quietly
    def all_to_all(self, output: torch.Tensor, source: torch.Tensor, sent: Table) -> tuple[str, str]:
        if not _is_even(sent) or not source.numel():
            gives, takes = sent[self.rank], [row[self.rank] for row in sent]
            return self._paired("all_to_all", output, source, gives, takes)
        if self._is_by_copy_engine:
            return self._run("all_to_all", "", output, source, None)
        with self._in_call("all_to_all"):
            self.handle.comm.alltoall(source, output, stream=_stream())
            self._wait()
        return self._without_kernel()

    @quiet.quietly
    def broadcast(self, output: torch.Tensor, source: torch.Tensor, root: int) -> tuple[str, str]:
        with self._in_call("broadcast"):
            # NCCL looks at the source on the root alone
            self.handle.comm.broadcast(source if self.rank == root else output, output, root, stream=_stream())
            self._wait()
        return self._without_kernel()

    @quiet.quietly
    def reduce(self, output: torch.Tensor, source: torch.Tensor, op: str, root: int) -> tuple[str, str]:
        with self._in_call("reduce"):
            # NCCL looks at the output on the root alone
            self.handle.comm.reduce(source, output if self.rank == root else source, OPS[op], root, stream=_stream())
            self._wait()
        return self._without_kernel()

    @quiet.quietly
    def send_receive(self, output: torch.Tensor, source: torch.Tensor, shift: int) -> tuple[str, str]:
        gives, takes = [0] * self.size, [0] * self.size
        gives[(self.rank + shift) % self.size] = source.numel()
        takes[(self.rank - shift) % self.size] = output.numel()
        return self._paired("send_receive", output, source, gives, takes)

    def _paired(
        self, kind: str, output: torch.Tensor, source: torch.Tensor, gives: Sequence[int], takes: Sequence[int]
    ) -> tuple[str, str]:
        """One send and one receive a pair of ranks, in one group call; none where nothing is sent."""
        comm = self.handle.comm
        with self._in_call(kind, takes):
            with nc.group():
                for peer, chunk in _chunks(source, gives):
                    comm.send(chunk, peer, stream=_stream())
                for peer, chunk in _chunks(output, takes):
                    comm.recv(chunk, peer, stream=_stream())
            self._wait()
        return self._without_kernel()

    def _wait(self) -> None:
        """Wait for the call, so that a hang shows at this step, unless several are to be in flight."""
        if not self.device.is_in_flight:
            self.device.synchronize()

    def _without_kernel(self) -> tuple[str, str]:
        """Path and evidence of a call that NCCL has no symmetric kernel for (2.32.3)."""
        return ("copy", "one rank") if self.size == 1 else ("legacy", "NCCL has no symmetric kernel for it")

    def _run(
        self, kind: str, kernel: str, output: torch.Tensor, source: torch.Tensor, op: str | None
    ) -> tuple[str, str]:
        """Issue the call, and wait for it."""
        with self._in_call(kind):
            # nccl4py refuses a reduce-scatter without elements, from which NCCL returns at once.
            if not source.numel():
                return "copy", "no elements"
            path, evidence = self._issue(kind, kernel, output, source, op)
            self._wait()
        return path, evidence

    def _in_call(self, kind: str, counts: Counts = None) -> AbstractContextManager[None]:
        """Around a collective and the wait for it: record that this rank enters it, and let the parent see that it
        waits for its peers."""
        self.entered(kind)
        # A captured call runs at replays. A call of unequal sizes may not wait for a peer that adds nothing.
        has_to_wait = not self.device.does_later and (counts is None or all(counts))
        return self._rendezvous.within(CALL) if has_to_wait else nullcontext()

    def _issue(
        self, kind: str, kernel: str, output: torch.Tensor, source: torch.Tensor, op: str | None
    ) -> tuple[str, str]:
        if self.size == 1:  # NCCL has no symmetric kernel for one rank: it copies
            self._call(kind, output, source, op, "")
            return "copy", "one rank"
        if self._is_legacy_only:
            self._call(kind, output, source, op, LEGACY)
            return "legacy", f"NCCL ran {LEGACY}"
        free = ""
        if self._is_by_copy_engine:
            kernel, free = "", COPY_ENGINES if self.handle.takes_selections else ""
        elif kind == "all_reduce" and op == "avg" and self.handle.takes_selections:
            # NCCL counts an average among what its symmetric all-reduces do, but has no such kernel. Where it takes
            # one, the call fails with "invalid device function" (2.32.3).
            kernel, free = "", LEGACY
        is_eligible = eligible(kind, source.dtype, op, self.size)
        issue = partial(self._call, kind, output, source, op)
        path, evidence = self._evidence.run(Asked(kernel, is_eligible, issue, self.exchange, self._expect_error, free))
        if path == "copy engine" and not self.handle.has_copied and not self.device.is_capturing:
            # After one such call alone, a captured one does not wait for its peers (NCCL up to 2.32.3).
            self.handle.has_copied = True
            issue(free)
        return path, evidence

    def _call(self, kind: str, output: torch.Tensor, source: torch.Tensor, op: str | None, selection: str) -> None:
        """Make the call, restricted to an algorithm selection if one is given (NCCL 2.31)."""
        config, comm, stream = _forced(selection) if selection else None, self.handle.comm, _stream()
        if kind == "all_to_all":
            comm.alltoall(source, output, stream=stream, config=config)
        elif op is None:
            comm.allgather(source, output, stream=stream, config=config)
        elif kind == "all_reduce":
            comm.allreduce(source, output, OPS[op], stream=stream, config=config)
        else:
            comm.reduce_scatter(source, output, OPS[op], stream=stream, config=config)


def _chunks(whole: torch.Tensor, counts: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
    """Each rank with its chunk. A rank without elements is left out: every rank knows that, and so makes no call."""
    return ((root, chunk) for root, chunk in enumerate(torch.split(whole, list(counts))) if chunk.numel())


def _is_even(sent: Table) -> bool:
    return len({count for row in sent for count in row}) == 1


@cache
def _forced(selection: str) -> CollectiveConfig:
    """The configuration of a call that is forced to an algorithm selection, or left to the copy engines. Kept, as each
    call would pay for it."""
    if selection == COPY_ENGINES:
        return CollectiveConfig(cta_policy=nc.CTAPolicy.ZERO)
    return CollectiveConfig(alg_selection=selection, force_alg_selection=True)


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)
