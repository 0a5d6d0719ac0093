"""`torch.cuda.MemPool` over `ncclMemAlloc`, with every segment seen from Python; and workspaces, which are in no pool.

Invariant: the pool sees a segment when the allocator gets it, and before the allocator loses it.
The callbacks run inside an allocation and under the allocator's lock. A pool policy that does more than
noting in them (`shared-at-alloc` registers a window) does so at its own risk.

Measured with PyTorch 2.11 on one H100: a live MemPool returns nothing to `empty_cache`, inside or
outside `use_mem_pool`; it frees its segments when it is destroyed. So `trim` replaces a pool in which
nothing is in use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from nccl.bindings import nccl

from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.denial import Denial
from harness.substrate.device import Device
from harness.substrate.nccl import quiet
from harness.substrate.nccl.handle import WINDOW_SYMMETRIC, NcclHandle
from harness.substrate.nccl.references import kept
from harness.substrate.pool import Pool
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment
from harness.substrate.workspace import Ends, Workspace, Workspaces

GRANULE = 2 << 20
"""NCCL's allocator gives multiples of so many bytes."""
_ALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)


class SegmentAllocator:
    """The allocator behind every MemPool of this process; knows which pool is growing.

    `quarantine` takes a segment that is freed under a live window; `expect_error` notes an error that NCCL reports
    and the allocator handles.
    """

    def __init__(self, denial: Denial, quarantine: Callable[[Segment], None], expect_error: Callable[[], None]) -> None:
        self._denial, self._quarantine, self._expect_error = denial, quarantine, expect_error
        self._alloc, self._free = _ALLOC(self._allocate), _FREE(self._release)
        self.handle: Any = torch._C._cuda_customAllocator(_address(self._alloc), _address(self._free))
        self.growing: NcclPool | None = None
        self.owners: dict[int, NcclPool] = {}
        self.error: BaseException | None = None
        """An exception of a callback, which C code cannot pass on. `Pool.use` raises it outside the allocator."""

    def _allocate(self, size: int, device: int, stream: int) -> int | None:
        pool = self.growing
        if pool is None:
            return None
        if self._denial.refuses(pool.name, size):
            pool.refusals += 1
            return None
        try:
            address = quiet.allocate(size)
        except nccl.NCCLError:
            self._expect_error()
            pool.refusals += 1
            return None  # PyTorch then frees its cache, asks again, and raises OutOfMemoryError
        self.owners[address] = pool
        try:
            pool.allocated(address, size)
        except BaseException as error:
            self.error = error  # the segment is in the pool by now, and goes when the draw ends
        return address

    def _release(self, address: int, size: int, device: int, stream: int) -> None:
        try:
            segment = self.owners.pop(address).freed(address)
            if segment.windows:
                self._quarantine(segment)
            else:
                quiet.free(address)
        except BaseException as error:
            self.error = error


class NcclPool(Pool):
    """A MemPool whose segments come from `ncclMemAlloc`."""

    def __init__(self, recorder: Recorder, name: str, allocator: SegmentAllocator) -> None:
        super().__init__(recorder, name)
        self._allocator = allocator
        self._pool: Any = torch.cuda.MemPool(self._allocator.handle)

    @contextmanager
    def use(self) -> Iterator[None]:
        outer, self._allocator.growing = self._allocator.growing, self
        try:
            with torch.cuda.use_mem_pool(self._pool):
                yield
        finally:
            self._allocator.growing = outer
            self._raise_pending()

    def snapshot(self) -> list[Segment]:
        known = {segment.address: segment for segment in self.segments}
        return [known[listed["address"]] for listed in self._listed()]

    def used(self) -> list[tuple[int, int]]:
        return handed_out(self._listed())

    def _listed(self) -> list[dict[str, Any]]:
        """The pool's segments as PyTorch lists them.

        The call gives up references to the parts of the pool's id that are not its own (pytorch 196366; seen
        with 2.11). Integers up to 256 stand that; from the 257th pool of a process on, it frees them too early.
        """
        ident = self._pool.id
        with kept(*ident):
            listed: list[dict[str, Any]] = torch.cuda.memory_snapshot(ident)  # type: ignore[no-untyped-call]
        return listed

    def trim(self) -> None:
        if self.is_reserved:
            return
        blocks = (block for segment in self._listed() for block in segment["blocks"])
        if any(block["state"] != "inactive" for block in blocks):
            return
        self.close()
        self._pool = torch.cuda.MemPool(self._allocator.handle)

    def close(self) -> None:
        torch.cuda.synchronize()
        self._pool = None  # a MemPool frees the segments that hold no live block in its destructor, and not before
        self._raise_pending()

    def _raise_pending(self) -> None:
        error, self._allocator.error = self._allocator.error, None
        if error is not None:
            raise error


def handed_out(listed: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    """Address and bytes of each block that is handed out, of segments as PyTorch lists them."""
    found = []
    for segment in listed:
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                found.append((address, block["size"]))
            address += block["size"]
    return found


def _address(callback: Any) -> int:
    """The address of a callback, for C code."""
    return ctypes.cast(callback, ctypes.c_void_p).value or 0


def free_quarantined(segment: Segment) -> None:
    """Free a segment that was freed under live windows, now that these are gone."""
    quiet.free(segment.address)


class NcclWorkspaces(Workspaces):
    """Those of the communicator behind `handle`. `registering` is around what waits for the peers."""

    def __init__(
        self,
        recorder: Recorder,
        device: Device,
        rendezvous: Rendezvous,
        group: GroupId,
        comm: int,
        handle: NcclHandle,
        registering: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(recorder, device, rendezvous, group, comm)
        self._handle, self._registering = handle, registering

    def _allocate(self, size: int) -> int:
        address = quiet.allocate(_whole(size))
        self._device.view(address, size).zero_()
        return address

    def _free(self, address: int) -> None:
        quiet.free(address)

    def _join(self, ident: int, address: int, size: int, named: Sequence[int]) -> Ends:
        peers = range(len(self._group.ranks))
        if len(peers) == 1:
            return Ends([address])
        with self._registering():
            window = quiet.register(self._handle.comm._comm, address, _whole(size), WINDOW_SYMMETRIC)
        return Ends([int(nccl.get_peer_device_pointer(window, 0, peer)) for peer in peers], window)

    def _leave(self, workspace: Workspace, is_gone: bool) -> None:
        if workspace.ends.window is not None and not is_gone:
            quiet.deregister(self._handle.comm._comm, workspace.ends.window)


def _whole(size: int) -> int:
    return -(-size // GRANULE) * GRANULE
