"""A system with three mistakes, for a night:

    symm fuzz --pool examples.night:Pool --collectives examples.night:Kernels

Each of them shows in few draws. Two break the same rule, `wrong-data`, so a night has three findings of two rules.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.system.context import ProcessGroup, RankContext, Segment

LARGE = 4 << 20
"""Bytes of a segment."""


class Pool:
    """A pool for each group. The windows of a large segment stay open when it is freed (`freed-while-registered`)."""

    def __init__(self, context: RankContext) -> None:
        self._context = context

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._context.pool(group.id.label)
        if not pool.on_freed:
            pool.on_freed.append(_close_windows)
        with pool.use():
            yield
        for segment in pool.segments:
            registered = any(window.communicator is group.communicator for window in segment.windows)
            if group.communicator.supports_windows and not registered:
                group.communicator.register(segment)

    def close(self) -> None:
        for pool in self._context.pools():
            for segment in pool.segments:
                segment.close_windows()
            pool.close()


def _close_windows(segment: Segment) -> None:
    if segment.size < LARGE:
        segment.close_windows()


class Kernels(TritonCollectives):
    """The built-in kernels, with two mistakes in the last element of a result (`wrong-data`)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_gather(context, output, source)
        if source.dtype is torch.bfloat16 and context.size > 2:
            output[-1:].zero_()

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().reduce_scatter(context, output, source, op)
        if op == "avg" and context.size > 2:
            output[-1:].mul_(context.size)
