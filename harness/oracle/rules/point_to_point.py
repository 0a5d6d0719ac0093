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
from harness.trace.events import Changed, Mismatch, Role, SourceChanged

HURT = (Changed, Mismatch, SourceChanged)


def judge(case: Case) -> Iterator[Finding]:
    """Every pair of ranks of which one sends to the other more than NCCL stages, and loses it."""
    captured = {step for steps in case.program.captures.values() for step in steps}
    for uses in case.calls.values():
        if uses[0].step in captured or not uses[0].comm.has_windows or not all(map(_is_sent, uses)):
            continue
        is_one_call = len({count for use in uses for count in use.called.sent or ()}) == 1
        for sender, receiver in permutations(uses, 2):
            yield from _judge_pair(case, sender, receiver, is_one_call)


def _is_sent(use: Use) -> bool:
    """Whether the library made it of sends and receives. In place it sends a copy in memory of its own."""
    path = "kernel" if use.called.via == "kernel" else ""
    path = use.ran.path if use.ran is not None else path
    is_in_place = use.source.operand.address == use.output.operand.address
    return use.called.sent is not None and path not in ("kernel", "copy engine") and not is_in_place


def _judge_pair(case: Case, sender: Use, receiver: Use, is_one_call: bool) -> Iterator[Finding]:
    sent = sender.called.sent or ()
    nbytes = sent[sender.comm.group.index(receiver.rank)] * _width(sender)
    if nbytes <= STAGED_BYTES:
        return
    gives, takes = _is_registered(sender, "source", is_one_call), _is_registered(receiver, "output", is_one_call)
    # Links other than NVLink, and older versions, stage more. So what came of it decides.
    if gives == takes or not (_is_hurt(case, sender) or _is_hurt(case, receiver)):
        return
    source, output = case.operand(sender.source), case.operand(receiver.output)
    holder, other = (sender, receiver) if gives else (receiver, sender)
    both = " over both of its operands" if is_one_call else ""
    yield HalfRegistered(
        f"{case.call(sender)}: rank {sender.rank} sends {counted(nbytes, 'byte')} of {source} to {output} of rank "
        f"{receiver.rank}. {case.name(sender.comm.id)} finds the memory of rank {holder.rank} in a window{both}, and "
        f"that of rank {other.rank} in none. Where a side is registered, NCCL moves more than {STAGED_BYTES} bytes "
        f"past its own buffers, and wants both so; {case.path(sender)}.",
        step=sender.step,
        ranks=tuple(sorted((sender.rank, receiver.rank))),
    )


def _is_registered(use: Use, role: Role, is_one_call: bool) -> bool:
    """Whether NCCL finds the whole operand in a window. Where every rank sends the same to each, NCCL has a call of its
    own (`ncclAlltoAll`), which asks for both operands."""
    roles: tuple[Role, ...] = ("source", "output") if is_one_call else (role,)
    return all(use.sight(each).is_whole for each in roles)


def _is_hurt(case: Case, use: Use) -> bool:
    """Whether the call never returned there, or left other data than it owes."""
    events = case.histories[use.rank].trace.steps()
    return use.ran is None or any(step == use.step and isinstance(event, HURT) for step, event in events)


def _width(use: Use) -> int:
    """Bytes of an element."""
    elements = sum(use.called.sent or ())
    return use.source.operand.size // elements if elements else 0
