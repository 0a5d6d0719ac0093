"""Systems under test that rest on what a transformation changes, one each, beside F23, K02 and K06 of the catalogue."""

from __future__ import annotations

import torch

from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.system.context import ProcessGroup
from harness.system.planted.sound import Sound


class KnowsTp(Sound):
    """Breaks unregistered: registers for groups of a family by the name of `tp`, and for no others."""

    def may_register(self, group: ProcessGroup) -> bool:
        return group.family == "tp" and super().may_register(group)


class KnowsRankZero(Sound):
    """Breaks unregistered: registers for groups that begin with rank 0, and for no others."""

    def may_register(self, group: ProcessGroup) -> bool:
        return group.ranks[0] == 0 and super().may_register(group)


class ScattersZeros(TritonCollectives):
    """Breaks wrong-data in a reduce-scatter; its all-reduce is other code, and right."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().reduce_scatter(context, output, source, op)
        output.zero_()
