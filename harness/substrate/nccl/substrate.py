"""One rank on a GPU: its device, streams, pools and communicators.

Communicators are made by splitting: one for each world size from the base, one for each partition
from that. They are kept from draw to draw, the least recently used partitions of each world size
given up first. Every rank of a world size sees the same draws of that size, so all of them split and
destroy in the same order without a word from the parent.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.ipc.memory import SPLIT, SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.machine.evidence import KINDS
from harness.machine.nccl import version as nccl_version
from harness.scenario.layout import Group, Partition, group_of
from harness.substrate.base import Graph, Substrate
from harness.substrate.nccl.communicator import PEER_POINTERS, NcclCommunicator, NcclHandle, tensor_at
from harness.substrate.nccl.evidence import gather
from harness.substrate.nccl.fault import words
from harness.substrate.nccl.memory import NcclPool, SegmentAllocator, free_quarantined
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment

SHARING = nc.NCCLConfig(split_share=True)
"""Split communicators use the service threads of the one that they are split from: without that, destroying one
waits up to 0.5 s for its threads to look up (NCCL 2.32.3). `NCCL_COMM_SPLIT_SHARE_RESOURCES=0` overrules it."""
KEPT = 12
"""Partitions whose communicators are kept, for each world size, beside those that a draw needs."""


class NcclSubstrate(Substrate):
    """A rank on `gpu`, of a world of `processes`."""

    name = "nccl"

    def __init__(
        self, rank: int, processes: int, gpu: int, shared: SharedMemory, evidence: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(rank, evidence)
        self.path_evidence = gather(evidence)  # before NCCL writes its first line of log
        torch.cuda.set_device(gpu)
        torch.empty(1, device="cuda")
        self.device = torch.device("cuda", gpu)
        self.shared, self._processes = shared, processes
        self.device_barrier = os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1"
        self.allocator = SegmentAllocator()
        self.nccl_version = nccl_version() or (0, 0, 0)
        self._worlds: dict[int, nc.Communicator] = {}
        self._kept: dict[int, OrderedDict[Partition, NcclHandle]] = {}
        self._streams: dict[int, torch.cuda.Stream] = {}
        self._serving: dict[Group, Partition] = {}
        """The partition whose kept communicator a group uses; two partitions may share a group."""
        self._quarantined: list[Segment] = []
        self._world = 0
        self._node_of: Sequence[int] = ()
        self._expected = ""
        self._slots: dict[Group, int] = {}

    def describe(self) -> dict[str, Any]:
        version = ".".join(map(str, self.nccl_version))
        facts = {
            "gpu": torch.cuda.get_device_name(self.device),
            "cuda": torch.version.cuda,
            "nccl_loaded": version,
            "kernels": self.nccl_version >= PEER_POINTERS,
            "path_evidence": f"NCCL {version}, {', '.join(kind.name for kind in KINDS if kind.name in self.evidence)}",
        }
        return {**facts, "token": pickle.dumps(nc.get_unique_id())} if self.rank == 0 else facts

    def join(self, token: object) -> None:
        assert isinstance(token, bytes)
        self._worlds[self._processes] = nc.Communicator.init(self._processes, self.rank, pickle.loads(token), SHARING)

    def world(self, size: int) -> None:
        if size not in self._worlds:
            base = self._worlds[self._processes]
            self._worlds[size] = base.split(0 if self.rank < size else None, self.rank)

    def begin(self, partitions: Sequence[Partition], node_of: Sequence[int], slots: dict[Group, int]) -> None:
        self._world, self._slots, self._node_of = len(node_of), slots, node_of
        self.communicators.clear()
        self._serving.clear()
        for partition in partitions:
            group = group_of(partition, self.rank)
            handle = self._handle(partition, set(partitions))
            if group not in self.communicators:
                self._serving[group] = partition
                self.communicators[group] = NcclCommunicator(self, group, 0, handle, slots[group])

    def _handle(self, partition: Partition, needed: set[Partition]) -> NcclHandle:
        """The kept communicator of a partition, or a new one. Those that the draw needs are not given up for it.
        Collective over the world."""
        kept = self._kept.setdefault(self._world, OrderedDict())
        if partition in kept:
            kept.move_to_end(partition)
            return kept[partition]
        for other in [other for other in kept if other not in needed][: max(0, len(kept) - KEPT + 1)]:
            kept.pop(other).destroy()
        kept[partition] = self._split(partition)
        return kept[partition]

    def _split(self, partition: Partition) -> NcclHandle:
        group = group_of(partition, self.rank)
        comm = self._worlds[self._world].split(partition.index(group), group.index(self.rank))
        return NcclHandle(comm, self.nccl_version, len({self._node_of[rank] for rank in group}) == 1)

    def recreate(self, partition: Partition) -> None:
        group = group_of(partition, self.rank)
        old = self.communicators[group]
        assert isinstance(old, NcclCommunicator)
        old.entered("recreate")
        old.barrier()
        for window in list(old.windows):
            nccl.comm_window_deregister(old.handle.comm._comm, window.handle)
        old.destroyed()
        with self._everyone().within(SPLIT):
            old.handle.destroy()
            handle = self._split(partition)
        self._kept[self._world][self._serving[group]] = handle
        self.communicators[group] = NcclCommunicator(self, group, old.generation + 1, handle, self._slots[group])

    def _everyone(self) -> Rendezvous:
        """Where the ranks of the draw meet."""
        world = tuple(range(self._world))
        return Rendezvous(self.shared, self._slots[world], world, self.rank)

    def quarantine(self, segment: Segment) -> None:
        """Keep a segment that was freed under a live window until its windows are gone: NCCL and the
        driver do not survive the real thing (pytorch 181626)."""
        self._quarantined.append(segment)

    def end(self) -> None:
        self.synchronize()
        self.record_leaks()
        self.record = lambda event: None
        for communicator in self.communicators.values():
            for window in list(communicator.windows):
                communicator.deregister(window)
        for segment in self._quarantined:
            free_quarantined(segment)
        self._quarantined.clear()
        for pool in self.pools.values():
            pool.close()
        self.pools.clear()

    def fault(self, error: BaseException | None) -> str:
        is_tritons = isinstance(error, RuntimeError) and str(error).startswith("Triton Error [CUDA]")
        if error is None or not (is_tritons or isinstance(error, nccl.NCCLError | torch.AcceleratorError)):
            return ""
        said = self._last_error()
        return words(error, said if said != self._expected else "")

    def expect_error(self) -> None:
        """Note what NCCL said of an error that was expected; it keeps that, and it is no word on a later one."""
        self._expected = self._last_error()

    def _last_error(self) -> str:
        """What NCCL said last in this process; the communicator that it is asked for does not matter (NCCL 2.32)."""
        try:
            return str(self._worlds[self._processes].get_last_error())
        except Exception:  # a broken communicator, or a binding without it: there are no words then
            return ""

    def make_pool(self, name: str) -> Pool:
        return NcclPool(self, name)

    @contextmanager
    def stream(self, index: int) -> Iterator[None]:
        if index not in self._streams:
            own = torch.cuda.Stream if index else torch.cuda.default_stream
            self._streams[index] = own()
        with torch.cuda.stream(self._streams[index]):
            yield

    def record_stream(self, tensor: torch.Tensor) -> None:
        tensor.record_stream(torch.cuda.current_stream())

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        stream = None if current == torch.cuda.default_stream() else current
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            yield graph

    @property
    def is_capturing(self) -> bool:
        return bool(torch.cuda.is_current_stream_capturing())

    def reclaim(self) -> None:
        self.synchronize()
        torch.empty(1, device=self.device)  # such blocks return in an allocation, and in none inside `use_mem_pool`

    def view(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size)

    def enqueue(self, work: Callable[[], None]) -> None:
        work()  # on the current stream, which captures or runs

    def synchronize(self) -> None:
        if not self.is_capturing:
            torch.cuda.synchronize()
