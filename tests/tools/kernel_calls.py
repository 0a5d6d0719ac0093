"""Calls of the collective kernels in the interpreter, and the counts at which they are tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from harness.rank.values import key
from harness.system.collectives import INTERPRETER_BLOCK
from tests.tools.interpreter import Interpreter

CPU = torch.device("cpu")
EDGES = [1, 2, 63, 64, 65, 127, 129, INTERPRETER_BLOCK - 1, INTERPRETER_BLOCK, INTERPRETER_BLOCK + 1, 40001]
"""Counts on both sides of the smallest block, of a power of two, of the largest block, and of several."""
COUNTS = st.one_of(st.integers(1, 200), st.sampled_from(EDGES[:7]))
QUICK = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keys(size: int) -> list[int]:
    return [key(5, 0, rank) for rank in range(size)]


def as_bytes(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.contiguous().view(torch.uint8).numpy()


def as_tensor(found: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(found.copy()).view(dtype)


def called(
    interpreter: Interpreter, kernel: str, sources: torch.Tensor, *options: Any
) -> tuple[list[torch.Tensor], bool]:
    """Every rank's output for the sources of all ranks, and whether nothing beside it was written."""
    dtype = str(sources.dtype).removeprefix("torch.")
    found, is_fenced = interpreter(kernel, [as_bytes(row) for row in sources], dtype, *options)
    return [as_tensor(output, sources.dtype) for output in found], is_fenced
