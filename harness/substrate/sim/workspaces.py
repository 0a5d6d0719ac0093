"""Workspaces of the simulation: pieces of the shared memory, which peers map at addresses of their own.

Invariant: as of a window, such an address is given out once in a draw, and what touches it later is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.ipc.memory import SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.recorder import Recorder
from harness.substrate.sim.device import SimDevice
from harness.substrate.sim.memory import Arena
from harness.substrate.sim.views import Views
from harness.substrate.workspace import Ends, Workspace, Workspaces


class SimWorkspaces(Workspaces):
    """Those of one communicator, from the rank's `arena` for them."""

    def __init__(
        self,
        recorder: Recorder,
        device: SimDevice,
        rendezvous: Rendezvous,
        group: GroupId,
        comm: int,
        shared: SharedMemory,
        arena: Arena,
        views: Views,
    ) -> None:
        super().__init__(recorder, device, rendezvous, group, comm)
        self._shared, self._arena, self._views = shared, arena, views

    def _allocate(self, size: int) -> int:
        address = self._arena.take(size)
        self._shared.punch(self._named(address), self._arena.behind(address))  # the draw before may have broken off
        return address

    def _free(self, address: int) -> None:
        self._arena.give_back(address)

    def _named(self, address: int) -> int:
        return address - self._shared.base

    def _join(self, ident: int, address: int, size: int, named: Sequence[int]) -> Ends:
        ranks = enumerate(zip(self._group.ranks, named, strict=True))
        return Ends(
            [
                address if member == self._rank else self._views.open(ident, peer, offset, size)
                for member, (peer, offset) in ranks
            ]
        )

    def _leave(self, workspace: Workspace, is_gone: bool) -> None:
        self._views.close(workspace.ident)
