"""On a rank: one cell of `symm bench collectives`.

Runs inside rank processes (`World.call`). Invariant: no time is given of a call whose result was wrong, before it was
timed or after.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from harness.clock import CLOCK, Clock
from harness.rank.probes.opening import open_world
from harness.rank.probes.speed import timing
from harness.rank.probes.speed.contenders import (
    Contender,
    Library,
    PeerCopies,
    PeerCopy,
    PlugIn,
    TorchDistributed,
)
from harness.rank.probes.speed.operands import Operands, is_same
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator
from harness.system.boundary import SystemRaised
from harness.system.collectives import REFUSALS

OWN: dict[str, type[Contender]] = {"library": Library, "copy": PeerCopy, "copy to all": PeerCopies}
"""Contenders of the harness that need no more than operands."""


def measure(
    substrate: Substrate,
    slots: dict[GroupId, int],
    contender: str,
    op: str,
    dtype: str,
    count: int,
    seconds: float,
    store: str,
    seed: int,
    clock: Clock = CLOCK,
) -> dict[str, Any]:
    """A contender's call with `count` elements a chunk, in each of its variants. Collective over the world.

    Returns `refused`, the reason why it does not make the call, or `variants`: for each its name, `right`, median
    `seconds`, `eager`, `blocks` and `host` seconds. A variant takes about `seconds`.
    """
    group = open_world(substrate, slots)
    communicator, pool = substrate.communicator(group), substrate.pool("speed")
    make = partial(Operands, op, communicator.rank, communicator.size, count, getattr(torch, dtype))
    device, windows = substrate.device.torch_device, []
    if contender == "torch":
        operands = make(device)
    else:
        with pool.use():
            operands = make(device)
        windows = [communicator.register(segment) for segment in pool.segments]
    found: dict[str, Any]
    try:
        found = _Cell(_contender(contender, communicator, operands, store), seconds, seed, clock).measure()
    except REFUSALS as refusal:
        found = {"refused": str(refusal) or "it does not reach its peers' memory here"}
    except SystemRaised as error:  # a reply to the parent has no place for what a plug-in raised
        raise RuntimeError(str(error)) from error
    communicator.barrier()  # deregistering while another collective runs can deadlock (nccl 2184)
    communicator.give_back()
    for window in filter(None, windows):
        communicator.deregister(window)
    del operands, make
    pool.close()
    substrate.end()
    return found


def _contender(name: str, communicator: Communicator, operands: Operands, store: str) -> Contender:
    if name in ("nccl", "nccl best"):
        from harness.rank.probes.speed.libraries import Nccl, NcclAtBest  # noqa: PLC0415  (nccl4py, only on GPUs)

        return (Nccl if name == "nccl" else NcclAtBest)(communicator, operands)
    if name == "torch":
        return TorchDistributed(communicator, operands, store)
    if (own := OWN.get(name)) is not None:
        return own(communicator, operands)
    return PlugIn(communicator, operands, name)


class _Cell:
    """One contender with its operands."""

    def __init__(self, contender: Contender, budget: float, seed: int, clock: Clock) -> None:
        self._contender, self._budget, self._seed, self._clock = contender, budget, seed, clock
        self._communicator, self._operands = contender.communicator, contender.operands
        self._is_gpu = self._operands.output.is_cuda

    def measure(self) -> dict[str, Any]:
        refused = ""
        variants = []
        for variant in self._contender.variants:
            try:
                variants.append(self._variant(variant))
            except REFUSALS as refusal:
                refused = str(refusal) or "it refuses the call"
        workspace = self._contender.workspace
        self._communicator.barrier()
        self._contender.close()
        if not variants:
            return {"refused": refused}
        return {"variants": variants, "workspace": workspace, "how": getattr(self._contender, "how", "")}

    def _variant(self, variant: str) -> dict[str, Any]:
        call, meet = partial(self._contender.run, variant), self._communicator.barrier
        found: dict[str, Any] = {"variant": variant, "right": self._is_right(call), "eager": True, "blocks": None}
        if not found["right"]:
            return found
        host = timing.host_seconds(call, meet, self._clock) if self._is_gpu else None
        batch: Callable[[], float] = partial(timing.by_host, call, meet, self._clock)
        again: Callable[[], torch.Tensor] = call
        if self._is_gpu:
            calls = timing.in_a_row(self._operands.count * self._operands.output.element_size())
            graph, again = self._repeated(call, calls)
            batch = partial(timing.on_stream, again, calls, meet)
            found |= {"eager": graph is None, "blocks": None if graph is None else timing.blocks_of(graph)}
        taken = timing.median(batch, self._fewest, self._budget, self._clock)
        return found | {"seconds": taken, "host": host, "right": self._is_right(again)}

    def _repeated(
        self, call: Callable[[], torch.Tensor], calls: int
    ) -> tuple[torch.cuda.CUDAGraph | None, Callable[[], torch.Tensor]]:
        """What makes so many calls: a graph's replay, or the calls in a row where one rank cannot capture them."""
        graph, results = None, [self._operands.output]
        if self._contender.is_replayable:
            try:
                graph = timing.captured(lambda: results.append(call()), calls, self._communicator.device)
            except Exception:
                if not isinstance(self._contender, PlugIn):
                    raise
                torch.cuda.synchronize()

        def replay() -> torch.Tensor:
            assert graph is not None
            graph.replay()
            return results[-1]

        def in_a_row() -> torch.Tensor:
            return [call() for _ in range(calls)][-1]

        is_captured = self._fewest(int(graph is not None)) == 1
        return (graph, replay) if is_captured else (None, in_a_row)

    def _is_right(self, call: Callable[[], torch.Tensor]) -> bool:
        """Whether a call on new inputs leaves what is due on every rank. Collective."""
        self._seed += 1
        due = self._operands.fill(self._seed)
        self._communicator.barrier()
        result = call()
        self._communicator.barrier()
        return self._fewest(int(is_same(result, due))) == 1

    def _fewest(self, number: int) -> int:
        return min(self._communicator.exchange(number))
