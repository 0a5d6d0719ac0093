"""Pool policies with one planted fault each.

Invariant: a class differs from the sound one that it derives from in its fault alone. Its docstring names the fault
of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch

from harness.system.context import Pool, ProcessGroup, RankContext, RegistrationError, Segment
from harness.system.planted.sound import EveryGroup, GoesWithout, Sound

# ownership


class FirstGroupOnly(Sound):
    """Every segment is registered with the first group ever seen (F01: the site's group is not the call's)."""

    first: ProcessGroup | None = None

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        self.first = self.first or group
        super().register(segment, self.first)


class OutsideThePool(Sound):
    """Allocations go past the pool, as those of another thread do (F24, whose other thread is left out)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        yield


class ChecksAnyGroup(Sound):
    """One pool for all groups; a segment that has a window of any of them counts as registered (F25)."""

    def pool(self, group: ProcessGroup) -> Pool:
        return self.pool_named("shared")

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.segment.ident == segment.ident and window.is_valid for window in self.windows)


class KeyedByRanks(Sound):
    """Communicators over the same ranks share a pool, and whichever comes first registers it for all (F26)."""

    def pool(self, group: ProcessGroup) -> Pool:
        return self.pool_named("-".join(map(str, group.ranks)))

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.is_valid for window in segment.windows)


class KeyedByFamily(Sound):
    """One pool a family, registered by the first of its groups that this rank was asked for (F27: it is in several)."""

    def pool(self, group: ProcessGroup) -> Pool:
        return self.pool_named(group.family + self.place())

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.is_valid for window in segment.windows)


class ShortWindow(Sound):
    """Windows end 4096 bytes behind the segment's start (F22)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(Segment(segment.ident, segment.pool, segment.address, 4096), group)


class IgnoresNull(Sound):
    """Registers with every communicator and takes success for a window (F18)."""

    def may_register(self, group: ProcessGroup) -> bool:
        return True


class TrustsHostNames(Sound):
    """Registers where all ranks of a group are on one machine, and nowhere else (F29: an NVLink domain may be a part of
    a machine, and may span several)."""

    def may_register(self, group: ProcessGroup) -> bool:
        return len({self.context.hosts[rank] for rank in group.ranks}) == 1


class WaitsForTheCommunicator(Sound):
    """The first registration with a group fails, as its communicator does not exist yet, and no error shows (F19)."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.created: set[str] = set()

    def may_register(self, group: ProcessGroup) -> bool:
        exists = group.name in self.created
        self.created.add(group.name)
        return exists and super().may_register(group)


class RemembersSegments(Sound):
    """The index of registered segments outlives the communicator (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.segment.ident == segment.ident for window in self.windows)


class RemembersAddresses(Sound):
    """An address once registered counts as registered, whichever segment lies there now (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.address == segment.address for window in self.windows)


class DeclinesAlone(GoesWithout):
    """The last rank of a group goes without symmetric memory where its peers do not, as where the choice rests on a
    setting or on free memory of one rank (F30)."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        return super().wants(group, nbytes) and group.rank < len(group.ranks) - 1


# places


class ScratchOnOddRanks(Sound):
    """Odd ranks of a group hold a scratch tensor of their own in the pool while a buffer is allocated (F03)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self.pool(group)
        with pool.use():
            scratch = torch.empty(128, device=self.context.device) if group.rank % 2 else None
            yield
            del scratch
        if self.may_register(group):
            self.register_all(pool.segments, group)


class PicksByAddress(Sound):
    """A group has two segments, registered in one order; of these, odd ranks take the one with the higher address
    (F04: a list of free blocks in order of address, on ranks whose addresses lie in different orders)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pools = [self.pool_named(f"{group.ranks}-{half}") for half in ("first", "second")]
        for pool in pools:
            if not pool.segments:
                with pool.use():
                    torch.empty(1, device=self.context.device)
            if self.may_register(group):
                self.register_all(pool.segments, group)
        with pools[group.rank % 2].use():
            yield
        for pool in pools if self.may_register(group) else ():
            self.register_all(pool.segments, group)


# graphs


class SharesWithGraphs(Sound):
    """Graphs take their buffers from the pools of everything else (F12)."""

    def place(self) -> str:
        return ""


class OnePoolForGraphs(Sound):
    """All graphs of a group share a pool, so that one takes the blocks that another has released (F11)."""

    def place(self) -> str:
        return " of graphs" if self.context.graph else ""


class WarmsUpElsewhere(Sound):
    """Only the capture has pools of its own, which no warm-up has grown (F10)."""

    def place(self) -> str:
        return super().place() if self.context.is_capturing else ""


class WarmsUpOnAnotherStream(Sound):
    """A graph is warmed up on the stream of everything else, whose blocks its own stream cannot have (F16)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        is_warm_up = self.context.graph is not None and not self.context.is_capturing
        with self.context.stream(0) if is_warm_up else nullcontext(), super().use(group):
            yield


# registration


class GivesBackWhenIdle(Sound):
    """A pool gives its segments back whenever nothing in it is in use, and registers new ones at the next use (F09)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self.pool(group).trim()
        with super().use(group):
            yield


class RegistersAlone(Sound):
    """Only the group's first rank registers, so it waits for ever (F06)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        if group.rank == 0:
            super().register(segment, group)


class AgreesWithTheWidest(Sound):
    """Ranks agree on what to register over the widest group that they know, whichever of its ranks act (F28)."""

    widest: ProcessGroup | None = None

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        if self.widest is None or len(group.ranks) > len(self.widest.ranks):
            self.widest = group
        self.widest.exchange(len(segments))
        super().register_all(segments, group)


class OppositeOrder(EveryGroup):
    """Odd ranks go through the groups backwards, and both sides wait (F07)."""

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups[::-1] if self.context.rank % 2 else groups


class AlwaysRegisters(Sound):
    """Registers at every use and keeps no index (F15)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return False


class SwallowsRefusals(Sound):
    """A registration that failed becomes a line of a log, and the rank goes on without a window while its peers wait
    in theirs (F31)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        with suppress(RegistrationError):
            super().register(segment, group)


# lifetime


class ForgetsToDeregister(Sound):
    """Segments go without their windows (F14). The windows leak (F17), and hide later ones at the same
    address."""

    def freed(self, segment: Segment) -> None:
        pass


class KeepsATensor(Sound):
    """A scratch tensor of the pool is held for ever, and its segment with it (F17)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            self.scratch = torch.empty(64, device=self.context.device)
            yield
