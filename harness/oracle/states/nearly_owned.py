"""How near calls came to breaking a rule on ownership, path or data, where the case shows it.

Invariant: a name begins with the rule. The call itself broke nothing of it: one more thing would have.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.history import Use
from harness.oracle.lives import BufferLife
from harness.oracle.rules.ownership import is_owned
from harness.oracle.sight import Sight
from harness.scenario.bases import STAGED_BYTES
from harness.trace.events import Role

NEAR_END = 4096
"""Bytes from the end of an operand to that of its window, up to which the two are near."""
PAIRED = ("all_to_all", "send_receive")
"""Kinds that the library makes of one send and one receive a pair of ranks."""


def seen(case: Case) -> Iterator[str]:
    for uses in case.calls.values():
        if len(uses) == len(uses[0].comm.group) > 1 and not uses[0].called.is_empty:
            yield from _of_call(case, uses)


def _of_call(case: Case, uses: list[Use]) -> Iterator[str]:
    called = uses[0].called
    for role in case.peer_roles(uses):
        if is_owned(case, uses):
            for use in uses:
                yield from _of_operand(case, use, use.sight(role))
            yield from _of_places(case, uses, role)
    if called.is_uneven and all(use.output.window is not None for use in uses):
        yield "slow-path: owned and not eligible"
    if called.kind in PAIRED and called.via == "library":
        yield from _of_sends(uses)
    if any(use.source.operand.buffer == use.output.operand.buffer for use in uses):
        yield "source-changed: in place"
    if called.op == "avg" and len(uses) & (len(uses) - 1):
        yield "wrong-data: an average over no power of two"


def _of_operand(case: Case, use: Use, sight: Sight) -> Iterator[str]:
    """One rank's owned operand."""
    window, history = sight.window, case.histories[use.rank]
    assert window is not None  # it is owned
    if sight.others:
        yield "wrong-owner: another communicator has a window there, too"
        if any({*other.comm.group} == {*use.comm.group} for other in sight.others):
            yield "wrong-owner: one over equal ranks has a window there, too"
    if _is_in_window_of_equal_ranks(case, use):
        yield "wrong-owner: a communicator over equal ranks has other windows"
    if sight.former:
        yield "stale-window: the group had a window there before"
        if use.called.via == "kernel":
            yield "stale-peer-address: a kernel where the group had another window"
    if window.segment is not None and window.born > window.segment.born:
        yield "unregistered: registered after the segment came"
    if window.end - sight.operand.address - sight.operand.size < NEAR_END:
        yield "partly-registered: the operand ends near the end of its window"
    own = history.buffers.get(sight.operand.buffer)
    if own is not None:
        yield from _of_buffer(case, use, sight, own)


def _is_in_window_of_equal_ranks(case: Case, use: Use) -> bool:
    history = case.histories[use.rank]
    return any(
        {*other.group} == {*use.comm.group} and other.id != use.comm.id and history.registrations(other.comm)
        for other in history.comms.values()
    )


def _of_buffer(case: Case, use: Use, sight: Sight, own: BufferLife) -> Iterator[str]:
    """What held the memory of an operand's buffer before, and what lies beside it."""
    for life in case.histories[use.rank].buffers.values():
        if life is own or life.event.segment != own.event.segment or own.event.segment < 0 or life.born > use.step:
            continue
        is_gone = life.died is not None and life.died <= use.step
        meets = life.event.address < own.event.address + own.event.size and own.event.address < _end(life)
        if is_gone and meets:
            if life.event.named == own.event.named:
                yield "wrong-owner: memory of the same group before"
            else:
                yield "wrong-owner: memory of another group before"
        elif not is_gone and own.event.address in (_end(life), life.event.address - own.event.size):
            yield "overlapping-buffers: side by side with a live buffer"
    if own.event.body and sight.operand.address + sight.operand.size == own.event.address + (
        own.event.front + own.event.body
    ):
        yield "out-of-bounds: the operand ends with its buffer"


def _end(life: BufferLife) -> int:
    return life.event.address + life.event.size


def _of_places(case: Case, uses: list[Use], role: Role) -> Iterator[str]:
    """Whether ranks that hold an operand at one place differ in what is around it."""
    windows = {len(case.histories[use.rank].made((use.comm.id, use.comm.generation))) for use in uses}
    if max(windows) > 1:
        yield "segment-mismatch: one of several windows"
    sizes = {tuple(each.event.size for each in case.histories[use.rank].segments.values()) for use in uses}
    if len({*map(len, sizes)}) > 1:
        yield "segment-mismatch: some ranks have more segments"
    elif len(sizes) > 1:
        yield "segment-mismatch: some ranks have other segments"
    if len({_beside(case, use, use.sight(role)) for use in uses}) > 1:
        yield "offset-mismatch: some ranks had other blocks in the segment"


def _beside(case: Case, use: Use, sight: Sight) -> tuple[tuple[int, int], ...]:
    """Offset and size of the buffers that have been in the segment of an operand."""
    if sight.segment is None:
        return ()
    ident, base = sight.segment.event.segment, sight.segment.event.address
    lives = case.histories[use.rank].buffers.values()
    return tuple(
        (life.event.address - base, life.event.size)
        for life in lives
        if life.event.segment == ident and life.born <= use.step
    )


def _of_sends(uses: list[Use]) -> Iterator[str]:
    if all(max(use.source.operand.size, use.output.operand.size) > STAGED_BYTES for use in uses):
        both = {(use.source.window is None, use.output.window is None) for use in uses}
        if both == {(False, False)}:
            yield "half-registered: both sides have windows"
        elif both == {(True, True)}:
            yield "half-registered: neither side has a window"
