"""Through which operands the ranks of a call reach each other: these have to lie in a window for a symmetric kernel.

Invariant: one table, by kind of call. No rule asks for a kind itself where it means these operands.
"""

from __future__ import annotations

from harness.trace.events import Kind, Role

_PEER_OPERANDS: dict[Kind, tuple[Role, ...]] = {
    # NCCL 2.32.3, forced `SYMK_ST` and `SYMK_LD` on an H100
    "all_gather": ("output",),
    "reduce_scatter": ("source",),
    # its symmetric kernels read the peers' sources and write their outputs; not measured yet
    "all_reduce": ("source", "output"),
    "all_to_all": ("source", "output"),
    # NCCL 2.32.3 has no symmetric kernels for these
    "broadcast": (),
    "reduce": (),
    "gather": (),
    "scatter": (),
    "send": (),
    "recv": (),
}


def peer_operands(kind: Kind) -> tuple[Role, ...]:
    """The operands of such a call that peers address; none where no symmetric kernel runs it."""
    return _PEER_OPERANDS[kind]
