"""Buffers of a draw, the canaries that guard them, and memory whose windows a step says.

Invariant: a block returns to its pool at the step that releases its buffer, at the same step on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch

from harness.rank import values
from harness.rank.images import Memory
from harness.rank.own import collect, crc32, empty, equal
from harness.rank.results.kept import Kept
from harness.scenario.layouts.groups import GroupId, ids_of
from harness.scenario.operands import FENCE, FRONT, GUARD, at
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.substrate.pool import Pool
from harness.system.boundary import call_system
from harness.trace.events import Dropped, Exhausted, Overwritten, Placed


class Canary:
    """A region that must not change: it holds a pattern until it is looked at.

    No other region has the same pattern, so that a copy of one onto another shows.
    """

    def __init__(self, buffer: str, where: str, region: torch.Tensor, *salts: int) -> None:
        self._buffer, self._where, self.region = buffer, where, bits(region)
        self._pattern = values.canary(region, crc32(f"{where} {buffer}".encode()), *salts)
        self.region.copy_(self._pattern)

    def damage(self) -> Overwritten | None:
        """What has changed since the last look, if anything has."""
        seen = self.region.clone()  # a peer that runs on may write between two looks
        if equal(seen, self._pattern):
            return None
        changed = (seen != self._pattern).nonzero().flatten()
        self.region.copy_(self._pattern)
        return Overwritten(self._buffer, self._where, int(changed[0]), changed.numel())


class Buffer:
    """A live buffer of `rank`: `body` between two guards of canaries; none if the buffer came while a graph was
    captured or calls were in flight. `stream` is the one that its step names, to which its block belongs outside
    graphs. `is_for_window`: it was asked of a pool policy, for a group's collectives."""

    def __init__(
        self,
        name: str,
        whole: torch.Tensor,
        elements: int,
        stream: int = 0,
        is_guarded: bool = True,
        rank: int = 0,
        is_for_window: bool = True,
    ) -> None:
        self.name, self.stream, self._rank, self.is_for_window = name, stream, rank, is_for_window
        self.address = whole.data_ptr()
        """Where its memory begins: a body without elements has no address."""
        front, self.body, back = whole[:FRONT], whole[FRONT : FRONT + elements], whole[FRONT + elements :]
        self.is_shared = False
        """Whether another stream has used it, too."""
        regions = {"front": front, "guard": back} if is_guarded else {}
        self.guards = [Canary(name, where, region, rank) for where, region in regions.items()]

    def use_on(self, stream: int) -> bool:
        """Note that work on a stream uses it. Returns whether that is not its own."""
        is_foreign = stream != self.stream
        self.is_shared |= is_foreign
        return is_foreign

    def fenced(self, start: int, end: int) -> torch.Tensor:
        """`body[start:end]` and what its fences lie on."""
        return self.body[max(0, start - FENCE) : end + FENCE]

    def fences(self, start: int, end: int) -> list[Canary]:
        """Canaries on both sides of `body[start:end]`, as far as the body reaches."""
        spans = (max(0, start - FENCE), start), (end, min(end + FENCE, len(self.body)))
        return [Canary(self.name, "fence", self.body[a:b], self._rank, a) for a, b in spans if a < b]


class Declined(NamedTuple):
    """Ordinary memory for a buffer that the pool policy declined."""

    tensor: torch.Tensor


