"""NCCL as it is called, and NCCL at its best.

Invariant: forced selections that NCCL refuses are refused on every rank, before anything is launched.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import nccl.core as nc
import torch
from nccl.bindings import nccl

from harness.clock import CLOCK
from harness.rank.probes.speed.contenders import Contender
from harness.rank.probes.speed.operands import Operands
from harness.substrate.communicator import Communicator
from harness.substrate.nccl import quiet
from harness.substrate.nccl.binding import CollectiveConfig
from harness.substrate.nccl.communicator import NcclCommunicator
from harness.substrate.nccl.evidence import LEGACY
from harness.substrate.nccl.handle import WINDOW_SYMMETRIC
from harness.system.collectives import Unsupported

CTAS = 32
"""Of a communicator at its best."""
GRAPHS = {"graph_usage_mode": 1, "graph_stream_ordering": 0}
"""Without these every captured call pays for order with calls outside its graph (NCCL 2.32)."""
KERNELS = {
    "all_gather": ("SYMK_LL", "SYMK_ST"),
    "reduce_scatter": ("SYMK_LL", "SYMK_LD"),
    "all_reduce": ("SYMK_AGxLL_R", "SYMK_RSxLD_AGxST"),
}
UNTIL_LET_GO = 30
"""Calls after which NCCL has given up what it registered for a graph that is gone: no call was wrong behind so many
(2.32.3, on two H100). By its source it looks every eleventh time (`GROUP_MAX_RECLAIM_STEPS`, 2.27 to 2.30). Memory that
is freed before, and allocated again at the same address, is taken for what it was."""
UNTIL_QUEUED = 0.01
"""Seconds until NCCL knows that a graph is gone: CUDA calls its destructors on a thread of its own."""
_TUNED: dict[int, tuple[Any, bool]] = {}
"""By address of the communicator that each was split from, with whether it has `GRAPHS`."""


class Nccl(Contender):
    """NCCL's own choice in windows, and its legacy path."""

    def __init__(self, communicator: Communicator, operands: Operands) -> None:
        super().__init__(communicator, operands)
        assert isinstance(communicator, NcclCommunicator)
        self._comm: Any = communicator.handle.comm
        self.variants = ("", LEGACY) if communicator.handle.takes_selections else ("",)

    def run(self, variant: str) -> torch.Tensor:
        output, source, op = self.operands.output, self.operands.source, self.operands.op
        named = {"stream": int(torch.cuda.current_stream().cuda_stream), "config": _forced(variant)}
        if op == "all_gather":
            self._comm.allgather(source, output, **named)
        elif op == "reduce_scatter":
            self._comm.reduce_scatter(source, output, nc.SUM, **named)
        else:
            self._comm.allreduce(source, output, nc.SUM, **named)
        return output

    def close(self) -> None:
        torch.cuda.synchronize()
        CLOCK.sleep(UNTIL_QUEUED)
        for _ in range(UNTIL_LET_GO):
            self.run("")
        torch.cuda.synchronize()


class NcclAtBest(Nccl):
    """The same on a tuned communicator, with its symmetric kernels forced."""

    def __init__(self, communicator: Communicator, operands: Operands) -> None:
        super().__init__(communicator, operands)
        key = int(self._comm.ptr)
        if key not in _TUNED:
            _TUNED[key] = _split(self._comm, communicator.rank)
        self._comm, is_for_graphs = _TUNED[key]
        self.how = f"{CTAS} CTAs{', for graphs' if is_for_graphs else ''}"
        if len(self.variants) > 1:
            self.variants += KERNELS[operands.op]
        segments = dict.fromkeys(window.segment for window in communicator.windows)
        self._windows = [
            quiet.register(self._comm._comm, each.address, each.size, WINDOW_SYMMETRIC) for each in segments
        ]

    def run(self, variant: str) -> torch.Tensor:
        try:
            return super().run(variant)
        except nccl.NCCLError as error:
            if not variant:
                raise
            raise Unsupported(f"NCCL refuses {variant}: {error}") from error

    def close(self) -> None:
        super().close()
        for window in filter(None, self._windows):
            quiet.deregister(self._comm._comm, window)


@cache
def _forced(selection: str) -> CollectiveConfig | None:
    return CollectiveConfig(alg_selection=selection, force_alg_selection=True) if selection else None


@quiet.quietly
def _split(base: Any, rank: int) -> tuple[Any, bool]:
    """A communicator over the same ranks. An NCCL or a binding that lacks `GRAPHS` refuses it on every rank."""
    try:
        return base.split(0, rank, nc.NCCLConfig(min_ctas=CTAS, max_ctas=CTAS, **GRAPHS)), True
    except (TypeError, nccl.NCCLError):
        return base.split(0, rank, nc.NCCLConfig(min_ctas=CTAS, max_ctas=CTAS)), False
