"""Collectives that take other layouts, right ones and wrong ones: `tests.tools.planted.layouts:Name` in a `System`."""

from __future__ import annotations

import torch

from harness.system.collectives import CollectiveContext
from harness.system.planted.kernels import SoundKernels
from harness.system.planted.results import SoundResults


class Along(SoundResults):
    """Gathers along columns as engines' wrappers do: along rows first, then turned round."""

    along = True

    def all_gather(self, context: CollectiveContext, source: torch.Tensor, dim: int = 0) -> torch.Tensor:  # type: ignore[override]
        gathered = super().all_gather(context, source.reshape(-1))
        if dim == 0:
            return gathered
        rows, columns = source.shape
        parts = gathered.view(context.size, rows, columns)
        return self.turned(parts).reshape(rows, context.size * columns)

    def turned(self, parts: torch.Tensor) -> torch.Tensor:
        return parts.transpose(0, 1).contiguous()


class ForgetsToTurn(Along):
    """It has the shape of the result alone."""

    def turned(self, parts: torch.Tensor) -> torch.Tensor:
        return parts


class Strided(SoundKernels):
    """Makes its source contiguous first, as most wrappers do."""

    strided = True

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_gather(context, output, self.given(source))

    def given(self, source: torch.Tensor) -> torch.Tensor:
        return source.contiguous()


class IgnoresStrides(Strided):
    """Reads as many elements from the address of the first."""

    def given(self, source: torch.Tensor) -> torch.Tensor:
        return source.as_strided((source.numel(),), (1,))
