"""Through which operands the ranks of a call reach each other: these have to lie in a window for a symmetric kernel.

Invariant: one table, by kind of call. A step says it of its own kind. No rule asks for a kind itself where it means
these operands.
"""

from __future__ import annotations

from typing import get_args

from harness.scenario.bases import COPIED, Via
from harness.scenario.steps import Collective
from harness.trace.events import Kind, Role

_OTHERS: tuple[Kind, ...] = ("gather", "scatter", "send", "recv")
"""Kinds that programs watched make and that are no steps. NCCL 2.32.3 has no symmetric kernels for them."""
_PEER_OPERANDS: dict[Kind, tuple[Role, ...]] = {
    **{kind.__struct_config__.tag: kind.peer_operands for kind in get_args(Collective)},
    **dict.fromkeys(_OTHERS, ()),
}


def peer_operands(kind: Kind, via: Via = "library") -> tuple[Role, ...]:
    """The operands of such a call that peers address; none where no symmetric kernel runs it."""
    return COPIED if via == "copy-engine" else _PEER_OPERANDS[kind]
