"""Operands: what steps work on. Views of buffers, counts of elements, and element types.

Invariant: a count or an offset is one number for all ranks, or one for each rank of the world in rank order.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DType = Literal[
    "bfloat16", "float16", "float32", "float64", "int8", "uint8", "int32", "int64", "float8_e4m3fn", "float8_e5m2"
]
Elements = int | tuple[int, ...]

ITEMSIZE: dict[str, int] = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "int8": 1,
    "uint8": 1,
    "int32": 4,
    "int64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
FRONT = 128
"""Elements of the canary in front of every buffer. They are 128 bytes or a multiple of that, so a buffer keeps the
alignment that kernels with wide loads need."""
BACK = 16
"""Elements of the canary behind every buffer."""
GUARD = FRONT + BACK
"""Elements that the harness adds to every allocation."""
FENCE = 32
"""Elements on either side of an output view, inside its buffer, that are canaries during a call."""


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run of elements in a buffer, from `offset` elements behind its start (one for all, or one for each rank)."""

    buffer: str
    offset: Elements = 0


def at(elements: Elements, rank: int) -> int:
    """The count that applies to a rank: the one for all, or its own."""
    return elements if isinstance(elements, int) else elements[rank]


def is_summed_exactly(dtype: str) -> bool:
    """Whether sums of the harness's inputs are the same bits in whatever order ranks are added.

    Only such results can be compared for equality, so that no tolerance hides a wrong element.
    """
    return not dtype.startswith("float8")


def divides_exactly(dtype: str, size: int) -> bool:
    """Whether an average over `size` ranks needs no rounding."""
    # NCCL multiplies each input by 1/size first, which a float represents exactly for powers of two alone
    return is_averaged(dtype) and size & (size - 1) == 0


def is_averaged(dtype: str) -> bool:
    """Whether the harness averages the type: an average of integers is no integer."""
    return "int" not in dtype
