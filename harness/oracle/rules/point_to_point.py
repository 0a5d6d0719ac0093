"""Rule on sends and receives: both sides of a pair are registered with the communicator, or neither is.

Rule: half-registered. NCCL moves a large send straight between registered buffers, and each rank looks at its own
alone. Where one side is registered and the other is not, nothing arrives, or the ranks wait for ever: seen on an H100
with NCCL 2.32.3, of 16,416 bytes (`ncclRegisterP2pIpcBuffer`, `addP2pToPlan` in 2.30.7). Any window registers its
memory so. A captured call registers each side itself, in a window or not. It leaves memory of `cudaMalloc`, as
PyTorch's own is, unregistered, unless `NCCL_LEGACY_CUDA_REGISTER` is 1. Smaller sends go through buffers of NCCL's own.
So do gathers and scatters, whatever is registered (`taskAppend`).

Links other than NVLink, and older versions, stage more. So in a draw what came of it decides. The data of a
recording was not looked at: there registration decides alone, if it is known for sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations
from typing import NamedTuple

from harness.oracle.case import Case
from harness.oracle.findings import Finding, HalfRegistered
from harness.oracle.history import End, Use
from harness.oracle.sight import Sight
from harness.scenario.bases import STAGED_BYTES
from harness.text import counted
from harness.trace.events import Changed, CommCreated, Mismatch, Role, SourceChanged

ROLES: tuple[Role, ...] = ("source", "output")
HURT = (Changed, Mismatch, SourceChanged)
UNSEEN = (
    f"NCCL wants both sides registered, or neither. It may move more than {STAGED_BYTES} bytes past its own buffers, "
    "and then loses them, writes over the source, or hangs. The data was not looked at, so whether it did is not known."
)


class Side(NamedTuple):
    """One side of a pair: its memory, and all memory of its rank that NCCL has to find in a window."""

    rank: int
    step: int
    comm: CommCreated
    memory: Sight
    asked: tuple[Sight, ...]
    is_captured: bool = False

    @property
    def is_registered(self) -> bool:
        if self.is_captured:
            return all(sight.segment is not None for sight in self.asked)
        return all(sight.is_whole for sight in self.asked)


def judge(case: Case) -> Iterator[Finding]:
    """Every pair of ranks of which one sends to the other more than NCCL stages, and loses it or may."""
    captured = {step for steps in case.program.captures.values() for step in steps}
    for uses in case.calls.values():
        if not uses[0].comm.has_windows or not all(map(_is_sent, uses)):
            continue
        asks_for_both = len({count for use in uses for count in use.called.sent or ()}) == 1
        look = partial(_side, is_one_call=asks_for_both, is_captured=uses[0].step in captured)
        if len({look(use, role).is_registered for use in uses for role in ROLES}) == 1:
            continue
        for sender, receiver in permutations(uses, 2):
            yield from _judge_pair(case, sender, receiver, look(sender, "source"), look(receiver, "output"))
    for sends, receives in _met(case):
        yield from _judge_send(case, sends, receives)


def _is_sent(use: Use) -> bool:
    """Whether the library made it of sends and receives. In place it sends a copy in memory of its own."""
    path = "kernel" if use.called.via == "kernel" else ""
    path = use.ran.path if use.ran is not None else path
    is_in_place = use.source.operand.address == use.output.operand.address
    return use.called.sent is not None and path not in ("kernel", "copy engine") and not is_in_place


def _judge_pair(case: Case, sender: Use, receiver: Use, gives: Side, takes: Side) -> Iterator[Finding]:
    sent = sender.called.sent or ()
    nbytes = sent[sender.comm.group.index(receiver.rank)] * _width(sender)
    if nbytes <= STAGED_BYTES or gives.is_registered == takes.is_registered:
        return
    if not case.program.compares_data:
        if _is_sure(case, gives, takes):
            yield _finding(case, case.call(sender), gives, takes, nbytes, UNSEEN)
    elif any(_is_hurt(case, one) or _is_stuck(case, one, other) for one, other in permutations((sender, receiver))):
        moved = f"Where a side is registered, NCCL moves more than {STAGED_BYTES} bytes past its own buffers"
        tail = f"{moved}, and wants both so; {case.path(sender)}."
        yield _finding(case, case.call(sender), gives, takes, nbytes, tail)


def _judge_send(case: Case, sends: End, receives: End) -> Iterator[Finding]:
    gives, takes = (Side(end.rank, end.step, end.comm, end.sight, (end.sight,)) for end in (sends, receives))
    nbytes = sends.sight.operand.size
    if nbytes <= STAGED_BYTES or gives.is_registered == takes.is_registered:
        return
    if _is_sure(case, gives, takes):
        call = f"{case.at_step(gives.step)} on {case.name(gives.comm.id)}, which meets {case.at_step(takes.step)}"
        yield _finding(case, call, gives, takes, nbytes, UNSEEN)


def _finding(case: Case, call: str, gives: Side, takes: Side, nbytes: int, tail: str) -> HalfRegistered:
    holder, other = (gives, takes) if gives.is_registered else (takes, gives)
    both = " over both of its operands" if len(holder.asked) > 1 else ""
    lacks = f"that of rank {other.rank} in none"
    if both and not case.program.compares_data:
        lacks = f"on rank {other.rank} over one of them at most"
    finds = f"{case.name(gives.comm.id)} finds the memory of rank {holder.rank} in a window{both}, and {lacks}"
    if gives.is_captured:
        finds = f"The captured call registers the memory of rank {holder.rank}, which NCCL's allocator gave, and not "
        finds += f"that of rank {other.rank}, which is ordinary memory"
    return HalfRegistered(
        f"{call}: rank {gives.rank} sends {counted(nbytes, 'byte')} of {case.operand(gives.memory)} to "
        f"{case.operand(takes.memory)} of rank {takes.rank}. {finds}. {tail}",
        step=gives.step,
        ranks=tuple(sorted((gives.rank, takes.rank))),
    )


def _side(use: Use, role: Role, is_one_call: bool, is_captured: bool) -> Side:
    """Where every rank sends the same to each, NCCL has a call of its own (`ncclAlltoAll`), which asks for both
    operands unless it is captured."""
    roles = ROLES if is_one_call and not is_captured else (role,)
    return Side(use.rank, use.step, use.comm, use.sight(role), tuple(map(use.sight, roles)), is_captured)


def _met(case: Case) -> Iterator[tuple[End, End]]:
    """The two ends of each send of a recording."""
    ends = [end for history in case.histories for end in history.ends]
    receives = {_name(end): end for end in ends if end.rank == end.event.receiver}
    for end in ends:
        if end.rank == end.event.sender and (other := receives.get(_name(end))) is not None:
            yield end, other


def _name(end: End) -> tuple[object, ...]:
    """What is equal at both ends of a send, and of no other."""
    return end.comm.id, end.comm.generation, end.event.sender, end.event.receiver, end.event.number


def _is_hurt(case: Case, use: Use) -> bool:
    """Whether the call never returned there, or left other data than it owes, at once or in a replay."""
    events = case.histories[use.rank].trace.seen()
    return use.ran is None or any(step == use.step and isinstance(event, HURT) for step, event in events)


def _is_stuck(case: Case, use: Use, other: Use) -> bool:
    """Whether a replay of the call never returned there, and the other rank came to it."""
    trace, there = case.histories[use.rank].trace, case.histories[other.rank].trace
    if trace.blocked_in is None or there.last_step < trace.last_step:
        return False
    graph = case.program.replays.get(trace.last_step, "")
    return use.step in case.program.captures.get(graph, ())


def _is_sure(case: Case, gives: Side, takes: Side) -> bool:
    """Whether NCCL may move data of a recording straight from one side to the other, and finds one alone registered.
    Between hosts there may be a network. Sides of different sizes are another fault."""
    is_alike = gives.memory.operand.size == takes.memory.operand.size
    is_direct = is_alike and case.program.are_on_one_host(gives.rank, takes.rank)
    return is_direct and all(_is_known(case, side, sight) for side in (gives, takes) for sight in side.asked)


def _is_known(case: Case, side: Side, sight: Sight) -> bool:
    """Whether it is known if NCCL finds memory registered. It rounds up to pages. It may keep a range whose window is
    gone, for another window in it. And `ncclCommRegister` registers without a window."""
    start, end, comm = sight.operand.address, sight.operand.address + sight.operand.size, side.comm.comm
    was_there = any(window.event.comm == comm for window in (*sight.nulls, *sight.former))
    local = (each for each in case.histories[side.rank].local if each.comm == comm)
    is_local = any(each.address < end and start < each.address + each.size for each in local)
    if sight.window is not None:
        return sight.is_whole and sight.segment_freed_at is None
    return not was_there and not is_local


def _width(use: Use) -> int:
    """Bytes of an element."""
    elements = sum(use.called.sent or ())
    return use.source.operand.size // elements if elements else 0
