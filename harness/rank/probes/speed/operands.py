"""Operands of a timed call, their inputs and the exact result.

Invariant: inputs follow from (seed, sender, receiver). What is reduced is small integers, so every order of additions
gives the same bits.
"""

from __future__ import annotations

import torch

from harness.substrate.bits import bits

POISON = 0xA5
"""Each byte of an output before a call that is checked."""
MOST = 7
"""The largest input of a reduction: 36 of them add up to what bf16 holds exactly."""


class Operands:
    """Source and output of rank `rank` of `size`, `count` elements a chunk.

    Two are no collectives. `copy`: the source goes to the next rank. `copy to all`: it goes to every peer, whose output
    has a chunk for each of its peers, that of the rank before it first.
    """

    def __init__(self, op: str, rank: int, size: int, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.op, self.rank, self.size, self.count = op, rank, size, count
        self.source = torch.empty(count * (size if op == "reduce_scatter" else 1), dtype=dtype, device=device)
        chunks = {"all_gather": size, "copy to all": size - 1}.get(op, 1)
        self.output = torch.empty(count * chunks, dtype=dtype, device=device)

    def fill(self, seed: int) -> torch.Tensor:
        """Fill the source with new inputs and the output with poison. Returns the result that is due. Local."""
        everyone, mine = range(self.size), self.rank
        bits(self.output).view(torch.uint8).fill_(POISON)
        if self.op == "reduce_scatter":
            self.source.copy_(torch.cat([self._chunk(seed, mine, receiver) for receiver in everyone]))
            return self._sum(seed, mine)
        bits(self.source).copy_(bits(self._chunk(seed, mine, 0)))
        if self.op == "all_reduce":
            return self._sum(seed, 0)
        if self.op == "copy":
            return self._chunk(seed, (mine - 1) % self.size, 0)
        senders = everyone if self.op == "all_gather" else [(mine - away) % self.size for away in everyone[1:]]
        return torch.cat([bits(self._chunk(seed, sender, 0)) for sender in senders]).view(self.output.dtype)

    def _sum(self, seed: int, receiver: int) -> torch.Tensor:
        total = torch.zeros(self.count, dtype=self.output.dtype, device=self.output.device)
        for sender in range(self.size):
            total += self._chunk(seed, sender, receiver)
        return total

    def _chunk(self, seed: int, sender: int, receiver: int) -> torch.Tensor:
        device, dtype = self.output.device, self.output.dtype
        generator = torch.Generator(device=device)
        generator.manual_seed((seed * self.size + sender) * self.size + receiver)
        if self.op in ("reduce_scatter", "all_reduce"):
            drawn = torch.randint(-MOST, MOST + 1, (self.count,), dtype=torch.int8, device=device, generator=generator)
            return drawn.to(dtype)
        nbytes = self.count * self.output.element_size()
        drawn = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=device, generator=generator)
        return drawn.view(dtype)


def is_same(result: torch.Tensor, due: torch.Tensor) -> bool:
    """Whether two results have the same bits."""
    return torch.equal(bits(result.view(-1)), bits(due))
