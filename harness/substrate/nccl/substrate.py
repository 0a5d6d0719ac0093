"""One rank on a GPU: its device, pools and communicators.

Invariant: memory goes after every window over it. A segment that was freed under a live window waits in quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.errors import UsageError
from harness.ipc.memory import HOST, SPLIT, SharedMemory
from harness.machine.evidence import KINDS
from harness.machine.nccl import PEER_POINTERS
from harness.machine.nccl import version as nccl_version
from harness.scenario.layouts.groups import GroupId, GroupIds, ids_of
from harness.scenario.scenario import Scenario
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator, RegistrationError
from harness.substrate.nccl import quiet
from harness.substrate.nccl.communicator import NcclCommunicator
from harness.substrate.nccl.device import NcclDevice
from harness.substrate.nccl.evidence import gather
from harness.substrate.nccl.fault import LastError, describe
from harness.substrate.nccl.handle import NcclHandle
from harness.substrate.nccl.handles import Handles
from harness.substrate.nccl.memory import NcclPool, SegmentAllocator, free_quarantined
from harness.substrate.nccl.watching import Watching
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment

SHARING = nc.NCCLConfig(split_share=True)
"""Split communicators use the service threads of the one that they are split from. Without that, destroying one
waits up to 0.5 s for its threads to look up (NCCL 2.32.3). `NCCL_COMM_SPLIT_SHARE_RESOURCES=0` overrules it."""


REGISTERED, PROTOCOLS = 16 << 10, {"NCCL_PROTO", "NCCL_P2P_LL_THRESHOLD", "NCCL_TUNER_PLUGIN", "NCCL_TUNER_CONFIG_FILE"}
"""Bytes of a captured call from which on NCCL may register its memory, and variables by which smaller ones may be, too.
By its own choice it moves those by LL and LL128, which register nothing (`ncclRegisterCollBuffers`, 2.30.7)."""


class NcclSubstrate(Substrate):
    """A rank on `gpu`, of a world of `processes`."""

    name = "nccl"

    def __init__(
        self, rank: int, processes: int, gpu: int, shared: SharedMemory, evidence: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(rank, shared, evidence)
        self.device: NcclDevice = NcclDevice(gpu, lambda: self.allocator.growing is not None)
        self._path_evidence = gather(evidence)  # NCCL reads NCCL_DEBUG_FILE before it writes its first line of log
        # NCCL's cost model takes its ring for small calls with one operand in a window, though a symmetric kernel could
        # run them (2.28.9 and 2.32.3, on one, two and four H100). Forced, it refuses only what it does not own.
        self.chooses_freely = "forced" not in evidence
        self._processes = processes
        self._last_error = LastError(self._ask_last_error)
        self.allocator = SegmentAllocator(self.denial, self._quarantine, self._last_error.expect)
        self._version = nccl_version() or (0, 0, 0)
        self._handles = Handles(rank, processes, self._version)
        self._families: Sequence[GroupIds] = ()
        """Those of the draw."""
        self._serving: dict[GroupId, GroupIds] = {}
        """The family whose kept communicator a group uses; two families may share it."""
        self._quarantined: list[Segment] = []
        self._watching: Watching | None = None
        self._brought: dict[int, NcclCommunicator] = {}
        """The draw's communicators that the policy made, by address."""

    def describe(self) -> dict[str, Any]:
        version = ".".join(map(str, self._version))
        versions = {
            "gpu": torch.cuda.get_device_name(self.device.torch_device),
            "cuda": torch.version.cuda,
            "nccl_loaded": version,
            "kernels": self._version >= PEER_POINTERS,
            "path_evidence": f"NCCL {version}, {', '.join(kind.name for kind in KINDS if kind.name in self.evidence)}",
        }
        return {**versions, "token": bytes(nc.get_unique_id())} if self.rank == 0 else versions

    def join(self, token: object) -> None:
        assert isinstance(token, bytes)
        self._handles.join(nc.Communicator.init(self._processes, self.rank, nc.UniqueId.from_bytes(token), SHARING))

    def world(self, size: int) -> None:
        self._handles.world(size)

    def _create(self, families: Sequence[GroupIds]) -> None:
        self._serving.clear()
        self._families = families
        for family in families:
            handles = self._handles.take(family, self._node_of, set(families))
            for group in ids_of(family, self.rank):
                if group not in self.communicators:
                    self._serving[group] = family
                    self._begin(group, handles[group])

    def _begin(self, group: GroupId, handle: NcclHandle) -> None:
        self.communicators[group] = self._communicator(group, 0, handle)
        if handle.has_registered_pads:
            handle.renew()
            self._rendezvous(group).meet(HOST)  # a peer that is ahead would signal before this rank has cleared

    def _communicator(self, group: GroupId, generation: int, handle: NcclHandle) -> NcclCommunicator:
        return NcclCommunicator(
            self.recorder,
            self.device,
            self._rendezvous(group),
            group,
            generation,
            handle,
            self._path_evidence,
            self._last_error.expect,
        )

    def observe(self, pool: str) -> None:
        observer = quiet.observer()
        if observer is None:
            raise UsageError(
                f"pool {pool!r} calls NCCL by itself, and no observer stands in front of NCCL here: name the pool by "
                "--pool or --symm-pool"
            )
        self._watching = Watching(observer, self.recorder, self.denial, self.refusal, self.communicators.values)
        self.pools[self._watching.pool.name] = self._watching.pool

    def settle(self) -> None:
        if self._watching is not None:
            self._watching.settle()

    def deny(self) -> None:
        super().deny()
        if self._watching is not None:
            self._watching.deny()

    def bring(self, group: GroupId, ptr: int) -> None:
        now = self.communicators[group]
        if now.ptr == ptr and not now.is_gone:
            return
        now.give_back()
        if isinstance(now, NcclCommunicator) and now in self._brought.values():
            now.handle.part(now.is_gone)
        now.destroyed()
        if ptr not in self._brought or self._brought[ptr].is_gone:  # a new one may be at the old one's address
            is_on_one_node = len({self._node_of[rank] for rank in group.ranks}) == 1
            handle = NcclHandle(nc.Communicator(ptr), self._version, is_on_one_node)
            self._brought[ptr] = self._communicator(group, now.generation + 1, handle)
            self._brought[ptr].refusal = self.refusal
        self.communicators[group] = self._brought[ptr]

    def _replace(self, old: Sequence[Communicator], family: GroupIds) -> Sequence[Communicator]:
        for communicator in old:
            assert isinstance(communicator, NcclCommunicator)
            if communicator in self._brought.values():
                continue  # it is the policy's to destroy, or to keep
            for window in list(communicator.windows):
                nccl.comm_window_deregister(communicator.handle.comm._comm, window.handle)
            communicator.destroyed()
        everyone = self._rendezvous(GroupId(tuple(range(len(self._node_of)))))
        with everyone.within(SPLIT):
            handles = self._handles.replace(self._serving, family, self._node_of)
        return [self._communicator(each.id, each.generation + 1, handles[each.id]) for each in old]

    def _quarantine(self, segment: Segment) -> None:
        """Keep a segment that was freed under a live window until its windows are gone: NCCL and the
        driver do not survive the real thing (pytorch 181626)."""
        self._quarantined.append(segment)

    def part(self) -> None:
        for communicator in self._brought.values():
            communicator.handle.part(communicator.is_gone)

    def end(self) -> None:
        self.device.synchronize()
        self.record_leaks()
        self.recorder.stop()
        for communicator in self.communicators.values():
            for window in list(communicator.windows):
                communicator.deregister(window)
        if self._watching is not None:
            self.left, self._watching = self._watching.stop(), None
        self._brought.clear()
        for segment in self._quarantined:
            free_quarantined(segment)
        self._quarantined.clear()
        for pool in self.pools.values():
            pool.close()
        self.pools.clear()

    def give_up(self, scenario: Scenario) -> None:
        # NCCL keeps a record of the memory of a captured call, and takes new memory at the address for the old
        # (docs/findings.md). So the next draw could be wrong by no fault of its own.
        groups = {*scenario.captured(0 if PROTOCOLS & os.environ.keys() else REGISTERED)}
        for family in self._families:
            if not groups.isdisjoint(family):
                self._handles.give_up(family, len(self._node_of))

    def make_pool(self, name: str) -> Pool:
        return NcclPool(self.recorder, name, self.allocator)

    def fault(self, error: BaseException | None) -> str:
        if isinstance(error, RegistrationError):
            error = error.__cause__  # NCCL's own error; a refusal that a step asked for has none
        # Triton raises a plain RuntimeError for what the driver reports.
        is_tritons = isinstance(error, RuntimeError) and str(error).startswith("Triton Error [CUDA]")
        if error is None or not (is_tritons or isinstance(error, nccl.NCCLError | torch.AcceleratorError)):
            return ""
        return describe(error, self._last_error.unexpected())

    def _ask_last_error(self) -> str:
        """NCCL's last error in this process, whichever communicator is asked (NCCL 2.32)."""
        try:
            return str(self._handles.base.get_last_error())
        except Exception:  # a broken communicator, or a binding without the call
            return ""
