"""What one rank does to memory that its peers reach, and what orders it with them, as events.

Invariant: accesses are written down before the next event of this rank that orders anything. Between two such events
those at one place of a kernel are one event, whatever the order in which they were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.ipc.memory import ARENA_BYTES, WORKSPACE_BYTES, SharedMemory
from harness.ipc.pads import OF_BARRIER, SIGNALS
from harness.ipc.turns import WORDS, Turns, word_of
from harness.scenario.layouts.groups import GroupId
from harness.substrate.sim.views import Views
from harness.trace.accesses import WORKSPACE, Accessed, How, Met, Relaxed, Scheduled, Synced
from harness.trace.events import Event

MOST_SPANS = 256
"""Of one event. Of more, the last are left out, so that a journal has room: a race may be missed there, and none is
made up."""
MANY = 100
"""Looks of a kernel that find the same, after which it may be waiting, whatever it wrote in between."""
VOLATILE = 4
"""Bytes of the widest word that a volatile load takes whole: of a wider one, Triton loads the half that is used."""
Span = tuple[int, int]
Places = NDArray[np.int64]


class Order(NamedTuple):
    """What an atomic operation does, and why where it orders nothing."""

    releases: bool
    acquires: bool
    is_whole: bool
    """Whether no rank sees a part of it."""
    why: str = ""


class Site(NamedTuple):
    """A line of a kernel."""

    kernel: str
    place: str


class _Where(NamedTuple):
    """The memory that an access meets: a rank's segments, or one of its pads."""

    owner: int
    pad: str = ""
    group: GroupId = GroupId(())


