"""Tensors as integers of the same width, so that equal means the same bits; and where they lie."""

from __future__ import annotations

import torch

INTEGER_OF = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bits as integers of the same width; shares its memory."""
    return tensor.view(INTEGER_OF[tensor.element_size()])


def place(tensor: torch.Tensor) -> int:
    """The address of a view, which PyTorch does not give where it has no elements."""
    return (
        tensor.data_ptr() or tensor.untyped_storage().data_ptr() + int(tensor.storage_offset()) * tensor.element_size()
    )
