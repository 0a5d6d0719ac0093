"""Memory of the harness that plug-ins ask for on a communicator: zeros between canaries, on every rank of the group.

Invariant: it belongs to one communicator and goes before that does. No pool and no window of the system's has it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.ipc.memory import AGREE
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.device import Device
from harness.substrate.recorder import Recorder
from harness.trace.events import Entered, Provided, Provision, WorkspaceOverwritten

KINDS: tuple[Provision, ...] = ("workspace", "flags")
GUARD = 4096
"""Bytes of canaries on each side. So a body is aligned as its memory is."""
SHOWN = 8
"""Bytes that are shown of what was found there."""


def _pattern(start: int) -> NDArray[np.uint8]:
    """Bytes of which none is zero, and no two runs are alike."""
    index = np.arange(start, start + GUARD, dtype=np.int64)
    return (((index * 2654435761) >> 7) % 255 + 1).astype(np.uint8)


FRONT, BEHIND = _pattern(1), _pattern(1 + GUARD)


class Ends(NamedTuple):
    """Where every rank's memory is mapped in this process, in group order. `window`: NCCL's, if there is one."""

    addresses: list[int]
    window: object = None


class Workspace:
    """One rank's end: `body` is uint8[nbytes], of flags int32, in the midst of the memory at `address`."""

    def __init__(self, ident: int, what: Provision, nbytes: int, address: int, device: Device) -> None:
        self.ident, self.what, self.nbytes, self.address = ident, what, nbytes, address
        self.start, self.ends = address + GUARD, Ends([])
        body = device.view(self.start, nbytes)
        self.body = body.view(torch.int32) if what == "flags" else body
        self._guards = [
            (-GUARD, device.view(address, GUARD), torch.from_numpy(FRONT)),
            (nbytes, device.view(self.start + nbytes, GUARD), torch.from_numpy(BEHIND)),
        ]
        self._make_whole()

    def _make_whole(self) -> None:
        for _, guard, due in self._guards:
            guard.copy_(due)

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.start + self.nbytes

    def pointers(self, address: int) -> list[int]:
        """Where each rank has what this one has at an address of the body."""
        return [begin + address - self.address for begin in self.ends.addresses]

    def overwritten(self, group: GroupId) -> WorkspaceOverwritten | None:
        """What has changed beside the body, if anything has. The canaries are whole then. Waits for the device."""
        for start, guard, due in self._guards:
            seen = guard.cpu()
            changed = torch.nonzero(seen != due).flatten().tolist()
            if changed:
                first, many = changed[0], len(changed)
                shown = seen[first : first + SHOWN].numpy().tobytes().hex()
                self._make_whole()
                return WorkspaceOverwritten(group, self.what, self.nbytes, start + first, many, shown)
        return None


class Workspaces(ABC):
    """Those of one communicator, which has number `comm` in the trace."""

    def __init__(self, recorder: Recorder, device: Device, rendezvous: Rendezvous, group: GroupId, comm: int) -> None:
        self._recorder, self._device, self._rendezvous = recorder, device, rendezvous
        self._group, self._comm, self._rank = group, comm, group.ranks.index(recorder.rank)
        self._made: dict[tuple[Provision, int], Workspace] = {}

    def of(self, what: Provision, nbytes: int) -> Workspace:
        """The one of so many bytes. Collective the first time.

        Raises `RuntimeError` where it would have to be made while work is captured or in flight, and `ValueError`
        where other ranks ask for something else.
        """
        if (found := self._made.get((what, nbytes))) is None:
            if self._device.does_later:
                now = "a graph is captured" if self._device.is_capturing else "calls are in flight"
                raise RuntimeError(f"{what} of {nbytes} bytes cannot be made while {now}: ask for it in open(context)")
            self._recorder.record(Entered(what, self._comm))
            found = self._made[what, nbytes] = self._make(what, nbytes)
            self._recorder.record(Provided(found.ident, self._comm, what, nbytes))
        return found

    def _make(self, what: Provision, nbytes: int) -> Workspace:
        size = nbytes + 2 * GUARD
        address = self._allocate(size)
        made = Workspace(next(self._recorder.idents), what, nbytes, address, self._device)
        self._device.synchronize()  # peers may write there as soon as this rank has met them
        words = self._rendezvous.exchange(AGREE, KINDS.index(what), nbytes, self._named(address))
        asked = [f"{KINDS[kind]} of {each} bytes" for kind, each, _ in words.tolist()]
        if len({*asked}) > 1:
            self._free(address)
            each = " and ".join(
                f"{text} on rank {self._group.ranks[asked.index(text)]}" for text in dict.fromkeys(asked)
            )
            raise ValueError(f"ranks of a group have to ask for the same, and asked for {each}")
        made.ends = self._join(made.ident, address, size, words[:, 2].tolist())
        return made

    def find(self, address: int) -> Workspace | None:
        """The one that holds an address."""
        return next((each for each in self._made.values() if address in each), None)

    @property
    def nbytes(self) -> int:
        """Bytes of all bodies."""
        return sum(each.nbytes for each in self._made.values())

    def overwritten(self) -> Iterator[WorkspaceOverwritten]:
        """What has been written beside them since the last look. Local."""
        for each in self._made.values():
            if (damage := each.overwritten(self._group)) is not None:
                yield damage

    def give_back(self, is_gone: bool) -> None:
        """Look at all for the last time, and free them. `is_gone`: the communicator is, and its windows with it. Local,
        once no rank uses them any more."""
        if not self._made:
            return
        self._device.synchronize()
        for damage in self.overwritten():
            self._recorder.record(damage)
        for each in self._made.values():
            self._leave(each, is_gone)
            self._free(each.address)
        self._made.clear()

    @abstractmethod
    def _allocate(self, size: int) -> int:
        """Address of at least so many zeros that peers can reach, outside every pool. Local."""

    @abstractmethod
    def _free(self, address: int) -> None:
        """Free such memory. Local."""

    def _named(self, address: int) -> int:
        """The word by which peers find such memory."""
        return 0

    @abstractmethod
    def _join(self, ident: int, address: int, size: int, named: Sequence[int]) -> Ends:
        """Have peers reach the memory that each has allocated. Collective."""

    @abstractmethod
    def _leave(self, workspace: Workspace, is_gone: bool) -> None:
        """Undo that on this rank."""