class Witness:
    """That of one rank in one draw. `slots`: the rows of the draw's groups."""

    def __init__(
        self,
        rank: int,
        shared: SharedMemory,
        views: Views,
        turns: Turns,
        slots: dict[GroupId, int],
        record: Callable[[Event], None],
    ) -> None:
        self._rank, self._shared, self._views, self._turns, self._append = rank, shared, views, turns, record
        self._groups = {slot: group for group, slot in slots.items()}
        self._beat = shared.journal(rank).beat
        (self._arenas, _), (self._own, _), (self._workspaces, _) = (
            shared.arena(0),
            shared.arena(rank),
            shared.workspaces(0),
        )
        self._pending: dict[tuple[How, _Where, Site, int], list[Span]] = {}
        self._relaxed: dict[Site, str] = {}
        """Where the kernel that runs has made atomic operations that order nothing, and why. The first one there is an
        event, and so is the end of the kernel for the last one."""
        self._read: dict[tuple[Site, int], int] = {}
        """What was read where since this rank last changed anything, by digests of places and values."""
        self._looks: Counter[tuple[Site, int, int]] = Counter()
        """The same since the kernel began, and how often."""
        self._met: dict[tuple[int, int], int] = {}
        """How many meetings there had been before the draw, by row and field: the same number on every rank."""
        turns.met = self.met
        record(Scheduled(shared.base))

    def record(self, event: Event) -> None:
        """Record an event of another kind, behind what was accessed before it."""
        self.flush()
        self._append(event)

    def places(self, addresses: NDArray[np.uint64], mask: NDArray[np.bool_]) -> Places:
        """Where in the shared memory a kernel's addresses are, -1 where they are not; those that the mask leaves."""
        at = addresses.reshape(-1).astype(np.int64)[np.broadcast_to(mask, addresses.shape).reshape(-1)]
        own = at - self._shared.base
        if at.size and (own.min() < 0 or own.max() >= self._shared.size):
            places = self._views.places(at)
            return np.where((own >= 0) & (own < self._shared.size), own, places)
        return own

    def switch(self, places: Places, is_atomic: bool) -> None:
        """Let another rank run before an atomic operation, or an access to a peer's memory."""
        found = places[places >= 0]
        if found.size and (is_atomic or any(where.owner != self._rank for where, _ in self._parts(found, 1))):
            self._turns.point()

    def launched(self) -> None:
        """A kernel begins or has ended."""
        for site, why in self._relaxed.items():
            self._note(site, why)
        self._relaxed.clear()
        self._read.clear()
        self._looks.clear()
        self._turns.progress()
        self._turns.point()

    def stored(self, places: Places, width: int, site: Site) -> None:
        """A kernel stored."""
        found = places[places >= 0]
        if found.size:
            self._changed()
            self._access("writes", found, width, site)

    def loaded(self, places: Places, width: int, values: bytes, is_volatile: bool, site: Site) -> None:
        """A kernel loaded; where it has done so before, and found the same, it may be waiting for a peer."""
        found = places[places >= 0]
        if found.size:
            self._access("reads", found, width, site, is_volatile and width <= VOLATILE)
            if self._may_wait(found, values, site, self._is_again(found, values, site)):
                self._poll(found, width)

    def updated(self, places: Places, width: int, was: bytes, values: bytes, order: Order, site: Site) -> None:
        """A kernel made an atomic operation on words that were `was`."""
        found = places[places >= 0]
        if not found.size:
            return
        if self.held(found, width) != was:
            self._changed()
            self._access("atomically updates", found, width, site, order.is_whole)
            self._sync(found, order, site)
            return
        is_again = self._is_again(found, values, site)
        if not is_again:
            self._access("atomically reads", found, width, site, order.is_whole)
        if not is_again or (order.releases and self._pending):
            self._sync(found, order, site)
        if self._may_wait(found, values, site, is_again):
            self._poll(found, width)

    def held(self, places: Places, width: int) -> bytes:
        """The words there, one behind the other."""
        return bytes(self._shared.bytes[places[:, None] + np.arange(width)])

    def touched(self, how: How, tensor: torch.Tensor) -> None:
        """The harness did that to memory of this rank."""
        begin = tensor.data_ptr() - self._shared.base
        end = begin + tensor.numel() * tensor.element_size()
        if begin < end and self._own <= begin < self._own + ARENA_BYTES:
            self._pending.setdefault((how, _Where(self._rank), Site("", ""), 0), []).append((begin, end))

    def met(self, slot: int, field: int, target: int, has_left: bool) -> None:
        """This rank came to a meeting on the host, or left it."""
        self.flush()
        self._changed()
        before = self._met.setdefault((slot, field), target - 1)
        self._append(Met(self._turns.number(), slot, field, target - before, has_left))

    def flush(self) -> None:
        """Write down what was accessed since the last event that orders anything."""
        pending, self._pending = self._pending, {}
        for (how, where, site, word), spans in pending.items():
            self._append(
                Accessed(
                    self._turns.number(),
                    how,
                    where.owner,
                    tuple(merged(spans))[:MOST_SPANS],
                    site.kernel,
                    site.place,
                    where.pad,
                    where.group,
                    word,
                )
            )

    def _sync(self, places: Places, order: Order, site: Site) -> None:
        if not (order.releases or order.acquires):
            if site not in self._relaxed:
                self._relaxed[site] = order.why
                self._note(site, order.why)
            return
        self.flush()
        words = tuple(int(place) for place in places)
        self._append(Synced(self._turns.number(), words, order.releases, order.acquires))

    def _note(self, site: Site, why: str) -> None:
        self.flush()
        self._append(Relaxed(self._turns.number(), site.kernel, site.place, why))

    def _access(self, how: How, places: Places, width: int, site: Site, is_whole: bool = False) -> None:
        word = width if is_whole and not (places % width).any() else 0
        for where, part in self._parts(places, width):
            self._pending.setdefault((how, where, site, word), []).extend(runs(part, width))

    def _parts(self, places: Places, width: int) -> Iterator[tuple[_Where, Places]]:
        """The places by the memory that they are in; those in none that ranks share on purpose are left out."""
        in_arena = (places >= self._arenas) & (places < self._workspaces)
        if in_arena.all():
            owners = (places - self._arenas) // ARENA_BYTES
            if owners[0] == owners[-1] and owners.min() == owners.max():
                yield _Where(int(owners[0])), places
                return
            for owner in np.unique(owners):
                yield _Where(int(owner)), places[owners == owner]
            return
        if in_arena.any():
            yield from self._parts(places[in_arena], width)
        in_workspace = places >= self._workspaces
        if in_workspace.any():
            held = places[in_workspace]
            owners = (held - self._workspaces) // WORKSPACE_BYTES
            for owner in np.unique(owners):
                yield _Where(int(owner), WORKSPACE), held[owners == owner]
        by_pad: dict[_Where, list[int]] = {}
        for place in map(int, places[~in_arena & ~in_workspace]):
            found = self._shared.pad_at(place)
            if found is not None and found[1] in self._groups:
                which, slot, member = found
                group = self._groups[slot]
                if member < len(group.ranks):
                    where = _Where(group.ranks[member], (SIGNALS, OF_BARRIER)[which], group)
                    by_pad.setdefault(where, []).append(place)
        for where, found_there in by_pad.items():
            yield where, np.array(found_there, dtype=np.int64)

    def _poll(self, places: Places, width: int) -> None:
        known = places[:WORDS].tolist()
        memory = self._shared.bytes
        self._turns.poll(known, width, [word_of(memory[place : place + width]) for place in known])

    def _is_again(self, places: Places, values: bytes, site: Site) -> bool:
        """Whether this rank has read the same there before, and has changed nothing since."""
        key, value = (site, hash(places.tobytes())), hash(values)
        if self._read.get(key) == value:
            return True
        if key in self._read:
            self._changed()
        self._read[key] = value
        return False

    def _may_wait(self, places: Places, values: bytes, site: Site, is_again: bool) -> bool:
        """Whether a peer may have to go on before this rank reads anything else there."""
        if is_again:
            return True
        look = site, hash(places.tobytes()), hash(values)
        self._looks[look] += 1
        return self._looks[look] % MANY == 0

    def _changed(self) -> None:
        self._beat()  # a kernel of many programs writes no event for long, which is no hang on a busy machine
        self._read.clear()
        self._turns.progress()


def runs(places: Places, width: int) -> list[Span]:
    """The spans of elements that begin at these places."""
    ordered = np.sort(places) if places.size > 1 and (np.diff(places) < 0).any() else places
    breaks = np.flatnonzero(np.diff(ordered) > width) + 1
    begins, ends = ordered[np.concatenate(([0], breaks))], ordered[np.concatenate((breaks - 1, [len(ordered) - 1]))]
    return [(int(begin), int(end) + width) for begin, end in zip(begins, ends, strict=True)]


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The same bytes in as few spans as can be, in rising order."""
    held: Span | None = None
    for begin, end in sorted(spans):
        if held is not None and begin <= held[1]:
            held = held[0], max(held[1], end)
            continue
        if held is not None:
            yield held
        held = begin, end
    if held is not None:
        yield held
