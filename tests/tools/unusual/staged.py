"""Right systems in which the collectives have memory of their own at their peers: a pool policy makes it for them.

Invariant: a rank writes its workspace, or its neighbour's, only after a barrier behind the last read of what lay there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from harness.system.collectives import CollectiveContext, NotOwned
from harness.system.context import ProcessGroup, RankContext
from harness.system.planted.sound import Sound
from tests.tools.unusual.collectives import Direct
from tests.tools.unusual.moves import COMBINE, pull, push, rounded, shares_of, starts_of, wide

SPACE = 1 << 20
"""Bytes of a workspace: two halves of `HALF` partial sums."""
HALF = SPACE // 8
SPACES: dict[tuple[int, ...], list[torch.Tensor]] = {}
"""Workspaces by the ranks of their groups. Of communicators over the same ranks, each has its own in its window."""


class WithWorkspace(Sound):
    """A pool policy that holds a tensor in a second pool of every group, from the group's first buffer to the end.

    Right, as every rank of a group makes it at the same step, and its windows are renewed like all others.
    """

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        SPACES.clear()
        self._spaces: dict[str, torch.Tensor] = {}

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            yield
        if self.context.graph or not self.may_register(group):
            return
        pool = self.pool_named(f"workspace of {group.id.label}")
        if group.id.label not in self._spaces:
            with pool.use():
                space = torch.empty(SPACE, dtype=torch.uint8, device=self.context.device)
            self._spaces[group.id.label] = space
            SPACES.setdefault(group.ranks, []).append(space)
        self.register_all(pool.segments, group)

    def close(self) -> None:
        SPACES.clear()
        self._spaces.clear()
        super().close()


def workspace(context: CollectiveContext) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's workspace of the group, and the addresses of all. Raises `NotOwned` where it has none."""
    for space in SPACES.get(context.group, ()):
        try:
            return space, context.peer_addresses(space)
        except NotOwned:
            continue
    raise NotOwned


class Staged(Direct):
    """Peers never reach a caller's tensors: they read a copy in the workspace, piece by piece. A reduction has its
    source there, too.

    Right, as a barrier lies before and behind every read of a piece. Ranks with a short chunk take part in every piece.
    """

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        starts = starts_of(context, output)
        longest = max(end - start for start, end in pairwise(starts))
        for low, step, rows in self._pieces(context, source, longest):
            for (start, end), row in zip(pairwise(starts), rows, strict=True):
                output[start:end][low : low + step].copy_(row[: max(0, min(step, end - start - low))])

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        start, end = starts_of(context, source)[context.rank :][:2]
        self._reduce(context, output, source, op, start, end)

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        self._reduce(context, output, source, op, 0, source.numel())

    def _reduce(
        self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str, start: int, end: int
    ) -> None:
        result = torch.empty_like(output)  # in place, the output is a part of a source that is not read to its end
        for low, step, rows in self._pieces(context, source, source.numel()):
            total = wide(rows[0])
            for row in rows[1:]:
                total = COMBINE[op](total, wide(row))
            left, right = max(start, low), min(end, low + step)
            if left < right:
                part = rounded(total[left - low : right - low], op, context.size, output.dtype)
                result[left - start : right - start].copy_(part)
        output.copy_(result)

    def _pieces(
        self, context: CollectiveContext, source: torch.Tensor, longest: int
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Each piece of the sources: where it begins, how many elements it has at most, and a row for each rank."""
        space, spaces = workspace(context)
        step = SPACE // source.element_size()
        for low in range(0, longest, step):
            mine, most = source[low : low + step], min(step, longest - low)
            space.view(source.dtype)[: mine.numel()].copy_(mine)
            context.barrier()
            yield low, most, pull(spaces, source, 0, most)
            context.barrier()


class RingSums(Direct):
    """A ring in which partial sums go on in fp32 through the neighbour's workspace, and are rounded at its end.

    Right, as its halves take turns: a rank stores into one only behind the barrier that ends the read before last. A
    source is read by its own rank alone, and the last phase of an all-reduce begins when all sources are read.
    """

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        self._scatter(context, output, source, op, starts_of(context, source))

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        outputs, starts = context.peer_addresses(output), shares_of(source.numel(), context.size)
        share = torch.empty(starts[context.rank + 1] - starts[context.rank], dtype=source.dtype, device=source.device)
        self._scatter(context, share, source, op, starts)
        context.barrier()
        push(outputs, share, starts[context.rank])
        context.barrier()

    def _scatter(
        self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str, starts: list[int]
    ) -> None:
        space, spaces = workspace(context)
        halves, size, rank = space.view(wide(source[:0]).dtype), context.size, context.rank
        right, result = (rank + 1) % size, torch.empty_like(output)
        context.barrier()
        for low in range(0, max(end - start for start, end in pairwise(starts)), HALF):
            partial = self._piece(source, starts, (rank - 1) % size, low)
            for round_ in range(size - 1):
                half = round_ % 2 * HALF
                push(spaces[right : right + 1], partial, half)
                context.barrier()
                mine = self._piece(source, starts, (rank - 2 - round_) % size, low)
                partial = COMBINE[op](halves[half : half + mine.numel()], mine)
            result[low : low + HALF].copy_(rounded(partial, op, size, output.dtype))
            context.barrier()
        output.copy_(result)

    @staticmethod
    def _piece(source: torch.Tensor, starts: list[int], chunk: int, low: int) -> torch.Tensor:
        return wide(source[starts[chunk] : starts[chunk + 1]][low : low + HALF])


class TreeSums(Direct):
    """A binary tree: partial sums go up in fp32 through the workspaces to the group's first rank, and down again.

    Right for any number of ranks: a rank without a partner waits. A barrier lies between two levels, and before a
    workspace is filled again.
    """

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        start, end = starts_of(context, source)[context.rank :][:2]
        output.copy_(self._reduced(context, source, op)[start:end])

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        output.copy_(self._reduced(context, source, op))

    def _reduced(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        space, spaces = workspace(context)
        result, rank = torch.empty_like(source), context.rank
        steps = [1 << level for level in range((context.size - 1).bit_length())]
        for low in range(0, source.numel(), 2 * HALF):
            piece = wide(source[low : low + 2 * HALF])
            partial = space.view(piece.dtype)[: piece.numel()]
            partial.copy_(piece)
            for step in steps:
                context.barrier()
                if rank % (2 * step) == 0 and rank + step < context.size:
                    partner = spaces[rank + step : rank + step + 1]
                    partial.copy_(COMBINE[op](partial, pull(partner, partial, 0, piece.numel())[0]))
            for step in reversed(steps):
                context.barrier()
                if rank % (2 * step) == step:
                    partial.copy_(pull(spaces[rank - step : rank - step + 1], partial, 0, piece.numel())[0])
            result[low : low + 2 * HALF].copy_(rounded(partial, op, context.size, source.dtype))
            context.barrier()
        return result
