"""Rules on ownership: the peer-addressed buffer must lie, whole, in one window of the very communicator
that runs the call, at the same place on every rank.

Rules: wrong-owner, unregistered, partly-registered, null-window, stale-window, segment-mismatch,
offset-mismatch. `oracle.peers` has what counts as peer-addressed.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case, memory, ranks_text
from harness.oracle.findings import (
    Finding,
    NullWindow,
    OffsetMismatch,
    PartlyRegistered,
    SegmentMismatch,
    StaleWindow,
    Unregistered,
    UnregisteredOnSome,
    WrongOwner,
)
from harness.oracle.history import Use
from harness.oracle.lives import SegmentLife, WindowLife
from harness.oracle.pool_history import first_difference
from harness.oracle.sight import Sight
from harness.text import counted
from harness.trace.events import Role


def judge(case: Case) -> Iterator[Finding]:
    """Every call of more than one rank on a buffer that was meant to lie in a window, and that the policy wanted.

    Calls without elements are left out, and those of unequal sizes by the library: no rank reaches another through a
    window there.
    """
    for uses in case.calls.values():
        called = uses[0].called
        is_uneven = called.is_uneven and called.via != "kernel"
        if len(uses[0].comm.group) < 2 or called.is_empty or is_uneven:
            continue
        for role in case.peer_roles(uses):
            if case.is_meant_for_window(uses, role):
                yield from _judge_operand(case, uses, role)


def _judge_operand(case: Case, uses: list[Use], role: Role) -> Iterator[Finding]:
    broken = [use for use in uses if not _is_owned(use, role)]
    for use in broken:
        yield from _not_owned(case, uses, use, role, tuple(u.rank for u in broken))
    if not broken:
        yield from _places(case, uses, role)


def is_owned(case: Case, uses: list[Use]) -> bool:
    """Whether every rank's buffers are owned at the same place and sizes agree: the condition of the symmetric path."""
    roles = case.peer_roles(uses)
    return bool(roles) and not uses[0].called.is_uneven and all(_is_owned_alike(uses, role) for role in roles)


def _is_owned_alike(uses: list[Use], role: Role) -> bool:
    return all(_is_owned(use, role) for use in uses) and len({use.sight(role).place for use in uses}) == 1


def _is_owned(use: Use, role: Role) -> bool:
    sight = use.sight(role)
    if sight.window is None or not sight.is_whole or sight.segment_freed_at is not None:
        return False
    return sight.window.event.is_symmetric or _goes_by_pointers(use)


def _goes_by_pointers(use: Use) -> bool:
    """Whether a kernel under test runs the call: NCCL gives peer pointers of any window, whatever its flags."""
    return use.called.via == "kernel" and (use.ran is None or use.ran.path == "kernel")


def _not_owned(case: Case, uses: list[Use], use: Use, role: Role, ranks: tuple[int, ...]) -> Iterator[Finding]:
    """The one rule that says why this rank's buffer is not owned."""
    rule: type[Finding]
    sight = use.sight(role)
    if sight.window is not None and sight.segment_freed_at is not None:
        # NCCL knows nothing of the free: its look-up goes on finding the window (2.32, ncclDevrFindWindow).
        rule, why = StaleWindow, _freed_below_window(case, sight.window, sight.segment_freed_at)
    elif sight.window is not None and not sight.is_whole:
        # NCCL tests the start address alone, so an operand that reaches past the window's end passes.
        rule, why = PartlyRegistered, _past_window(case, use, sight, sight.window)
    elif sight.window is not None:
        rule, why = Unregistered, _without_flag(case, sight.window)
    elif sight.nulls:
        # A registration without symmetric support returns ncclSuccess, so a policy may not notice.
        rule, why = NullWindow, _null(case, use, sight)
    elif not use.comm.has_windows:
        return  # NCCL gives no windows across NVLink domains, so not registering there breaks no rule
    elif case.is_declined(use, role):
        rule, why = Unregistered, _declined_here(case, use, sight)
    elif role not in use.called.meant:
        rule, why = UnregisteredOnSome, _ordinary_here(uses, role)
    # A window that was deregistered properly, where another group has one now, is the other group's by right.
    elif (last := sight.latest_former) is not None and (last.is_never_deregistered or not sight.others):
        rule, why = StaleWindow, _window_gone(case, use, last)
    elif sight.others:
        rule, why = WrongOwner, _owned_by_others(case, use, sight)
    else:
        rule, why = Unregistered, _in_no_window(case, use, sight)
    place = f"{case.call(use)}: {role} {case.operand(sight)} of rank {use.rank}"
    path = case.path(use)
    end = f" {path[:1].upper()}{path[1:]}." if why.endswith(".") else f"; {path}."
    yield rule(f"{place} {why}{end}", step=use.step, ranks=ranks)


def _freed_below_window(case: Case, window: WindowLife, freed: int) -> str:
    return f"is found in a window {case.window(window)}, whose segment was freed at {case.at_step(freed)}"


