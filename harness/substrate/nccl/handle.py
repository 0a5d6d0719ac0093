"""An NCCL communicator that outlives draws, and its pads: one for plug-ins, and one for the harness's kernel barrier.

Invariant: they are registered at most once, together, and go after the communicator that they are registered with.
"""

from __future__ import annotations

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.ipc.pads import CANARY, FENCE, OF_BARRIER, SIGNALS, overwritten
from harness.machine.nccl import PEER_POINTERS
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import NotOwned
from harness.substrate.nccl import quiet
from harness.substrate.nccl.binding import made_for
from harness.substrate.nccl.device import tensor_at
from harness.trace.events import PadOverwritten

Version = tuple[int, int, int]

SELECTIONS = (2, 31)
"""The first NCCL whose calls can be restricted to kernels."""
PROPERTIES = (2, 29)
"""The first NCCL that tells whether a communicator supports windows."""
WINDOW_SYMMETRIC = 1
"""`NCCL_WIN_COLL_SYMMETRIC`."""
WINDOW_DEFAULT = 0
"""`NCCL_WIN_DEFAULT`: a window for peer pointers alone."""
PAD_BYTES = 2 << 20
SIGNALS_AT, BARRIER_AT = 4096, PAD_BYTES // 2
"""Where the pad of plug-ins and that of the kernel barrier begin, each between fences."""


class NcclHandle:
    """The communicator `comm` of a group whose ranks are on one node, or not."""

    def __init__(self, comm: nc.Communicator, version: Version, is_on_one_node: bool) -> None:
        self.comm, self.size = comm, int(comm.nranks)
        # Where a communicator cannot be asked, ranks on one node are taken to have windows.
        self.supports_windows = is_on_one_node and (not _can_be_asked(version) or _has_windows(comm))
        self.has_peer_pointers, self.takes_selections = version >= PEER_POINTERS, version >= SELECTIONS
        self.epoch = 0
        """The last epoch of a plug-in's own barrier."""
        self.has_copied = False
        """Whether a call by copy engines was made that was not captured."""
        self._has_pads = self.supports_windows and self.size > 1 and self.has_peer_pointers
        self._pad = 0
        self._window: object | None = None

    @property
    def has_registered_pads(self) -> bool:
        """Whether `pads` returns without the peers."""
        return self._window is not None

    def pads(self) -> list[int]:
        """Address of the memory for both pads on every rank. Collective the first time: then it is allocated, cleared
        and registered.

        Raises `NotOwned` where NCCL has no pointers to peers.
        """
        if not self._has_pads:
            raise NotOwned
        if not self.has_registered_pads:
            self._pad = quiet.allocate(PAD_BYTES)
            self._clear()
            self._window = quiet.register(self.comm._comm, self._pad, PAD_BYTES, WINDOW_SYMMETRIC)
        return [int(nccl.get_peer_device_pointer(self._window, 0, peer)) for peer in range(self.size)]

    def renew(self) -> None:
        """Have pads and epoch as those of a new communicator. No kernel may run, and no peer may signal, until all
        ranks have come back. Local."""
        self.epoch = 0
        if self._window is not None:
            self._clear()

    def _clear(self) -> None:
        for at in (SIGNALS_AT, BARRIER_AT):
            row = self._row(at)
            row.fill_(CANARY)
            row[FENCE : FENCE + self.size] = 0
        torch.cuda.synchronize()

    def overwritten(self, group: GroupId) -> list[PadOverwritten]:
        """What has been written beside this rank's pads since the last look. Local."""
        if self._window is None:
            return []
        found = []
        for at, pad in ((SIGNALS_AT, SIGNALS), (BARRIER_AT, OF_BARRIER)):
            seen = self._row(at).cpu().numpy()
            if (damage := overwritten(seen, group, pad)) is not None:
                found.append(damage)
                for fence in (slice(FENCE), slice(FENCE + self.size, None)):  # what lies between belongs to peers
                    self._row(at)[fence] = CANARY
        return found

    def _row(self, at: int) -> torch.Tensor:
        """int32[FENCE + size + FENCE]: the pad that begins there, with its fences."""
        return tensor_at(self._pad + at - 4 * FENCE, 4 * (self.size + 2 * FENCE)).view(torch.int32)

    def part(self, is_gone: bool) -> None:
        """Take the pads back from a communicator that is somebody else's, and may be gone with its windows. Local."""
        if self._window is not None and not is_gone:
            quiet.deregister(self.comm._comm, self._window)
        if self._pad:
            quiet.free(self._pad)
        self._window, self._pad = None, 0

    def destroy(self) -> None:
        """Destroy the communicator. Collective over its ranks."""
        if self._window is not None:
            quiet.deregister(self.comm._comm, self._window)
        quiet.quietly(self.comm.destroy)()
        if self._pad:  # NCCL and the driver do not survive that memory is freed under a live window (pytorch 181626)
            quiet.free(self._pad)
        self._window, self._pad = None, 0


def _can_be_asked(version: Version) -> bool:
    """Whether a communicator tells whether it supports windows. NCCL refuses the question of a binding that was made
    for a newer one, with ncclInvalidUsage (2.31.2, asked by nccl4py 0.6.0 of 2.32.3)."""
    return PROPERTIES <= version >= made_for()


def _has_windows(comm: nc.Communicator) -> bool:
    """NCCL's own prediction."""
    properties = comm.properties
    return bool(properties.device_api_support and properties.n_lsa_teams == 1)
