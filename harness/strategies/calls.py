"""Calls: the steps of collectives that drawn actions ask for.

Invariant: every kind of collective is made here, from the same numbers of an action.
"""

from __future__ import annotations

from typing import Any

from harness.scenario.bases import Via
from harness.scenario.operands import Elements, View
from harness.scenario.steps import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Collective,
    Reduce,
    ReduceScatter,
    SendReceive,
)
from harness.strategies.actions import Action
from harness.strategies.operands import Acting

KINDS: dict[str, type[Collective]] = {
    "all_gather": AllGather,
    "reduce_scatter": ReduceScatter,
    "all_reduce": AllReduce,
    "all_to_all": AllToAll,
    "broadcast": Broadcast,
    "reduce": Reduce,
    "send_receive": SendReceive,
}
COPIED = 7
"""Where an action's `root` is this, or 8 more, NCCL is asked for copy engines. A root means nothing to such calls."""


def part_of(step: Collective) -> str:
    """The name of the operand that may be left out."""
    return "output" if step.whole_operand == "source" else "source"


def call_of(
    action: Action, acting: Acting, whole: View, count: Elements, part: View | None, op: str = "sum"
) -> Collective:
    """The call that an action asks for, on these operands."""
    kind = KINDS[action.kind]
    fields: dict[str, Any] = {
        "family": acting.family,
        "count": count,
        "source": whole if kind.whole_operand == "source" else part,
        "output": whole if kind.whole_operand == "output" else part,
        "via": _via(action, kind, count),
        "stream": action.stream,
        "groups": acting.groups,
        "op": op,
        "root": action.root % min(acting.sizes.values()),
        "shift": action.root,
    }
    return kind(**{name: value for name, value in fields.items() if name in kind.__struct_fields__})


IDLE = 2
"""Of four roots, those whose all-to-alls leave one rank without a part in one direction."""


def is_routed_by(action: Action) -> bool:
    """Whether an action is an all-to-all with counts of their own for every pair. The drawn reduction decides, which
    means nothing to such calls."""
    return action.kind == "all_to_all" and action.op in ("avg", "max")


def routed(action: Action, size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """What each rank of a group of `size` sends to each in an all-to-all: at most `count`, to some half of it or less,
    to some nothing, as routers send tokens to experts. In a quarter of the calls one rank gets nothing, and in a
    quarter one gives nothing."""
    idle = action.buffer % size

    def sent(sender: int, receiver: int) -> int:
        place = (3 * sender + 7 * receiver + sender * receiver + action.root) % 8
        is_idle = (receiver, sender)[action.root % 2] == idle and action.root % 4 < IDLE
        return count >> place // 2 if place and not is_idle else 0

    return tuple(tuple(sent(sender, receiver) for receiver in range(size)) for sender in range(size))


def _via(action: Action, kind: type[Collective], count: Elements) -> Via:
    if not kind.has_kernels:
        return "library"
    is_copied = kind.has_copies and isinstance(count, int) and action.root % 8 == COPIED
    if action.via == "kernel":
        return "kernel"
    return "copy-engine" if is_copied else "library"
