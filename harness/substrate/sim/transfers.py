"""How the bytes of collectives move on the simulation: to and from peers' memory, or through scratch.

Invariant: the symmetric ways touch the caller's operands on every rank, between two meetings. The legacy ways touch a
rank's own operands and scratch that every rank of the group can read, piece by piece.
"""

from __future__ import annotations

from ctypes import memmove, memset, string_at
from itertools import accumulate
from typing import NamedTuple

import torch

from harness.ipc.memory import LEGACY, STAGING_BYTES, SYMMETRIC
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.bases import STAGED_BYTES
from harness.substrate.sim.device import tensor_at


class Take(NamedTuple):
    """What a rank has of a sender's source: `nbytes` from byte `start` on, to byte `into` of its output."""

    sender: int
    start: int
    nbytes: int
    into: int


class Sides(NamedTuple):
    """Whether this rank's side of its sends, and of its receives, is registered."""

    gives: bool
    takes: bool


class Transfers:
    """One rank's end of a group's transfers. `scratch`: the address of every rank's. All are collective."""

    def __init__(self, rendezvous: Rendezvous, scratch: list[int], rank: int) -> None:
        self._rendezvous, self._scratch, self._rank = rendezvous, scratch, rank

    def push(self, peers: list[int], source: int, nbytes: int) -> None:
        """The symmetric all-gather: store this rank's shard into every peer's output."""
        self._rendezvous.meet(SYMMETRIC)
        for address in peers:
            memmove(address, source, nbytes)
        self._rendezvous.meet(SYMMETRIC)

    def push_each(self, peers: list[int], source: int, nbytes: int) -> None:
        """The all-to-all by copy engines: store each peer's chunk of the source into its output."""
        self._rendezvous.meet(SYMMETRIC)
        for place, address in enumerate(peers):
            memmove(address, source + place * nbytes, nbytes)
        self._rendezvous.meet(SYMMETRIC)

    def pull(self, peers: list[int], output: int, count: int, dtype: torch.dtype, op: str) -> None:
        """The symmetric reduce-scatter: load this rank's chunk of every peer's source."""
        self._rendezvous.meet(SYMMETRIC)
        result = reduced([tensor_at(address, count, dtype) for address in peers], op)
        self._rendezvous.meet(SYMMETRIC)
        tensor_at(output, count, dtype).copy_(result)

    def pull_and_push(self, reads: list[int], writes: list[int], count: int, dtype: torch.dtype, op: str) -> None:
        """The symmetric all-reduce: reduce this rank's share of every peer's source, and store it into every peer's
        output. In place nobody else reads that share."""
        share = -(-count // len(self._scratch))
        start = min(count, self._rank * share)
        length, at = min(share, count - start), start * dtype.itemsize
        self._rendezvous.meet(SYMMETRIC)
        result = reduced([tensor_at(address + at, length, dtype) for address in reads], op)
        for address in writes:
            tensor_at(address + at, length, dtype).copy_(result)
        self._rendezvous.meet(SYMMETRIC)

    def move_staged(
        self, output: int, source: int, sizes: list[int], takes: list[Take], sides: Sides | None = None
    ) -> None:
        """The legacy path of what moves bytes: through scratch that every rank can read, piece by piece."""
        if sides is not None:
            takes = self._arriving(takes, sides)
        for at in range(0, max(sizes), STAGING_BYTES):
            memmove(self._scratch[self._rank], source + at, min(STAGING_BYTES, max(0, sizes[self._rank] - at)))
            self._rendezvous.meet(LEGACY)
            for sender, start, nbytes, into in takes:
                begin, end = max(start, at), min(start + nbytes, at + STAGING_BYTES)
                if begin < end:
                    memmove(output + into + begin - start, self._scratch[sender] + begin - at, end - begin)
            self._rendezvous.meet(LEGACY)

    def _arriving(self, takes: list[Take], sides: Sides) -> list[Take]:
        """Those of which NCCL finds both sides registered or neither, or that are small: of others nothing arrives."""
        memset(self._scratch[self._rank], sides.gives, 1)
        self._rendezvous.meet(LEGACY)
        gives = [string_at(scratch, 1) == b"\1" for scratch in self._scratch]
        self._rendezvous.meet(LEGACY)
        own = [take for take in takes if take.sender == self._rank or take.nbytes <= STAGED_BYTES]
        return own + [take for take in takes if take not in own and gives[take.sender] == sides.takes]

    def all_reduce_staged(self, output: int | None, source: int, count: int, dtype: torch.dtype, op: str) -> None:
        """The legacy path of a reduction of whole sources; to no output on ranks that get none."""
        room, width = STAGING_BYTES // dtype.itemsize, dtype.itemsize
        for at in range(0, count, room):
            piece = min(room, count - at)
            memmove(self._scratch[self._rank], source + at * width, piece * width)
            self._rendezvous.meet(LEGACY)
            if output is not None:
                result = reduced([tensor_at(origin, piece, dtype) for origin in self._scratch], op)
                tensor_at(output + at * width, piece, dtype).copy_(result)
            self._rendezvous.meet(LEGACY)

    def reduce_staged(self, output: int, source: int, counts: list[int], dtype: torch.dtype, op: str) -> None:
        """The legacy path of a reduction of which each rank gets a chunk. `counts`: elements of each rank's."""
        width = dtype.itemsize
        starts = list(accumulate(counts, initial=0))
        room = STAGING_BYTES // len(self._scratch) // width
        for at in range(0, max(counts), room):
            pieces = [min(room, max(0, count - at)) for count in counts]
            for index, piece in enumerate(pieces):
                memmove(
                    self._scratch[self._rank] + index * room * width,
                    source + (starts[index] + at) * width,
                    piece * width,
                )
            self._rendezvous.meet(LEGACY)
            chunk, own = self._rank * room * width, pieces[self._rank]
            result = reduced([tensor_at(origin + chunk, own, dtype) for origin in self._scratch], op) if own else None
            self._rendezvous.meet(LEGACY)
            if result is not None:
                tensor_at(output + at * width, own, dtype).copy_(result)


def reduced(parts: list[torch.Tensor], op: str) -> torch.Tensor:
    """Elementwise sum, avg, max or min of tensors of one dtype, accumulated in fp32 (fp64 for fp64, integers in their
    own type)."""
    dtype = parts[0].dtype
    accumulator = torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
    wide = torch.stack([part.to(accumulator) for part in parts])
    if op in ("max", "min"):
        return (wide.amax(dim=0) if op == "max" else wide.amin(dim=0)).to(dtype)
    total = wide.sum(dim=0, dtype=wide.dtype)
    return (total / len(parts) if op == "avg" else total).to(dtype)
