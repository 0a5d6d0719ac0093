"""Rules on registration: the ranks of a group register equally often and in the same order, each memory once.

Rules: registration-skew, oversized-window, double-registration, hot-path-growth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.oracle.case import Case
from harness.oracle.findings import DoubleRegistration, Finding, HotPathGrowth, OversizedWindow, RegistrationSkew
from harness.oracle.history import History
from harness.oracle.lives import SegmentLife, WindowLife
from harness.scenario.layouts.groups import GroupId
from harness.text import counted
from harness.trace.events import Began, Entered
from harness.trace.trace import TEARDOWN


def judge(case: Case) -> Iterator[Finding]:
    yield from _skew(case)
    for history in case.histories:
        yield from _oversized(case, history)
        yield from double(case, history)
        if case.program.steady:
            yield from _late(case, history)


def _late(case: Case, history: History) -> Iterator[Finding]:
    """The first registration entered in each stretch of steady state."""
    since: int | None = None
    for step, event in history.trace.steps():
        if isinstance(event, Began):
            if step in case.program.steady:
                since = step if case.program.steady[step] else None
        elif since is not None and isinstance(event, Entered) and event.call == "register":
            yield HotPathGrowth(
                f"rank {history.rank} entered a registration with {case.name(history.comms[event.comm].id)} at "
                f"{case.at_step(step)}, in steady state since {case.at_step(since)}: the same sizes had been allocated "
                f"and released twice before.",
                step=step,
                ranks=(history.rank,),
            )
            since = None


def _skew(case: Case) -> Iterator[Finding]:
    """Compare what the members of each communicator registered.

    Next to a crash, a rank that was stopped in a step may have had its registration ahead: it missed only those of
    the steps that it has behind it.
    """
    crashed = any(fate.state in ("crashed", "raised") for fate in case.seen.fates)
    for key in dict.fromkeys((comm.id, comm.generation) for h in case.histories for comm in h.comms.values()):
        made = {rank: _registered(case.histories[rank], key) for rank in key[0].ranks}
        entered = {rank: _entered(case.histories[rank], key) for rank in key[0].ranks}
        if len(set(entered.values())) > 1:
            yield from _count_skew(case, key[0], made, entered, crashed)
            continue
        skew = _step_skew(case, key[0], made)
        if skew is None and not case.nccl.has_uneven_windows:
            skew = _size_skew(case, key[0], made)
        if skew is not None:
            yield skew


def _registered(history: History, key: tuple[GroupId, int]) -> list[WindowLife]:
    return [window for window in history.windows.values() if (window.comm.id, window.comm.generation) == key]


def _entered(history: History, key: tuple[GroupId, int]) -> int:
    comms = [comm.comm for comm in history.comms.values() if (comm.id, comm.generation) == key]
    return sum(history.entered.get(comm, 0) for comm in comms)


def _count_skew(
    case: Case, group: GroupId, made: dict[int, list[WindowLife]], entered: dict[int, int], crashed: bool
) -> Iterator[Finding]:
    """One rank entered a registration that another went past; a rank that is still on its way is only late."""
    most = max(entered, key=lambda rank: entered[rank])
    for least in sorted(entered, key=lambda rank: entered[rank]):
        ordinal = entered[least]
        trace = case.histories[most].trace
        step = made[most][ordinal].born if ordinal < len(made[most]) else trace.last_step
        if ordinal < entered[most] and case.histories[least].trace.last_step >= step + crashed:
            break
    else:
        return
    counts = ", ".join(f"rank {rank}: {count}" for rank, count in entered.items())
    yield RegistrationSkew(
        f"the ranks of {case.name(group)} entered different numbers of registrations: {counts}. "
        f"Rank {most} entered its registration {ordinal} at {case.at_step(step)}; rank {least} never did."
        f"{case.refusals(group.ranks)}{case.declines(group)}",
        step=step,
        ranks=(most, least),
    )


def _step_skew(case: Case, group: GroupId, made: dict[int, list[WindowLife]]) -> Finding | None:
    """The first registration that the ranks made at different steps: one of them went past a step where it was due.

    NCCL pairs registrations by their order alone, so the windows that come of it lie over other buffers on each rank.
    """
    if (found := _first_difference(made, _born)) is None:
        return None
    ordinal, steps = found
    when = ", ".join(f"rank {rank} at {case.at_step(step)}" for rank, step in steps.items())
    return RegistrationSkew(
        f"registration {ordinal} of {case.name(group)} was made at different steps: {when}. NCCL pairs "
        f"registrations by their order, so that window lies over different buffers.{case.refusals(group.ranks)}",
        step=min(steps.values()),
        ranks=tuple(made),
    )


def _size_skew(case: Case, group: GroupId, made: dict[int, list[WindowLife]]) -> Finding | None:
    """The first registration, of those that every rank has made, whose segments differ in size.

    From NCCL 2.30.7 on that is no fault: the window is real on every rank, and symmetric kernels give the right data
    wherever the ranks hold their buffers at one offset, which the rules of ownership see to (H100, 2.30.7 and 2.32.3).
    """
    if (found := _first_difference(made, _size)) is None:
        return None
    ordinal, held = found
    sizes = ", ".join(f"rank {rank} {counted(size, 'byte')}" for rank, size in held.items())
    return RegistrationSkew(
        f"registration {ordinal} of {case.name(group)} differs in size: {sizes}. NCCL before 2.30.7 refuses it "
        f"on some rank.",
        step=next(iter(made.values()))[ordinal].born,
        ranks=tuple(made),
    )


def _first_difference(
    made: dict[int, list[WindowLife]], fact: Callable[[WindowLife], int]
) -> tuple[int, dict[int, int]] | None:
    """The number of the first registration made by every rank in which a fact differs, and the fact of each rank."""
    for ordinal, windows in enumerate(zip(*made.values(), strict=False)):
        facts = {rank: fact(window) for rank, window in zip(made, windows, strict=True)}
        if len(set(facts.values())) > 1:
            return ordinal, facts
    return None


def _born(window: WindowLife) -> int:
    return window.born


def _size(window: WindowLife) -> int:
    """Bytes of the segment under a window. Peers map a whole segment: a window over a part of equal segments may differ
    in size (2.28.9 and 2.29.7)."""
    return window.event.size if window.segment is None else window.segment.event.size


def _oversized(case: Case, history: History) -> Iterator[Finding]:
    """A window that ends past its segment. What lies there is the allocator's to give and to take.

    In NCCL's dev_runtime.cc, 2.28 keeps the size that it was given and maps the one allocation at the start; 2.29
    refuses a range over several allocations; from 2.30.3 on all of them are mapped.
    """
    for window in history.windows.values():
        if window.event.is_null or window.segment is None or window.end <= window.segment.end:
            continue
        past = window.end - window.segment.end
        beyond = next((segment for segment in _behind(history, window)), None)
        into = "" if beyond is None else f", into {case.segment(beyond)}"
        yield OversizedWindow(
            f"rank {history.rank}: the window {case.window(window)} reaches {counted(past, 'byte')} past the end of "
            f"its segment {window.event.segment}, which has {counted(window.segment.event.size, 'byte')}{into}. "
            f"NCCL 2.28 maps the segment alone on the peers, 2.29 refuses the window, and from 2.30 on it takes in "
            f"what lies behind.",
            step=window.born,
            ranks=(history.rank,),
        )


def _behind(history: History, window: WindowLife) -> Iterator[SegmentLife]:
    """Other segments into which a window reaches, as long as both are there."""
    for segment in history.segments.values():
        starts, ends = max(segment.born, window.born), min(_gone(segment.died), _gone(window.died))
        reaches = segment.event.address < window.end and window.event.address < segment.end
        if segment is not window.segment and reaches and starts <= ends:
            yield segment


def _gone(died: int | None) -> int:
    return TEARDOWN if died is None else died


def _end(window: WindowLife) -> int:
    """Where a window ends, as far as its segment reaches: what it covers past that is another rule's."""
    return window.end if window.segment is None else min(window.end, window.segment.end)


def double(case: Case, history: History) -> Iterator[Finding]:
    """Two windows of one communicator that overlap while both live."""
    windows = [window for window in history.windows.values() if not window.event.is_null]
    live_at = history.live_at
    for index, later in enumerate(windows):
        for earlier in windows[:index]:
            apart = _end(later) <= earlier.event.address or _end(earlier) <= later.event.address
            if (
                later.event.comm != earlier.event.comm
                or apart
                or earlier.event.window not in live_at[later.event.window]
            ):
                continue
            yield DoubleRegistration(
                f"rank {history.rank}: {case.at_step(later.born)} registered segment {later.event.segment} with "
                f"{case.name(later.comm.id)} while its window from {case.at_step(earlier.born)} was still live.",
                step=later.born,
                ranks=(history.rank,),
            )
