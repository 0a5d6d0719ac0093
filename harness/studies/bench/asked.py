"""What a bench of collectives is asked for: operations, sizes, and numbers of ranks.

Invariant: each is checked before a rank starts, and a `UsageError` names the offender.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from harness.errors import UsageError, not_one_of
from harness.machine import gpus

OPS = ("all_gather", "reduce_scatter", "all_reduce")
Dtype = Literal["bfloat16", "float16", "float32", "int32"]
WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "int32": 4}
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SIZES, SIM_SIZES = "1K,16K,256K,1M,16M,256M", "1K,16K"
MOST = 4 << 30
"""Bytes that a rank contributes, at most."""
LONGEST = 20
"""Digits of a size: Python reads no number of some thousands."""
FEWEST_RANKS, MOST_RANKS = 2, 16
NUMBERS = {str(number): number for number in range(FEWEST_RANKS, MOST_RANKS + 1)}
"""Numbers of ranks, as they are written."""


def shown_size(nbytes: int) -> str:
    """Bytes in the unit in which they are whole."""
    unit = next(unit for unit in reversed(UNITS) if nbytes % UNITS[unit] == 0)
    return f"{nbytes // UNITS[unit]}{unit}"


def ops_of(names: Sequence[str]) -> list[str]:
    """Each operation once. Raises `UsageError`."""
    for name in names:
        if name not in OPS:
            raise not_one_of("operation", name, OPS)
    return [*dict.fromkeys(names)]


def sizes_of(text: str, dtype: Dtype) -> list[int]:
    """`1K,4K,1M` is a list; `1K:256M` a range by powers of four, `1K:256M:2` by powers of two. Raises `UsageError`."""
    found: list[int] = []
    for part in text.split(","):
        bounds = part.split(":")
        first, last = _bytes(bounds[0], text), _bytes(bounds[min(1, len(bounds) - 1)], text)
        factor = {(): 4, ("2",): 2, ("4",): 4}.get(tuple(bounds[2:]))
        if factor is None or first > last:
            raise UsageError(f"sizes {text!r}: {part!r} is no range FIRST:LAST, FIRST:LAST:2 or FIRST:LAST:4")
        while first <= last:
            found.append(first)
            first *= factor
    for size in found:
        if size % WIDTHS[dtype]:
            raise UsageError(f"sizes {text!r}: {size} bytes hold no whole number of {dtype}")
    return sorted({*found})


def _bytes(text: str, whole: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    is_number = number.isascii() and number.isdigit() and len(number) <= LONGEST
    if not is_number or unit not in UNITS or not 0 < int(number) * UNITS[unit] <= MOST:
        raise UsageError(f"sizes {whole!r}: {text!r} is no size from 1 to 4G bytes, such as 1K or 16M")
    return int(number) * UNITS[unit]


def worlds_of(text: str) -> list[int]:
    """Numbers of ranks: `4` is one, `2,4,8` a list, each once and the smallest first. Raises `UsageError`."""
    found: list[int] = []
    for part in text.split(","):
        number = NUMBERS.get(part.strip())
        if number is None:
            raise UsageError(f"world {text!r}: {part!r} is no number of ranks from {FEWEST_RANKS} to {MOST_RANKS}")
        if number in found:
            raise UsageError(f"world {text!r}: {number} ranks are named twice")
        found.append(number)
    return sorted(found)


def default_world(substrate: str) -> int:
    """One rank a GPU, and two where there is one or none."""
    return max(2, 0 if substrate == "sim" else len(gpus.inventory()))