class LiveBuffers(Mapping[str, Buffer]):
    """The buffers that this rank holds in a draw, by name."""

    def __init__(self, substrate: Substrate, is_watched: bool = False) -> None:
        self._substrate = substrate
        self._live: dict[str, Buffer] = {}
        self._unlanded: list[torch.Tensor] = []
        """Ordinary memory that was released in flight: the host's allocator knows no streams."""
        self.memory = Memory(substrate, is_watched)
        self.kept = Kept(substrate, is_watched)

    def __getitem__(self, name: str) -> Buffer:
        return self._live[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    def place(
        self,
        name: str,
        size: int,
        named: GroupId,
        make: Callable[[], torch.Tensor | Declined],
        stream: int = 0,
    ) -> None:
        """Have the system under test allocate `size` elements, the guard included, and keep them as a buffer."""
        try:
            made = call_system("pool", make, torch.OutOfMemoryError)
        except torch.OutOfMemoryError:
            self._substrate.record(Exhausted(name, size - GUARD))
            return
        whole, is_declined = (made.tensor, True) if isinstance(made, Declined) else (made, False)
        segment = self._substrate.locate(whole.data_ptr())
        ident = -1 if segment is None else segment.ident
        width = whole.element_size()
        spans = FRONT * width, (size - GUARD) * width
        self._substrate.record(Placed(name, ident, whole.data_ptr(), whole.numel() * width, named, is_declined, *spans))
        # In a capture nothing runs, so no canary can be written; in flight the block may still be in use.
        is_guarded = not self._substrate.device.does_later
        self.memory.hold(name, whole[:size])
        self._live[name] = Buffer(
            name, whole[:size], size - GUARD, stream, is_guarded, self._substrate.rank, bool(named.ranks)
        )

    def release(self, name: str) -> None:
        """Look at a buffer's canaries and drop it. Does nothing where it could not be allocated."""
        if name in self._live:
            self.memory.look_back(name)
            self.kept.drop(name)
            self._check(self._live[name])
            if self._substrate.device.is_in_flight and self._substrate.locate(self._live[name].address) is None:
                self._unlanded.append(self._live[name].body)
            self._drop(name)

    def landed(self) -> None:
        """Nothing is in flight any more: look at the canaries, and take memory as it is from here on."""
        self._unlanded.clear()
        self.check()
        self.memory.forget()

    def release_all(self) -> None:
        """Release what is left, in the order of allocation."""
        self.memory.look_back()
        self.kept.end()
        self.check()
        for name in list(self._live):
            self._drop(name)

    def check(self) -> None:
        """Record the canaries that changed since the last look."""
        for buffer in self._live.values():
            self._check(buffer)

    def _check(self, buffer: Buffer) -> None:
        if self._substrate.device.does_later:
            return
        for damage in filter(None, (guard.damage() for guard in buffer.guards)):
            self._substrate.record(damage)
            self.memory.forget()  # mending it is no change of the program's

    def _drop(self, name: str) -> None:
        is_shared = self._live[name].is_shared
        self.memory.drop(name)
        del self._live[name]
        # Triton's interpreter holds operands in cycles; the block has to return now, on every rank.
        collect()
        # PyTorch keeps a block that another stream used until that stream's events are done, and looks at them when it
        # next allocates: ranks would differ in when.
        if is_shared and not self._substrate.device.does_later:
            self._substrate.device.reclaim()
        self._substrate.record(Dropped(name))


class ToldMemory:
    """Memory that steps say the windows of (`Allocate.registered`), in segments of its own. A draw leaves nothing."""

    def __init__(self, substrate: Substrate, topology: Topology) -> None:
        self._substrate, self._topology = substrate, topology
        self._pools: list[Pool] = []

    def allocate(self, step: Allocate, size: int, dtype: torch.dtype) -> torch.Tensor:
        """`size` elements behind the step's lead, in a segment that is then registered. Collective over every group
        that it is registered with."""
        rank = self._substrate.rank
        pool = self._substrate.pool(f"recorded {step.buffer}")
        self._pools.append(pool)
        lead = at(step.lead, rank)
        with pool.use():
            whole = empty(lead + size, dtype=dtype, device=self._substrate.device.torch_device)
        for name in step.registered_on(rank):
            for group in ids_of(self._topology.ids[name], rank):
                for segment in pool.segments:
                    self._substrate.communicator(group).register(segment)
        return whole[lead:]

    def close(self) -> None:
        """Give back every window, then every segment. Local."""
        for pool in self._pools:
            for segment in pool.segments:
                segment.close_windows()
            pool.close()