def _past_window(case: Case, use: Use, sight: Sight, window: WindowLife) -> str:
    past = sight.operand.address + sight.operand.size - window.end
    own = case.name(use.comm.id)
    return f"starts in the window of {own} but reaches {counted(past, 'byte')} past its end; NCCL tests the start only"


def _without_flag(case: Case, window: WindowLife) -> str:
    # `ncclGetSymRegType` (2.30.7) takes a window without the flag for none.
    return (
        f"lies in the window that was {case.window(window)} without the symmetric flag (NCCL_WIN_COLL_SYMMETRIC), "
        f"so no symmetric kernel takes it"
    )


def _null(case: Case, use: Use, sight: Sight) -> str:
    registered, topology, group = case.window(sight.nulls[0]), case.program.topology, use.comm.group
    because = "" if topology.has_windows(group) else f", as {case.name(use.comm.id)} spans {topology.span(group)}"
    return (
        f"lies in memory {registered}; that registration succeeded with a null window{because}, so there is none over "
        f"it"
    )


def _window_gone(case: Case, use: Use, former: WindowLife) -> str:
    went = case.at_step(former.died if former.died is not None else -1)
    own = case.name(use.comm.id)
    if former.came_after is not None:
        return (
            f"lies in memory that was {case.window(former)}, by a communicator that had been destroyed at "
            f"{case.at_step(former.came_after)}; the one that took its place has no window over it"
        )
    return f"lies in memory that was {case.window(former)}; that window went at {went} and {own} has none over it now"


def _owned_by_others(case: Case, use: Use, sight: Sight) -> str:
    owners = " and ".join(case.window(window) for window in sight.others)
    return (
        f"lies in {memory(sight.others[0].event.segment)}, which was {owners}; {case.name(use.comm.id)} has no "
        f"window over it.{case.asked_for(use, sight)}{case.earlier_holders(use, sight)}"
    )


def _in_no_window(case: Case, use: Use, sight: Sight) -> str:
    own = case.name(use.comm.id)
    if sight.segment is None:
        return f"lies outside every segment of the pools, so that neither {own} nor any other communicator has a window"
    if not sight.beside:
        return f"lies in a segment over which {own} finds no window, and no other communicator has one"
    start = sight.operand.address - sight.segment.event.address
    windows = " and ".join(_part(case, window, sight.segment) for window in sight.beside)
    size = counted(sight.segment.event.size, "byte")
    place = f"byte {start} of segment {sight.segment.event.segment}, which has {size}"
    return f"lies at {place}, and {own} finds no window there: {windows}"


def _ordinary_here(uses: list[Use], role: Role) -> str:
    """NCCL chooses on each rank by what that rank holds, so the ranks may take different paths and wait for ever."""
    meant = tuple(sorted(use.rank for use in uses if role in use.called.meant))
    holds = "holds" if len(meant) == 1 else "hold"
    return f"lies in ordinary memory, while {ranks_text(meant)} {holds} it in memory that is made for windows"


def _declined_here(case: Case, use: Use, sight: Sight) -> str:
    """The ranks of a group take one path where all of them decide alike, and hang where they do not."""
    buffer = sight.operand.buffer
    asked = case.declines(case.histories[use.rank].buffers[buffer].event.named, buffer)
    return f"lies in ordinary memory, in a window of no communicator.{asked}"


def _part(case: Case, window: WindowLife, segment: SegmentLife) -> str:
    """Such as `the one registered with tp[0,1] at step 0 (allocate) covers its first 4096 bytes`."""
    start = max(window.event.address, segment.event.address) - segment.event.address
    end = min(window.end, segment.end) - segment.event.address
    part = f"bytes {start} to {end - 1}" if start else f"the first {counted(end, 'byte')}"
    return f"the one {case.window(window)} covers {part}"


def _places(case: Case, uses: list[Use], role: Role) -> Iterator[Finding]:
    """Whether the ranks hold the buffer at one and the same place."""
    places = {use.rank: use.sight(role).place for use in uses}
    if len(set(places.values())) == 1:
        return
    use = uses[0]
    name = case.operand(use.sight(role))
    ranks, apart = tuple(sorted(places)), first_difference(case, uses, role)
    if len({place[0] for place in places.values() if place}) > 1:
        listed = ", ".join(f"rank {rank} in window {place[0]}" for rank, place in places.items() if place)
        yield SegmentMismatch(
            f"{case.call(use)}: {name} lies in different windows of {case.name(use.comm.id)}: {listed} "
            f"(counted from 0 in order of registration). Peers are addressed through the local window, so "
            f"{ranks_text(ranks)} reach other memory than they mean; {case.path(use)}.{apart}",
            step=use.step,
            ranks=ranks,
        )
    else:
        listed = ", ".join(f"rank {rank} at byte {place[1]}" for rank, place in places.items() if place)
        yield OffsetMismatch(
            f"{case.call(use)}: {name} lies at different offsets of the same window of "
            f"{case.name(use.comm.id)}: {listed}. The local offset is applied to every peer, so {ranks_text(ranks)} "
            f"reach other memory than they mean; {case.path(use)}.{apart}",
            step=use.step,
            ranks=ranks,
        )
