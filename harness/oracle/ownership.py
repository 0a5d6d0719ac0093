"""Rules on ownership: the peer-addressed buffer must lie, whole, in one window of the very communicator
that runs the call, at the same place on every rank.

Rules: wrong-owner, unregistered, partly-registered, null-window, stale-window, segment-mismatch,
offset-mismatch. Source of what counts as peer-addressed: NCCL 2.32 (forced `SYMK_ST` and `SYMK_LD`
runs need the receive buffer of an all-gather and the send buffer of a reduce-scatter).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.findings import (
    Finding,
    NullWindow,
    OffsetMismatch,
    PartlyRegistered,
    SegmentMismatch,
    StaleWindow,
    Unregistered,
    WrongOwner,
)
from harness.oracle.case import Case, ranks_text
from harness.oracle.history import Sight, Use


def judge(case: Case) -> Iterator[Finding]:
    """Every call of more than one rank on a buffer that was meant to lie in a window."""
    for uses in case.calls.values():
        if len(uses[0].comm.group) < 2 or not case.meant_for(uses[0]):
            continue
        broken = [use for use in uses if not _owned(case.peer_addressed(use))]
        if broken:
            for use in broken:
                yield from _not_owned(case, use, case.peer_addressed(use), tuple(u.rank for u in broken))
        else:
            yield from _places(case, uses)


def owned(case: Case, uses: list[Use]) -> bool:
    """Whether every rank's buffer is owned at the same place: the condition of the symmetric path."""
    sights = [case.peer_addressed(use) for use in uses]
    return all(_owned(sight) for sight in sights) and len({sight.place for sight in sights}) == 1


def _owned(sight: Sight) -> bool:
    return sight.window is not None and sight.whole and sight.orphaned is None


def _not_owned(case: Case, use: Use, sight: Sight, ranks: tuple[int, ...]) -> Iterator[Finding]:
    """The one rule that says why this rank's buffer is not owned."""
    name = f"{case.operand_role(use)} {sight.operand.buffer!r} of rank {use.rank}"
    own = case.name(use.comm.group)
    place = f"{case.call(use)}: {name}"
    step = use.step
    if sight.window is not None and sight.orphaned is not None:
        yield StaleWindow(
            f"{place} is found in a window {case.window(sight.window)}, whose segment was freed at "
            f"{case.at_step(sight.orphaned)}; {case.path(use)}.",
            step=step,
            ranks=ranks,
        )
    elif sight.window is not None:
        past = sight.operand.address + sight.operand.size - sight.window.end
        yield PartlyRegistered(
            f"{place} starts in the window of {own} but reaches {past} bytes past its end; NCCL tests the start "
            f"only; {case.path(use)}.",
            step=step,
            ranks=ranks,
        )
    elif sight.nulls:
        yield NullWindow(
            f"{place} lies in memory {case.window(sight.nulls[0])}; that registration succeeded with a null window, "
            f"so there is none over it; {case.path(use)}.",
            step=step,
            ranks=ranks,
        )
    elif not use.comm.windows:
        return  # the communicator supports no windows, and nobody pretended otherwise
    elif sight.former and (sight.former[-1].mislaid or not sight.others):
        former = sight.former[-1]
        yield StaleWindow(
            f"{place} lies in memory that was {case.window(former)}; that window went at "
            f"{case.at_step(former.died if former.died is not None else -1)} and {own} has none over it now; "
            f"{case.path(use)}.",
            step=step,
            ranks=ranks,
        )
    elif sight.others:
        owners = " and ".join(case.window(window) for window in sight.others)
        yield WrongOwner(
            f"{place} lies in segment {sight.others[0].event.segment}, which was {owners}; {own} has no window over "
            f"it.{case.earlier_holders(use, sight)} {_capital(case.path(use))}.",
            step=step,
            ranks=ranks,
        )
    else:
        inside = "in a segment" if sight.segment is not None else "in memory outside every segment"
        yield Unregistered(
            f"{place} lies {inside} over which no communicator has a window; {case.path(use)}.",
            step=step,
            ranks=ranks,
        )


def _places(case: Case, uses: list[Use]) -> Iterator[Finding]:
    """Whether the ranks hold the buffer at one and the same place."""
    places = {use.rank: case.peer_addressed(use).place for use in uses}
    if len(set(places.values())) == 1:
        return
    use = uses[0]
    name = case.peer_addressed(use).operand.buffer
    ranks = tuple(sorted(places))
    if len({place[0] for place in places.values() if place}) > 1:
        said = ", ".join(f"rank {rank} in window {place[0]}" for rank, place in places.items() if place)
        yield SegmentMismatch(
            f"{case.call(use)}: {name!r} lies in different windows of {case.name(use.comm.group)}: {said} "
            f"(counted in order of registration). Peers are addressed through the local window, so {ranks_text(ranks)} "
            f"reach other memory than they mean; {case.path(use)}.",
            step=use.step,
            ranks=ranks,
        )
    else:
        said = ", ".join(f"rank {rank} at {place[1]}" for rank, place in places.items() if place)
        yield OffsetMismatch(
            f"{case.call(use)}: {name!r} lies at different offsets of the same window of "
            f"{case.name(use.comm.group)}: {said}. The local offset is applied to every peer, so {ranks_text(ranks)} "
            f"reach other memory than they mean; {case.path(use)}.",
            step=use.step,
            ranks=ranks,
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
