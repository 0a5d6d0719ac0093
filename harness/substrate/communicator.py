"""One rank's end of a communicator: windows, collectives, and the bookkeeping that both substrates share.

Invariant: every registration, deregistration and collective is recorded here, whoever asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch

from harness.ipc.memory import AGREE
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.denial import Refusal
from harness.substrate.device import Device
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment, Window
from harness.substrate.workspace import Workspace, Workspaces
from harness.trace import events as trace

Counts = Sequence[int] | None
Table = Sequence[Sequence[int]]
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


ALIGNMENT = 4096
"""Bytes. A window starts at a multiple of it from its segment's base (`NCCL_WIN_REQUIRED_ALIGNMENT`, NCCL 2.28)."""


class Identity(NamedTuple):
    """Which communicator it is: only to be compared."""

    draw: int
    group: GroupId
    generation: int


class RegistrationError(RuntimeError):
    """A registration failed on this rank. Its text begins with NCCL's name of the error."""


class Communicator(ABC):
    """This rank's end of a communicator. Registration and collectives are collective over `group`.

    `supports_windows` predicts whether a registration yields a window (NCCL: device API support and
    one LSA team). `ptr` is the raw `ncclComm_t` address (on `sim`, a number of the group's own, the same for a
    re-created one).
    """

    workspaces: Workspaces
    """What plug-ins have of the harness's memory."""

    def __init__(
        self,
        recorder: Recorder,
        device: Device,
        rendezvous: Rendezvous,
        group: GroupId,
        generation: int,
        supports_windows: bool,
    ) -> None:
        self.recorder, self.device, self._rendezvous = recorder, device, rendezvous
        self.id, self.group, self.generation = group, group.ranks, generation
        self.rank, self.size = self.group.index(recorder.rank), len(self.group)
        self.supports_windows = supports_windows
        self.ident = next(recorder.idents)
        self.windows: list[Window] = []
        self.refusal = Refusal(recorder)
        """Which segments cannot be registered on this rank; the substrate gives all its communicators one."""
        self._is_legacy_only = self._is_by_copy_engine = False
        self.is_gone = False
        """Whether NCCL has it no more, or the group another in its place."""
        recorder.record(trace.CommCreated(self.ident, self.group, generation, supports_windows, group.number))

    def __repr__(self) -> str:
        return f"<Communicator {list(self.group)}#{self.generation}>"

    @property
    @abstractmethod
    def ptr(self) -> int: ...

    def register(
        self, segment: Segment, *, offset: int = 0, nbytes: int | None = None, symmetric: bool = True
    ) -> Window | None:
        """Register `nbytes` of a segment from `offset` on; without them, all of it. Collective over the group, in the
        same order everywhere, no timeout.

        Returns None where registration succeeds without a window (no symmetric support). `symmetric` is NCCL's flag
        `NCCL_WIN_COLL_SYMMETRIC`; no symmetric kernel takes a window without it. Raises `RegistrationError` where it
        fails on this rank. As with NCCL, peers that have entered it then wait for ever: see `check`. Raises `TypeError`
        for a flag that is no bool, and for a range that is not in integers.
        """
        if not isinstance(symmetric, bool):  # the trace could not be read
            raise TypeError(f"symmetric is {symmetric!r}, and not a bool")
        part = _part(segment, offset, nbytes)
        self.entered("register")
        try:
            self.check(segment, offset=offset, nbytes=nbytes)
            handle = self._register(segment, part, symmetric)
        except RegistrationError as error:
            self.has_not_registered(segment, str(error))
            raise
        return self.has_registered(segment, part, symmetric, handle)

    def has_registered(self, segment: Segment, part: range, symmetric: bool, handle: object | None) -> Window | None:
        """Note a registration that has come back: the bytes `part` of a segment, and NCCL's handle if it gave a window.
        Local."""
        window = Window(next(self.recorder.idents), self, segment, handle, part, symmetric)
        null = handle is None
        self.recorder.record(
            trace.Registered(
                window.ident, self.ident, segment.ident, window.address, window.size, null, is_symmetric=symmetric
            )
        )
        if null:
            return None
        self.windows.append(window)
        segment.windows.append(window)
        return window

    def has_not_registered(self, segment: Segment, error: str) -> None:
        """Note a registration that has failed on this rank. `error` begins with NCCL's name of it. Local."""
        self.recorder.record(trace.RegistrationFailed(self.ident, segment.ident, error))

    def registering(self) -> AbstractContextManager[None]:
        """Around a registration by NCCL, which waits for the peers: what this rank waits for is noted. Local."""
        return nullcontext()

    def check(self, segment: Segment, *, offset: int = 0, nbytes: int | None = None) -> None:
        """Raise `RegistrationError` where `register` would fail on this rank before it meets its peers. Local.

        So a pool's ranks can agree first. NCCL looks at a rank's own range and memory before its first exchange
        (`ncclDevrWindowRegisterInGroup`, 2.28 to 2.30), and at neither where the communicator has no windows.
        """
        part, named = _part(segment, offset, nbytes), f"segment {segment.ident}"
        if not part:
            size = part.stop - part.start
            raise RegistrationError(f"ncclInvalidArgument: {size} bytes of {named} from byte {offset} on are no range")
        if not self.supports_windows:
            return
        if part.start not in range(segment.size):
            raise RegistrationError(f"ncclInvalidArgument: byte {offset} is not in {named} of {segment.size}")
        if offset % ALIGNMENT:
            raise RegistrationError(f"ncclInvalidArgument: byte {offset} of {named} is no multiple of {ALIGNMENT}")
        if self.refusal.refuses(segment.ident):
            raise RegistrationError(f"ncclUnhandledCudaError: the memory of {named} was refused")

    def deregister(self, window: Window) -> None:
        """Deregister a window. Local; a second call does nothing."""
        if not window.is_valid:
            return
        window.is_valid = False
        self._deregister(window)
        self.has_deregistered(window)

    def has_deregistered(self, window: Window) -> None:
        """Note that a live window has been deregistered. Local."""
        window.is_valid = False
        self.windows.remove(window)
        window.segment.windows.remove(window)
        self.recorder.record(trace.Deregistered(window.ident))

    def find_window(self, address: int) -> Window | None:
        """NCCL's look-up: the window with the highest base at or below `address`, if it reaches that far.

        Only the start address is tested, so a tensor may overrun what this returns, and an
        overlapping window can hide another (NCCL 2.32, `ncclDevrFindWindow`).
        """
        best: Window | None = None
        for window in self.windows:
            if window.address <= address and (best is None or window.address > best.address):
                best = window
        return best if best is not None and address < best.address + best.size else None

    def entered(self, call: str) -> None:
        """Record that this rank is about to block in `call`."""
        self.recorder.record(trace.Entered(call, self.ident))

    @abstractmethod
    def _register(self, segment: Segment, part: range, symmetric: bool) -> object | None:
        """NCCL's registration of the bytes `part` of a segment: its handle, or None without a window."""

    @abstractmethod
    def _deregister(self, window: Window) -> None: ...

    @abstractmethod
    def all_gather(self, output: torch.Tensor, source: torch.Tensor, counts: Counts = None) -> tuple[str, str]:
        """Gather `source` of every rank into `output`, in group order. Returns (path, evidence).

        `counts`: elements of each rank where they differ; then no symmetric kernel can run the call.
        """

    @abstractmethod
    def reduce_scatter(
        self, output: torch.Tensor, source: torch.Tensor, op: str, counts: Counts = None
    ) -> tuple[str, str]:
        """Reduce chunk i of every rank's `source` into rank i's `output`. Returns (path, evidence).

        `counts`: as for `all_gather`.
        """

    @abstractmethod
    def all_reduce(self, output: torch.Tensor, source: torch.Tensor, op: str) -> tuple[str, str]:
        """Reduce every rank's `source` into every rank's `output`, of as many elements. Returns (path, evidence)."""

    @abstractmethod
    def all_to_all(self, output: torch.Tensor, source: torch.Tensor, sent: Table) -> tuple[str, str]:
        """Send each rank its run of `source`, and have what comes from each in `output`, both in group order. Row i of
        `sent` has the elements that rank i sends to each. Returns (path, evidence)."""

    @abstractmethod
    def broadcast(self, output: torch.Tensor, source: torch.Tensor, root: int) -> tuple[str, str]:
        """Have the root's `source` in every rank's `output`. Returns (path, evidence)."""

    @abstractmethod
    def reduce(self, output: torch.Tensor, source: torch.Tensor, op: str, root: int) -> tuple[str, str]:
        """Reduce every rank's `source` into the root's `output`. Returns (path, evidence)."""

    @abstractmethod
    def send_receive(self, output: torch.Tensor, source: torch.Tensor, shift: int) -> tuple[str, str]:
        """Send `source` to the rank `shift` places on in the group, and have in `output` what the rank as far before
        sends. Returns (path, evidence)."""

    @property
    def reaches_peers(self) -> bool:
        """Whether kernels can have the addresses of memory on the group's other ranks."""
        return self.size == 1 or self.supports_windows

    def workspace(self, what: trace.Provision, nbytes: int) -> Workspace:
        """Memory of the harness for a plug-in, as in `Workspaces.of`. Collective the first time. Raises `NotOwned`
        where kernels cannot reach their peers."""
        if not self.reaches_peers:
            raise NotOwned
        return self.workspaces.of(what, nbytes)

    def give_back(self) -> None:
        """Take back what plug-ins have of the harness's memory. Local, once no rank uses it any more."""
        self.workspaces.give_back(self.is_gone)

    @property
    def identity(self) -> Identity:
        """The same on every rank of the group, and another for every communicator of every draw."""
        return Identity(self.recorder.draw, self.id, self.generation)

    @contextmanager
    def on_legacy_path(self) -> Iterator[None]:
        """Under it, library calls take no symmetric kernel. Entered by every rank of the group, or by none."""
        self._is_legacy_only = True
        try:
            yield
        finally:
            self._is_legacy_only = False

    @contextmanager
    def by_copy_engine(self) -> Iterator[None]:
        """Under it, the library is asked to move its calls by copy engines (`NCCL_CTA_POLICY_ZERO`). Entered by every
        rank of the group, or by none."""
        self._is_by_copy_engine = True
        try:
            yield
        finally:
            self._is_by_copy_engine = False

    def exchange(self, word: int) -> list[int]:
        """One signed 64-bit word of every rank, in group order, on the host. Collective, no timeout."""
        self.entered("exchange")
        words = [int(word) for word in self._rendezvous.exchange(AGREE, word)[:, 0]]
        self.recorder.record(trace.Returned("exchange", self.ident))
        return words

    @abstractmethod
    def peer_pointers(self, window: Window, offset: int = 0) -> list[int]:
        """Address of `offset` in every rank's end of the window, valid in this process. Local."""

    @abstractmethod
    def signal_pads(self) -> list[int]:
        """Address of every rank's signal pad: int32[size], one word for each sender, zero when a draw begins and when
        the communicator is made anew. Plug-ins write it, and the harness nowhere else.

        Collective the first time, when it may have to be registered. Raises `NotOwned` if kernels cannot reach
        their peers.
        """

    @abstractmethod
    def barrier_pads(self) -> list[int]:
        """The same for the harness's own kernel barrier, which no plug-in writes."""

    @abstractmethod
    def overwritten_pads(self) -> list[trace.PadOverwritten]:
        """What has been written beside this rank's pads since the last look. Local."""

    def record_beside(self) -> None:
        """Record what has been written beside this rank's pads and workspaces since the last look. Local."""
        for damage in self.overwritten_pads():
            self.recorder.record(damage)
        for beside in self.workspaces.overwritten():
            self.recorder.record(beside)

    @abstractmethod
    def next_epoch(self) -> int:
        """The next epoch of a plug-in's own barrier: 1, then one more at every call, from a draw's begin or the
        communicator's. Local."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait on the host until every rank is here and its stream is idle. Collective."""

    def in_kernel_barrier(self) -> AbstractContextManager[None]:
        """Around the launch of the harness's kernel barrier: have noted what this rank waits for while that runs.
        Local. Nothing where the host does not see whether a kernel can go on."""
        return nullcontext()

    def destroyed(self) -> None:
        """Note that the communicator is gone, and its windows with it. A second call does nothing."""
        if self.is_gone:
            return
        self.is_gone = True
        for window in list(self.windows):
            window.is_valid = False
            window.segment.windows.remove(window)
        self.windows.clear()
        self.recorder.record(trace.CommDestroyed(self.ident))


def _part(segment: Segment, offset: int, nbytes: int | None) -> range:
    """The bytes of a segment that are to be registered."""
    return range(offset, segment.size if nbytes is None else offset + nbytes)


def eligible(kind: str, dtype: torch.dtype, op: str | None, size: int) -> bool:
    """Whether NCCL has a symmetric kernel for the call (2.32): any dtype for all-gather, sums of floats for all-reduce,
    sums and averages of floats for reduce-scatter."""
    if size < 2:  # NCCL copies
        return False
    ops = ("sum",) if kind == "all_reduce" else ("sum", "avg")
    return kind == "all_gather" or (op in ops and dtype in FLOATS)


class NotOwned(Exception):
    """A tensor lies in no window of the group's communicator, so its counterparts on the peers have no address."""
