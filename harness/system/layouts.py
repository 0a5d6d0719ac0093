"""Tensors in other layouts than one after another, for plug-ins that say that they take them.

Invariant: what a layout changes is undone before data is compared, so that the exact result stays that of the step.
"""

from __future__ import annotations

import torch

ROWS = (4, 3, 2)
"""Of the matrix that a rank's share becomes; the first that divides it."""


def spread(source: torch.Tensor) -> torch.Tensor:
    """The same elements in memory of their own, with a gap behind each: not contiguous."""
    wide = torch.empty(2 * source.numel(), dtype=source.dtype, device=source.device)
    apart = wide[::2]
    apart.copy_(source)
    return apart


def rows_of(count: int) -> int:
    """Rows of the matrix of `count` elements that is gathered along its columns; 1 where none divides it."""
    return next((rows for rows in ROWS if count and count % rows == 0), 1)


def in_rank_order(gathered: torch.Tensor, rows: int, size: int) -> torch.Tensor:
    """What `size` ranks' matrices of so many rows became side by side, one rank's whole behind the other's."""
    return gathered.view(rows, size, -1).transpose(0, 1).reshape(-1)
