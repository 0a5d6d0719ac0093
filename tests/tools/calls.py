"""Calls as traces hold them, for traces built by hand: what a test does not say is as in most draws."""

from __future__ import annotations

from harness.trace.events import Called, Operand, Role


def gathered(
    comm: int,
    source: Operand,
    output: Operand,
    *,
    counts: int | tuple[int, ...] = 4,
    family: str = "tp",
    dtype: str = "float32",
    meant: tuple[Role, ...] = ("output",),
    claims: bool = False,
) -> Called:
    """An all-gather by the library, into a buffer that was meant for a window."""
    return Called(comm, source, output, "all_gather", dtype, None, counts, "library", family, meant, claims)


def scattered(
    comm: int,
    source: Operand,
    output: Operand,
    *,
    counts: int | tuple[int, ...] = 4,
    op: str = "sum",
    dtype: str = "float32",
    meant: tuple[Role, ...] = ("source",),
) -> Called:
    """A reduce-scatter by the library, of a buffer that was meant for a window."""
    return Called(comm, source, output, "reduce_scatter", dtype, op, counts, "library", "tp", meant, claims=False)
