"""Rule registration-skew: the ranks of a communicator register equally often, and in the same order.

NCCL pairs the ranks' registrations by their order alone. The ranks of a draw take the same steps, so a registration is
due at the same step on each. In a recording nothing says when one is due: there the order of segments is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.oracle.case import Case, memory
from harness.oracle.findings import Finding, RegistrationSkew
from harness.oracle.history import History, Key
from harness.oracle.lives import WindowLife
from harness.scenario.layouts.groups import GroupId
from harness.text import counted, ordinal
from harness.trace.events import Called, Entered, RegistrationFailed

Made = dict[int, list[WindowLife]]
"""What each rank registered with a communicator, in order."""


def judge(case: Case) -> Iterator[Finding]:
    """Compare what the members of each communicator registered.

    Next to a crash, a rank that was stopped in a step may have had its registration ahead: it missed only those of
    the steps that it has behind it.
    """
    crashed = any(fate.state in ("crashed", "raised") for fate in case.seen.fates)
    for key in dict.fromkeys((comm.id, comm.generation) for h in case.histories for comm in h.comms.values()):
        ranks = _seen(case, key)
        made = {rank: case.histories[rank].made(key) for rank in ranks}
        entered = {rank: _entered(case.histories[rank], key) for rank in ranks}
        if len(set(entered.values())) > 1:
            yield from _count_skew(case, key, made, entered, crashed)
            continue
        skew = _step_skew(case, key[0], made) if case.program.is_lockstep else _order_skew(case, key, made)
        if skew is None and not case.nccl.has_uneven_windows:
            skew = _size_skew(case, key[0], made)
        if skew is not None:
            yield skew


def _seen(case: Case, key: Key) -> tuple[int, ...]:
    """The ranks of a communicator, without those of a recording that were not watched."""
    if case.program.is_lockstep:
        return key[0].ranks
    return tuple(rank for rank in key[0].ranks if case.histories[rank].numbers(key))


def _entered(history: History, key: Key) -> int:
    return sum(history.entered.get(comm, 0) for comm in history.numbers(key))


def _count_skew(case: Case, key: Key, made: Made, entered: dict[int, int], crashed: bool) -> Iterator[Finding]:
    """One rank entered a registration that another went past; a rank that is still on its way is only late."""
    most = max(entered, key=lambda rank: entered[rank])
    for least in sorted(entered, key=lambda rank: entered[rank]):
        index = entered[least]
        trace = case.histories[most].trace
        step = made[most][index].born if index < len(made[most]) else trace.last_step
        if index < entered[most] and _went_past(case, key, least, most, index, step + crashed):
            break
    else:
        return
    group, counts = key[0], ", ".join(f"rank {rank}: {count}" for rank, count in entered.items())
    yield RegistrationSkew(
        f"the ranks of {case.name(group)} entered different numbers of registrations: {counts}. "
        f"Rank {most} entered its {ordinal(index)} registration at {case.at_step(step)}; rank {least} never did."
        f"{case.refusals(group.ranks)}{case.declines(group)}",
        step=step,
        ranks=(most, least),
    )


def _went_past(case: Case, key: Key, least: int, most: int, index: int, due: int) -> bool:
    """Whether a rank has gone past the registration that another entered. In a recording steps of two ranks say little
    of what came first: there it has made a later call on that communicator, or is done with it."""
    history = case.histories[least]
    if case.program.is_lockstep:
        return history.trace.last_step >= due
    comms = history.numbers(key)
    is_done = case.seen.fates[least].state == "finished" or any(comm in history.destroyed for comm in comms)
    before = _last_call_before(case.histories[most], key, index)
    return is_done or any(isinstance(event, Called) and step > before for step, event in history.on(key))


def _last_call_before(history: History, key: Key, index: int) -> int:
    """The step of the last call that a rank had made on a communicator when it entered a registration; -1 if none."""
    last, found = -1, list[int]()
    for step, event in history.on(key):
        match event:
            case Called():
                last = step
            case Entered():
                found.append(last)
            case RegistrationFailed():
                found.pop()
    return found[index]


def _step_skew(case: Case, group: GroupId, made: Made) -> Finding | None:
    """The first registration that the ranks made at different steps: one of them went past a step where it was due.

    NCCL pairs registrations by their order alone, so the windows that come of it lie over other buffers on each rank.
    """
    if (found := _first_difference(made, _born)) is None:
        return None
    index, steps = found
    when = ", ".join(f"rank {rank} at {case.at_step(step)}" for rank, step in steps.items())
    return RegistrationSkew(
        f"the {ordinal(index)} registration of {case.name(group)} was made at different steps: {when}. NCCL pairs "
        f"registrations by their order, so that window lies over different buffers.{case.refusals(group.ranks)}",
        step=min(steps.values()),
        ranks=tuple(made),
    )


def _order_skew(case: Case, key: Key, made: Made) -> Finding | None:
    """The first registration that is of another segment on another rank, though all registered the same ones."""
    if (index := _out_of_order(case, key, made)) is None:
        return None
    held = (f"{_what(case, windows[index])} on rank {rank}" for rank, windows in made.items())
    return RegistrationSkew(
        f"the ranks of {case.name(key[0])} registered the same segments in different orders; the {ordinal(index)} is "
        f"{' and '.join(held)}. NCCL pairs registrations by their order, so that window lies over different "
        f"buffers.{case.refusals(key[0].ranks)}",
        step=min(windows[index].born for windows in made.values()),
        ranks=tuple(made),
    )


def _what(case: Case, window: WindowLife) -> str:
    """Such as `segment 3 of 2097152 bytes at ncclCommWindowRegister 2 (pool.py:12 __exit__)`."""
    return f"{memory(window.event.segment)} of {counted(_size(window), 'byte')} at {case.at_step(window.born)}"


def _out_of_order(case: Case, key: Key, made: Made) -> int | None:
    """The number of the first registration that is out of order on some rank; None if none is for sure.

    Equal sizes in another order are. So are segments in another order than they were allocated in, unless a call shows
    that the windows of that number belong together.
    """
    sizes, ages = _first_difference(made, _size), _ages(case, made)
    if sizes is not None:
        is_same = len({tuple(sorted(map(_size, windows))) for windows in made.values()}) == 1
        return sizes[0] if is_same else None
    if len({tuple(sorted(own)) for own in ages.values()}) > 1:
        return None
    for index, each in enumerate(zip(*ages.values(), strict=True)):
        if len({*each}) > 1:
            return None if _is_paired(case, key, index) else index
    return None


def _ages(case: Case, made: Made) -> dict[int, list[int]]:
    """For each registration of each rank, the how-manieth of the registered segments it is, by allocation; -1 for
    memory of no known segment."""
    ages: dict[int, list[int]] = {}
    for rank, windows in made.items():
        registered = {window.event.segment for window in windows}
        order = (ident for ident in case.histories[rank].segments if ident in registered)
        age = {ident: index for index, ident in enumerate(order)}
        ages[rank] = [age.get(window.event.segment, -1) for window in windows]
    return ages


def _is_paired(case: Case, key: Key, index: int) -> bool:
    """Whether a call found its operand at one place of the windows of that number on every rank."""
    for uses in case.calls_on(key):
        for role in case.peer_roles(uses):
            places = {use.sight(role).place for use in uses}
            if len(places) == 1 and all(place and place[0] == index for place in places):
                return True
    return False


def _size_skew(case: Case, group: GroupId, made: Made) -> Finding | None:
    """The first registration, of those that every rank has made, whose segments differ in size.

    From NCCL 2.30.7 on that is no fault: the window is real on every rank, and symmetric kernels give the right data
    wherever the ranks hold their buffers at one offset, which the rules of ownership see to (H100, 2.30.7 and 2.32.3).
    """
    if (found := _first_difference(made, _size)) is None:
        return None
    index, held = found
    sizes = ", ".join(f"rank {rank} {counted(size, 'byte')}" for rank, size in held.items())
    return RegistrationSkew(
        f"the {ordinal(index)} registration of {case.name(group)} differs in size: {sizes}. NCCL before 2.30.7 refuses "
        f"it on some rank.",
        step=next(iter(made.values()))[index].born,
        ranks=tuple(made),
    )


def _first_difference(made: Made, fact: Callable[[WindowLife], int]) -> tuple[int, dict[int, int]] | None:
    """The number of the first registration made by every rank in which a fact differs, and the fact of each rank."""
    for index, windows in enumerate(zip(*made.values(), strict=False)):
        facts = {rank: fact(window) for rank, window in zip(made, windows, strict=True)}
        if len(set(facts.values())) > 1:
            return index, facts
    return None


def _born(window: WindowLife) -> int:
    return window.born


def _size(window: WindowLife) -> int:
    """Bytes of the segment under a window. Peers map a whole segment: a window over a part of equal segments may differ
    in size (2.28.9 and 2.29.7)."""
    return window.event.size if window.segment is None else window.segment.event.size
