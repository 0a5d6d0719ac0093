"""An NCCL communicator that outlives draws, and its pads: one for plug-ins, and one for the harness's kernel barrier.

Invariant: they are registered at most once, together, and go after the communicator that they are registered with.
"""

from __future__ import annotations

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.substrate.communicator import NotOwned
from harness.substrate.nccl.device import tensor_at

Version = tuple[int, int, int]

PEER_POINTERS = (2, 29, 2)
"""The first NCCL that gives the address of a peer's memory."""
PROPERTIES = (2, 29)
"""The first NCCL that tells whether a communicator supports windows."""
WINDOW_SYMMETRIC = 1
"""`NCCL_WIN_COLL_SYMMETRIC`."""
PAD_BYTES = 2 << 20
BARRIER_AT = PAD_BYTES // 2
"""Where the pad of the kernel barrier begins."""


class NcclHandle:
    """The communicator `comm` of a group whose ranks are on one node, or not."""

    def __init__(self, comm: nc.Communicator, version: Version, is_on_one_node: bool) -> None:
        self.comm, self.size = comm, int(comm.nranks)
        # Before NCCL 2.29 a communicator cannot be asked. Ranks on one node are taken to have windows.
        self.supports_windows = is_on_one_node and (version < PROPERTIES or _has_windows(comm))
        self.has_peer_pointers = version >= PEER_POINTERS
        self.epoch = self.barrier = 0
        """The last epochs of a plug-in's own barrier and of the kernel barrier."""
        self._has_pads = self.supports_windows and self.size > 1 and self.has_peer_pointers
        self._pad = 0
        self._window: object | None = None

    @property
    def has_registered_pads(self) -> bool:
        """Whether `pads` returns without the peers."""
        return self._window is not None

    def pads(self) -> list[int]:
        """Address of every rank's pad. Collective the first time: then the pad is allocated, cleared and registered.

        Raises `NotOwned` where NCCL has no pointers to peers.
        """
        if not self._has_pads:
            raise NotOwned
        if not self.has_registered_pads:
            self._pad = int(nccl.mem_alloc(PAD_BYTES))
            self._clear()
            self._window = nccl.comm_window_register(self.comm._comm, self._pad, PAD_BYTES, WINDOW_SYMMETRIC)
        return [int(nccl.get_peer_device_pointer(self._window, 0, peer)) for peer in range(self.size)]

    def renew(self) -> None:
        """Have pads and epochs as those of a new communicator. No kernel may run, and no peer may signal, until all
        ranks have come back. Local."""
        self.epoch = self.barrier = 0
        if self._window is not None:
            self._clear()

    def _clear(self) -> None:
        for at in (0, BARRIER_AT):
            tensor_at(self._pad + at, 4 * self.size).zero_()
        torch.cuda.synchronize()

    def destroy(self) -> None:
        """Destroy the communicator. Collective over its ranks."""
        if self._window is not None:
            nccl.comm_window_deregister(self.comm._comm, self._window)
        self.comm.destroy()
        if self._pad:  # NCCL and the driver do not survive that memory is freed under a live window (pytorch 181626)
            nccl.mem_free(self._pad)
        self._window, self._pad = None, 0


def _has_windows(comm: nc.Communicator) -> bool:
    """NCCL's own prediction."""
    properties = comm.properties
    return bool(properties.device_api_support and properties.n_lsa_teams == 1)
