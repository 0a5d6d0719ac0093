"""Through which operands the ranks of a call reach each other: these have to lie in a window for a symmetric kernel.

Invariant: one table, by kind of call. No rule asks for a kind itself where it means these operands.
"""

from __future__ import annotations

from harness.trace.events import Kind, Role

_PEER_OPERANDS: dict[Kind, tuple[Role, ...]] = {
    # NCCL 2.32.3, forced `SYMK_ST` and `SYMK_LD` on an H100
    "all_gather": ("output",),
    "reduce_scatter": ("source",),
    # forced `SYMK_AGxLL_R` and `SYMK_RSxLD_AGxST` there: refused with either operand outside
    "all_reduce": ("source", "output"),
    # NCCL 2.32.3 has no symmetric kernels for these, and refuses them if forced
    "all_to_all": (),
    "broadcast": (),
    "reduce": (),
    "gather": (),
    "scatter": (),
    "send": (),
    "recv": (),
    "send_receive": (),
}


def peer_operands(kind: Kind) -> tuple[Role, ...]:
    """The operands of such a call that peers address; none where no symmetric kernel runs it."""
    return _PEER_OPERANDS[kind]
