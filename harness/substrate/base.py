"""What one rank stands on: its recorder, device, pools and communicators.

Invariant: no draw sees another one: events are numbered from zero, pools are new, and `end` takes back all that the
system under test has left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from harness.errors import UsageError
from harness.ipc.memory import SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import Group, GroupId, GroupIds, ids_of
from harness.scenario.placement import lsa_team_size
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.substrate.communicator import Communicator
from harness.substrate.denial import Denial, Refusal
from harness.substrate.device import Device
from harness.substrate.pool import Pool
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment
from harness.trace import events as trace
from harness.trace.accesses import How
from harness.trace.events import Event


class Substrate(ABC):
    """What one rank stands on during one draw after another."""

    name: str
    device: Device
    evidence: frozenset[str]
    """Names of the kinds of evidence that this world has (`harness.machine.evidence`)."""
    compares_always = False
    """Whether memory is compared around the calls of every draw, and not of a share alone."""
    chooses_freely = False
    """Whether the library chooses the path of a call by what it expects to be faster, and not by ownership alone."""

    def __init__(self, rank: int, shared: SharedMemory, evidence: frozenset[str] = frozenset()) -> None:
        self.rank, self.evidence = rank, evidence
        self.recorder = Recorder(rank)
        self.denial, self.refusal = Denial(self.recorder), Refusal(self.recorder)
        self.pools: dict[str, Pool] = {}
        self.communicators: dict[GroupId, Communicator] = {}
        self.records_leaks = True
        """Whether what is left at the end of a draw is a leak; not where the policy under test has no teardown."""
        self.is_falling = False
        """Whether this rank's segments get falling addresses in the next draw, where the substrate can choose."""
        self.left = ""
        """Memory of the last draw that this process still has, in words; empty where there is none."""
        self.recreated: Counter[GroupId] = Counter()
        """How many `recreate` steps of the draw have replaced the communicator of a group."""
        self.is_in_turns = False
        """Whether this rank runs in its turns of a schedule."""
        self.graph: str | None = None
        """The graph that is being prepared or captured."""
        self._shared = shared
        self._node_of: Sequence[int] = ()
        self.hosts: tuple[int, ...] = ()
        """The machine of each rank, by its host name."""
        self._slots: dict[GroupId, int] = {}

    def describe(self) -> dict[str, Any]:
        """Versions and features for the parent, and from rank 0 a token for `join`. Local."""
        return {}

    def join(self, token: object) -> None:  # noqa: B027  (only where a rendezvous outside the heap is needed)
        """Come together with all processes of the world. Collective over all of them, once."""

    def world(self, size: int) -> None:  # noqa: B027
        """Prepare for draws of the first `size` ranks. Collective over all processes, at each new size."""

    def start_recording(
        self, record: Callable[[Event], None], beat: Callable[[], None] = lambda: None, draw: int = 0
    ) -> None:
        """Begin the events of draw number `draw`, which has no pool yet. `beat` is for long work that writes none.
        Local."""
        self.recorder.start(record, beat, draw)
        self.denial.is_due, self.graph = False, None
        self.records_leaks, self.left = True, ""
        self.recreated.clear()
        self.refusal.start()
        self.pools.clear()

    def in_turns(
        self, schedule: Schedule, slots: dict[GroupId, int], record: Callable[[Event], None]
    ) -> AbstractContextManager[Callable[[Event], None]]:
        """Under it, this rank runs in its turns of a schedule alone, where the substrate can choose them. Gives what
        records events then. Collective over the world."""
        return nullcontext(record)

    def touched(self, how: How, *tensors: torch.Tensor) -> None:  # noqa: B027  (only by a schedule)
        """The harness has done that to memory of this rank. Local."""

    def begin(
        self,
        families: Sequence[GroupIds],
        node_of: Sequence[int],
        slots: dict[GroupId, int],
        hosts: Sequence[int] | None = None,
    ) -> None:
        """Start a draw: create this rank's communicators in every family. Collective over the world.

        `node_of` gives what NCCL takes for the node of each rank: its NVLink domain. `hosts` gives its machine, if that
        is another. `slots` has the row of the shared counters in which a group meets.
        """
        self._node_of, self._slots = node_of, slots
        self.hosts = tuple(node_of if hosts is None else hosts)
        self.communicators.clear()
        self._create(families)
        for communicator in self.communicators.values():
            communicator.refusal = self.refusal

    @abstractmethod
    def _create(self, families: Sequence[GroupIds]) -> None:
        """Create this rank's communicators for a draw. What two families share is made once."""

    def recreate(self, family: GroupIds) -> None:
        """Destroy and re-create the communicators of a family. Collective over the world."""
        old = [self.communicators[group] for group in ids_of(family, self.rank)]
        self.recreated.update(each.id for each in old)
        for communicator in old:
            communicator.entered("recreate")
            communicator.barrier()
            communicator.give_back()
        for new in self._replace(old, family):
            new.refusal = self.refusal
            self.communicators[new.id] = new

    @abstractmethod
    def _replace(self, old: Sequence[Communicator], family: GroupIds) -> Sequence[Communicator]:
        """Destroy this rank's communicators of a family, whose ranks have all come, and create their successors.
        Collective over the world."""

    def observe(self, pool: str) -> None:
        """From here on in this draw, record what the pool policy of that name does with NCCL by itself. Local. Raises
        `UsageError` where nothing sees that."""
        raise UsageError(f"pool {pool!r} calls NCCL by itself, and substrate {self.name} has none")

    def settle(self) -> None:  # noqa: B027  (only where a policy is observed)
        """Raise what went wrong while the policy called NCCL by itself. Local."""

    def bring(self, group: GroupId, ptr: int) -> None:
        """Have the `ncclComm_t` at `ptr`, which the policy made, be the communicator of a group. Collective over it.
        Raises `UsageError` where there is no NCCL."""
        raise UsageError(f"the pool brings a communicator at {ptr:#x}, and substrate {self.name} has no NCCL")

    def give_back(self) -> None:
        """Take back the workspaces of plug-ins. Local, once no rank uses them any more."""
        for communicator in self.communicators.values():
            communicator.give_back()

    def part(self) -> None:  # noqa: B027  (only where a policy brings communicators)
        """Let go of the communicators that the policy made, which is about to be closed. Local."""

    def deny(self) -> None:
        """Let this rank's next segment be refused. Local."""
        self.denial.is_due = True

    def take_back(self) -> None:
        """Deregister every window, for a policy that has no teardown. Local, once no rank uses them any more."""
        self.device.synchronize()
        for communicator in self.communicators.values():
            for window in list(communicator.windows):
                communicator.deregister(window)

    @abstractmethod
    def end(self) -> None:
        """End a draw: record what leaked, then take everything back. Collective over the world."""

    def give_up(self, scenario: Scenario) -> None:  # noqa: B027  (only where a library keeps what was captured)
        """After a draw of that scenario, destroy the communicators in which it has left something. Collective over the
        world."""

    @abstractmethod
    def make_pool(self, name: str) -> Pool:
        """An empty pool. Local."""

    def fault(self, error: BaseException | None) -> str:
        """One line about an exception that the device or NCCL reported; empty for a mistake in Python."""
        return ""

    def record(self, event: Event) -> None:
        """Record an event of this rank. Local."""
        self.recorder.record(event)

    def pool(self, name: str) -> Pool:
        """The pool of that name, made at its first use. Local."""
        if name not in self.pools:
            self.pools[name] = self.make_pool(name)
        return self.pools[name]

    def communicator(self, group: GroupId) -> Communicator:
        """This rank's communicator over `group`, created when the draw began."""
        return self.communicators[group]

    def locate(self, address: int) -> Segment | None:
        """The live segment that holds an address."""
        segments = (segment for pool in self.pools.values() for segment in pool.segments)
        return next((segment for segment in segments if address in segment), None)

    def written(self, segment: Segment) -> list[tuple[int, int]]:
        """Address and bytes of the parts of a segment that have been written. All the rest still reads as zeros."""
        return [(segment.address, segment.size)]

    def record_unmapped(self) -> None:  # noqa: B027  (only the simulation knows; a GPU raises a fault instead)
        """Record what has been touched since the last look where no window has its memory. Local."""

    def record_leaks(self) -> None:
        """Record every segment and window that is still there, unless the policy has no teardown."""
        if not self.records_leaks:
            return
        for pool in self.pools.values():
            for segment in pool.segments:
                self.record(trace.Leaked("segment", segment.ident, segment.size))
        for communicator in self.communicators.values():
            for window in communicator.windows:
                self.record(trace.Leaked("window", window.ident, window.size))

    def _rendezvous(self, group: GroupId) -> Rendezvous:
        """Where the ranks of a group meet on the host."""
        return Rendezvous(self._shared, self._slots[group], group.ranks, self.rank)

    def _is_one_lsa_team(self, group: Group) -> bool:
        """Whether a group has windows: without GPU-initiated networking NCCL gives none across LSA teams."""
        return lsa_team_size(self._node_of[rank] for rank in group) == len(group)
