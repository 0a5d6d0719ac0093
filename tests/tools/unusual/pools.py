"""Right pool policies of unusual designs.

Invariant: what decides about a group's memory and windows is known to every rank of the group alike: its own uses,
their order, and the sizes that were asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.system.context import GroupId, Pool, ProcessGroup, RankContext, Segment
from harness.system.planted.sound import Sound


class NewestFirst(Sound):
    """Registers late and backwards: the ranks compare how much has come since the last exit, and then register the
    newest segment first.

    Right, as windows are in one order on all ranks, which need not be that of the segments.
    """

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        new = [segment for segment in segments if not self.is_registered(segment, group)]
        if new and {*group.exchange(len(new))} == {len(new)}:
            super().register_all(new[::-1], group)


class SameRanks(Sound):
    """Registers with several communicators at once: groups of the same ranks share a pool, in whatever order their
    ranks are, and a segment gets a window of each of them that has come so far.

    Right, as these groups have the same uses on all their ranks. While a graph is captured, only the group that is
    asked for can be in need of a window.
    """

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._groups: defaultdict[tuple[int, ...], dict[GroupId, ProcessGroup]] = defaultdict(dict)

    def pool(self, group: ProcessGroup) -> Pool:
        place = self.place()
        pool = self.pool_named("-".join(map(str, sorted(group.ranks))) + place)
        pool.is_reserved = bool(place)
        return pool

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        known = self._groups[tuple(sorted(group.ranks))]
        known.setdefault(group.id, group)
        for each in [group] if self.context.is_capturing else [*known.values()]:
            super().register_all(segments, each)


class PoolPerStream(Sound):
    """A group has a pool for each stream that buffers are asked for on.

    Right, as a step names the stream for all ranks.
    """

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._streams: defaultdict[GroupId, dict[int, int]] = defaultdict(dict)

    def pool(self, group: ProcessGroup) -> Pool:
        streams, place = self._streams[group.id], self.place()
        number = streams.setdefault(self._stream(), len(streams))
        pool = self.pool_named(f"{group.id.label}{place} on stream {number}")
        pool.is_reserved = bool(place)
        return pool

    def _stream(self) -> int:
        if self.context.device.type == "cpu":  # streams of the simulation are numbers, and torch has none of them
            return int(vars(self.context._substrate.device)["current_stream"])
        return torch.cuda.current_stream(self.context.device).cuda_stream


class Ahead(Sound):
    """Takes a segment for small blocks and one for large blocks before it needs them, and registers both at once.

    Right, as every rank of a group does so at the group's first use of a pool. They are free when the first buffer
    comes.
    """

    LARGE = 2 << 20

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._grown: set[str] = set()

    def pool(self, group: ProcessGroup) -> Pool:
        pool = super().pool(group)
        if pool.name not in self._grown:
            self._grown.add(pool.name)
            with pool.use():
                for nbytes in (1, self.LARGE):
                    torch.empty(nbytes, dtype=torch.uint8, device=self.context.device)
        return pool


class TakesTurns(Sound):
    """Two pools a group, which give its buffers in turn.

    Right, as all ranks of a group count the same uses. The turns of a capture begin where those of its warm-up began.
    """

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._uses: Counter[tuple[GroupId, str, bool]] = Counter()

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            yield
        self._uses[self._key(group)] += 1

    def pool(self, group: ProcessGroup) -> Pool:
        pool = self.pool_named(f"{group.id.label}{self.place()} turn {self._uses[self._key(group)] % 2}")
        pool.is_reserved = bool(self.place())
        return pool

    def _key(self, group: ProcessGroup) -> tuple[GroupId, str, bool]:
        return group.id, self.place(), self.context.is_capturing
