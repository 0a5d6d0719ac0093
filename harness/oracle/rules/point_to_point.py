"""Rule on sends and receives: both sides of a pair are registered with the communicator, or neither is.

Rule: half-registered. NCCL moves a large send straight between registered buffers, and each rank looks at its own
alone. Where one side is registered and the other is not, nothing arrives, or the ranks wait for ever: seen on an H100
with NCCL 2.32.3, of 16,416 bytes (`ncclRegisterP2pIpcBuffer`, `addP2pToPlan` in 2.30.7). Any window registers its
memory so. A captured call registers both sides itself, and smaller sends go through buffers of NCCL's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from harness.oracle.case import Case
from harness.oracle.findings import Finding, HalfRegistered
from harness.oracle.history import Use
from harness.scenario.bases import STAGED_BYTES
from harness.text import counted
from harness.trace.events import Role


def judge(case: Case) -> Iterator[Finding]:
    """Every pair of ranks of which one sends to the other more than NCCL stages."""
    captured = {step for steps in case.program.captures.values() for step in steps}
    for uses in case.calls.values():
        if uses[0].step in captured or not uses[0].comm.has_windows:
            continue
        for sender, receiver in permutations(uses, 2):
            yield from _judge_pair(case, uses, sender, receiver)


def _judge_pair(case: Case, uses: list[Use], sender: Use, receiver: Use) -> Iterator[Finding]:
    sent, place = sender.called.sent, sender.comm.group.index(receiver.rank)
    if sent is None or (sender.ran is not None and sender.ran.path == "kernel"):
        return
    nbytes = sent[place] * _width(sender)
    if nbytes <= STAGED_BYTES:
        return
    is_one_call = _is_one_call(uses)
    gives, takes = _is_registered(sender, "source", is_one_call), _is_registered(receiver, "output", is_one_call)
    if gives == takes:
        return
    source, output = case.operand(sender.source), case.operand(receiver.output)
    own = case.name(sender.comm.id)
    one, other = ("source", "output") if gives else ("output", "source")
    yield HalfRegistered(
        f"{case.call(sender)}: rank {sender.rank} sends {counted(nbytes, 'byte')} of {source} to {output} of rank "
        f"{receiver.rank}. {own} has a window over the {one}, and none over the {other}. Where a side is registered, "
        f"NCCL moves more than {STAGED_BYTES} bytes past its own buffers, and wants both so; {case.path(sender)}.",
        step=sender.step,
        ranks=tuple(sorted((sender.rank, receiver.rank))),
    )


def _is_one_call(uses: list[Use]) -> bool:
    """Whether every rank sends the same to each: NCCL has a call of its own for that (`ncclAlltoAll`)."""
    return len(uses) == len(uses[0].comm.group) and len({count for use in uses for count in use.called.sent or ()}) == 1


def _is_registered(use: Use, role: Role, is_one_call: bool) -> bool:
    """Whether NCCL finds the operand registered; in its all-to-all it asks for both."""
    roles: tuple[Role, ...] = ("source", "output") if is_one_call else (role,)
    return all(use.sight(each).is_whole or bool(use.sight(each).nulls) for each in roles)


def _width(use: Use) -> int:
    """Bytes of an element."""
    elements = sum(use.called.sent or ())
    return use.source.operand.size // elements if elements else 0
