"""Pool policies with one planted fault each, and the sound one they are planted in.

Invariant: a class differs from `Sound` in its fault alone. Its docstring names the fault of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from harness.substrate.pool import Pool
from harness.substrate.segment import Segment, Window
from harness.system.context import ProcessGroup, RankContext


class Sound:
    """One pool a group, and one for it in each graph; leaving `use` registers every segment that its communicator has
    no window over.

    Breaks no rule. Windows close before their segment is freed; null windows are never asked for.
    """

    def __init__(self, context: RankContext) -> None:
        self.context = context
        self.windows: list[Window] = []

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self.pool(group)
        with pool.use():
            yield
        if self.may_register(group):
            self.register_all(pool.segments, group)

    def pool(self, group: ProcessGroup) -> Pool:
        place = self.place()
        pool = self.pool_named("-".join(map(str, group.ranks)) + place)
        pool.is_reserved = bool(place)
        return pool

    def place(self) -> str:
        """What has pools of its own beside the groups: each graph."""
        return f" of {self.context.graph}" if self.context.graph else ""

    def pool_named(self, name: str) -> Pool:
        pool = self.context.pool(name)
        if not pool.on_freed:
            pool.on_freed.append(self.freed)
        return pool

    def may_register(self, group: ProcessGroup) -> bool:
        return group.communicator.supports_windows

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        for segment in segments:
            if not self.is_registered(segment, group):
                self.register(segment, group)

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(w.segment.ident == segment.ident and w.communicator is group.communicator for w in self.windows)

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        window = group.communicator.register(segment)
        if window is not None:
            self.windows.append(window)

    def freed(self, segment: Segment) -> None:
        """Called when a segment is about to go."""
        for window in self.windows:
            if window.segment.ident == segment.ident:
                window.close()

    def close(self) -> None:
        for pool in self.context.pools():
            pool.close()


class EveryGroup(Sound):
    """Breaks no rule: registers a new segment with every group seen so far, in the order in which they came."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.groups: dict[str, ProcessGroup] = {}

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        self.groups.setdefault(group.name, group)
        for known in self.in_order(list(self.groups.values())):
            if super().may_register(known):
                super().register_all(segments, known)

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups


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


class ShortWindow(Sound):
    """Windows end 4096 bytes behind the segment's start (F22)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(Segment(segment.ident, segment.pool, segment.address, 4096), group)


class IgnoresNull(Sound):
    """Registers with every communicator and takes success for a window (F18)."""

    def may_register(self, group: ProcessGroup) -> bool:
        return True


class WaitsForTheCommunicator(Sound):
    """The first registration with a group fails, since its communicator does not exist yet, and nobody looks (F19)."""

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
    """An address once registered counts as registered, whatever lies there now (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.address == segment.address for window in self.windows)


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
    """Graphs take their buffers from the pools that everybody uses (F12)."""

    def place(self) -> str:
        return ""


class OnePoolForGraphs(Sound):
    """All graphs of a group share a pool, so that what one lets go the next one takes (F11)."""

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


class OppositeOrder(EveryGroup):
    """Odd ranks go through the groups backwards, and both sides wait (F07)."""

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups[::-1] if self.context.rank % 2 else groups


class AlwaysRegisters(Sound):
    """Registers at every use and keeps no index (F15)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return False


# lifetime


class ForgetsToDeregister(Sound):
    """Segments go without their windows (F14). The windows leak (F17), and hide what is registered at the same
    address later."""

    def freed(self, segment: Segment) -> None:
        pass


class KeepsATensor(Sound):
    """A scratch tensor of the pool is held for ever, and its segment with it (F17)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            self.scratch = torch.empty(64, device=self.context.device)
            yield
