"""Rules on registration: every rank of a group registers the same sizes in the same order, each memory once.

Rules: registration-skew, double-registration.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.findings import DoubleRegistration, Finding, RegistrationSkew
from harness.layout import Group
from harness.oracle.case import Case
from harness.oracle.history import History, WindowLife


def judge(case: Case) -> Iterator[Finding]:
    yield from _skew(case)
    for history in case.histories:
        yield from _double(case, history)


def _skew(case: Case) -> Iterator[Finding]:
    """Compare what the members of each communicator registered. A rank that died has no say."""
    dead = {fate.rank for fate in case.draw.fates if fate.state == "crashed"}
    for key in dict.fromkeys((comm.group, comm.generation) for h in case.histories for comm in h.comms.values()):
        group = key[0]
        made = {rank: _registered(case.histories[rank], key) for rank in group if rank not in dead}
        entered = {rank: _entered(case.histories[rank], key) for rank in made}
        if len(set(entered.values())) > 1:
            yield _count_skew(case, group, made, entered)
        elif len({tuple(window.event.size for window in windows) for windows in made.values()}) > 1:
            yield _size_skew(case, group, made)


def _registered(history: History, key: tuple[Group, int]) -> list[WindowLife]:
    return [window for window in history.windows.values() if (window.comm.group, window.comm.generation) == key]


def _entered(history: History, key: tuple[Group, int]) -> int:
    comms = [comm.comm for comm in history.comms.values() if (comm.group, comm.generation) == key]
    return sum(history.entered.get(comm, 0) for comm in comms)


def _count_skew(case: Case, group: Group, made: dict[int, list[WindowLife]], entered: dict[int, int]) -> Finding:
    most, least = max(entered, key=lambda rank: entered[rank]), min(entered, key=lambda rank: entered[rank])
    said = ", ".join(f"rank {rank}: {count}" for rank, count in entered.items())
    stands = case.histories[most].trace
    step = stands.last_step if stands.blocked_in else (made[most][entered[least]].born if made[most] else -1)
    return RegistrationSkew(
        f"the ranks of {case.name(group)} entered different numbers of registrations: {said}. "
        f"Rank {most} entered its registration {entered[least]} at {case.at_step(step)}; rank {least} never did.",
        step=step,
        ranks=(most, least),
    )


def _size_skew(case: Case, group: Group, made: dict[int, list[WindowLife]]) -> Finding:
    rows = list(made.items())
    ordinal = next(i for i in range(len(rows[0][1])) if len({windows[i].event.size for _, windows in rows}) > 1)
    said = ", ".join(f"rank {rank} {windows[ordinal].event.size} bytes" for rank, windows in rows)
    return RegistrationSkew(
        f"registration {ordinal} of {case.name(group)} differs in size: {said}.",
        step=rows[0][1][ordinal].born,
        ranks=tuple(made),
    )


def _double(case: Case, history: History) -> Iterator[Finding]:
    """Two windows of one communicator that overlap while both live."""
    windows = [window for window in history.windows.values() if not window.event.null]
    live_at = history.live_at
    for index, later in enumerate(windows):
        for earlier in windows[:index]:
            apart = later.end <= earlier.event.address or earlier.end <= later.event.address
            if (
                later.event.comm != earlier.event.comm
                or apart
                or earlier.event.window not in live_at[later.event.window]
            ):
                continue
            yield DoubleRegistration(
                f"rank {history.rank}: {case.at_step(later.born)} registered segment {later.event.segment} with "
                f"{case.name(later.comm.group)} while its window from {case.at_step(earlier.born)} was still live.",
                step=later.born,
                ranks=(history.rank,),
            )
