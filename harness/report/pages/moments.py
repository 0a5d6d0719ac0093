"""The memory of a draw's ranks at the moment of a call: segments, buffers, windows, and the window that was wanted.

Invariant: a map is made of what a rank had recorded before the call, and of nothing that came later but the damage that
was found behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.oracle.case import Case
from harness.oracle.history import History, Use, read
from harness.oracle.lives import BufferLife, SegmentLife, WindowLife
from harness.oracle.rules.happens_before import Pair, unordered
from harness.oracle.sight import Sight
from harness.report.pages.account import Claim, MemoryMap, RankMemory, Registration, Segment, Span
from harness.scenario.layouts.groups import Group
from harness.text import counted
from harness.trace.accesses import Scheduled
from harness.trace.events import Called, Overwritten, Role, Touched
from harness.trace.trace import Trace

MOST = 4
"""Ranks that a map shows."""


class _Now:
    """A rank at the moment: its history until then, and its views of the calls that matter."""

    def __init__(self, case: Case, rank: int, step: int, calls: range, races: Sequence[Pair]) -> None:
        self.case, self.rank, self.step, self.races = case, rank, step, races
        self.history = _until(case.histories[rank].trace, step)
        self.uses = [use for use in self.history.uses if use.step in calls]
        self.reached: list[tuple[int, Span]] = []
        """Where peers land, by segment."""

    @property
    def use(self) -> Use | None:
        return self.uses[-1] if self.uses else None


def _until(trace: Trace, step: int) -> History:
    """What a rank had recorded when it made the call of a step; of a step without one, when it was through with it."""
    last = 0
    for place, (at, event) in enumerate(trace.steps()):
        if at <= step:
            last = place + 1
        if at == step and isinstance(event, Called):
            break
    return read(Trace(trace.rank, trace.events[:last]))


def memory_map(case: Case, step: int, ranks: Group) -> MemoryMap | None:
    """The memory at a step, of the ranks that a finding names and of those that they call with. None where no rank has
    any."""
    calls = _calls_at(case, step)
    groups = [those for at, those in case.calls if at in calls]
    group = next((those for those in groups if set(those) & set(ranks)), groups[0] if groups else ())
    wide = dict.fromkeys((*ranks, *group))
    races = [*unordered([history.trace for history in case.histories])]
    nows = [_Now(case, rank, step, calls, races) for rank in sorted([*wide][:MOST])]
    _reach(case, nows)
    shown = tuple(map(_of_rank, nows))
    if not any(each.segments for each in shown):
        return None
    use = next((now.use for now in nows if now.use), None)
    moment = case.call(use) if use is not None and use.step == step else case.at_step(step)
    wanted = "" if use is None or len(use.comm.group) < 2 else case.name(use.comm.id)
    return MemoryMap(moment, wanted, shown, max(0, len(wide) - MOST))


def _calls_at(case: Case, step: int) -> range:
    """The steps whose calls run at a step: its own, or those that a replay runs again."""
    graph = case.program.replays.get(step)
    return case.program.captures[graph] if graph is not None else range(step, step + 1)


def roles(case: Case, use: Use) -> tuple[Role, ...]:
    """The operands of a call that have to lie in a window, or all where none has to."""
    return case.peer_roles([use]) or ("source", "output")


def _reach(case: Case, nows: list[_Now]) -> None:
    """Note where the access of each rank lands on its peers, where that is not the peers' own operand."""
    for now in nows:
        if now.use is None:
            continue
        for role in roles(case, now.use):
            for peer in nows:
                if peer is not now and peer.use is not None and peer.use.comm.id == now.use.comm.id:
                    _land(case, now.use.sight(role), peer, now.rank, role)


def _land(case: Case, sight: Sight, peer: _Now, rank: int, role: Role) -> None:
    """NCCL and kernels apply the local window's ordinal and offset to every peer."""
    assert peer.use is not None
    place = sight.place
    if place is None or place == peer.use.sight(role).place:
        return
    mine = peer.history.registrations(peer.use.comm.comm)
    window = next((each for each in mine if each.ordinal == place[0]), None)
    if window is None or window.segment is None:
        return
    start = window.base - window.segment.event.address + place[1]
    lies = _lies_at(peer.history, window.segment, start, start + sight.operand.size)
    text = f"rank {rank} takes {case.operand(sight)} to be here: {lies}"
    peer.reached.append((window.segment.event.segment, Span("reached", start, start + sight.operand.size, text)))


def _lies_at(history: History, segment: SegmentLife, start: int, end: int) -> str:
    """What a range of a segment holds."""
    names = [
        repr(name)
        for name, life in history.buffers.items()
        if life.died is None
        and life.event.segment == segment.event.segment
        and life.event.address - segment.event.address < end
        and start < life.event.address - segment.event.address + life.event.size
    ]
    if end > segment.event.size:
        return "past the end"
    return f"part of {' and '.join(names)}" if names else "free memory"


def _of_rank(now: _Now) -> RankMemory:
    """The segments that the call touches; all, where it touches none."""
    live = {ident: life for ident, life in now.history.segments.items() if life.is_live or _stale(now, life)}
    touched = {sight.segment.event.segment for _, sight in _sights(now) if sight.segment is not None}
    touched |= {ident for ident, _ in now.reached} | {ident for ident, _ in _damage(now)}
    touched |= {window.event.segment for _, sight in _sights(now) if (window := sight.window) is not None}
    shown = [ident for ident in live if ident in touched] or [*live]
    return RankMemory(
        now.rank,
        tuple(_segment(now, live[ident]) for ident in shown),
        _sentence(now),
        len(live) - len(shown),
    )


def _stale(now: _Now, life: SegmentLife) -> bool:
    """Whether the call finds a window over a segment that was freed."""
    return any(sight.window is not None and sight.window.segment is life for _, sight in _sights(now))


def _sights(now: _Now) -> Iterator[tuple[Role, Sight]]:
    """The rank's operands, each memory once."""
    seen: set[tuple[int, int]] = set()
    for use in now.uses:
        peers = roles(now.case, use)
        others: tuple[Role, ...] = tuple(role for role in ("source", "output") if role not in peers)
        for role in (*peers, *others):
            sight = use.sight(role)
            if (key := (sight.operand.address, sight.operand.size)) not in seen:
                seen.add(key)
                yield role, sight


def _segment(now: _Now, life: SegmentLife) -> Segment:
    ident, base = life.event.segment, life.event.address
    spans = [
        Span("buffer", buffer.event.address - base, buffer.event.address - base + buffer.event.size, name)
        for name, buffer in now.history.buffers.items()
        if buffer.died is None and buffer.event.segment == ident
    ]
    for role, sight in _sights(now):
        if sight.operand.size and life.covers(sight.operand.address):
            start = sight.operand.address - base
            text = f"{role} {now.case.operand(sight)}"
            spans.append(Span("operand", start, start + sight.operand.size, text))
            spans += _earlier(now, sight, life)
    spans += [span for at, span in now.reached if at == ident]
    spans += [span for at, span in _damage(now) if at == ident]
    return Segment(
        ident, life.event.pool, life.event.size, tuple(dict.fromkeys(spans)), tuple(_registrations(now, life))
    )


def _earlier(now: _Now, sight: Sight, segment: SegmentLife) -> Iterator[Span]:
    """Buffers that lay where the operand's buffer lies now."""
    own = now.history.buffers.get(sight.operand.buffer)
    for name, life in now.history.buffers.items():
        if own is None or life.died is None or not segment.covers(life.event.address):
            continue
        start = life.event.address - segment.event.address
        if _meet(own, life):
            text = f"{name!r} until {now.case.at_step(life.died)}"
            yield Span("earlier", start, start + life.event.size, text)


def _meet(one: BufferLife, other: BufferLife) -> bool:
    first, second = one.event, other.event
    return first.address < second.address + second.size and second.address < first.address + first.size


def _damage(now: _Now) -> Iterator[tuple[int, Span]]:
    """Bytes that changed at the step and should not have, or that two ranks use in no order, by segment."""
    yield from _raced(now)
    for at, event in now.case.histories[now.rank].trace.steps():
        if at != now.step:
            continue
        if isinstance(event, Touched) and event.segment in now.history.segments:
            base = now.history.segments[event.segment].event.address
            text = f"{counted(event.changed, 'byte')} changed here"
            yield event.segment, Span("damage", event.address - base, event.end - base, text)
        elif isinstance(event, Overwritten) and (life := now.history.buffers.get(event.buffer)):
            segment = now.history.segments.get(life.event.segment)
            if segment is not None and event.where in ("front", "guard"):
                start = life.event.address - segment.event.address
                body = start + life.event.front
                span = (start, body) if event.where == "front" else (body + life.event.body, start + life.event.size)
                yield life.event.segment, Span("damage", *span, f"canaries beside {event.buffer!r} changed")


def _raced(now: _Now) -> Iterator[tuple[int, Span]]:
    """Bytes of this rank that two ranks use at the step and that nothing orders, by segment. Only draws by a schedule
    have any."""
    trace = now.case.histories[now.rank].trace
    base = next((event.base for event in trace.events[:1] if isinstance(event, Scheduled)), None)
    if base is None:
        return
    for first, second, byte in now.races:
        if second.event.owner == now.rank and second.event.pad == "" and max(first.step, second.step) == now.step:
            end = min(stop for each in (first, second) for start, stop in each.event.spans if start <= byte < stop)
            segment = now.history.ground.segment(base + byte)
            if segment is not None:
                start = base + byte - segment.event.address
                text = f"rank {first.rank} {first.event.how}, rank {second.rank} {second.event.how}: in no order"
                yield segment.event.segment, Span("damage", start, start + end - byte, text)


def _registrations(now: _Now, segment: SegmentLife) -> Iterator[Registration]:
    """All that was ever registered over a segment until now, and last the window that the call wants and has not."""
    base, case, use = segment.event.address, now.case, now.use
    wanted = None if use is None or len(use.comm.group) < 2 else use.comm
    for window in now.history.windows.values():
        if window.segment is not segment:
            continue
        start, end = window.event.address - base, window.end - base
        claim = _claim(window, None if wanted is None else wanted.comm)
        yield Registration(claim, case.name(window.comm.id), start, end, _born(now, window, claim))
    if use is None or wanted is None or not wanted.has_windows:
        return
    for role, sight in _sights(now):
        if role in case.peer_roles([use]) and segment.covers(sight.operand.address) and not sight.is_whole:
            start = sight.operand.address - base
            text = f"no window of {case.name(wanted.id)} here: the call needs one"
            yield Registration("wanted", case.name(wanted.id), start, start + max(1, sight.operand.size), text)


def _claim(window: WindowLife, comm: int | None) -> Claim:
    if not window.is_live:
        return "gone"
    if window.event.is_null:
        return "null"
    if window.segment_freed_at is not None:
        return "stale"
    return "owner" if window.event.comm == comm else "other"


def _born(now: _Now, window: WindowLife, claim: Claim) -> str:
    case = now.case
    text = f"window {window.ordinal} of {case.name(window.comm.id)}, {case.at_step(window.born)}"
    if claim == "gone" and window.died is not None:
        return f"{text}; gone since {case.at_step(window.died)}"
    if claim == "null":
        return f"registered with {case.name(window.comm.id)} at {case.at_step(window.born)}, without a window"
    if claim == "stale" and window.segment_freed_at is not None:
        return f"{text}; its segment was freed at {case.at_step(window.segment_freed_at)}"
    return text


def _sentence(now: _Now) -> str:
    """Where the rank's operands lie, and by which window the call finds them."""
    if now.use is None:
        return "" if now.history.segments else "It holds no segment of a pool."
    return " ".join(_found(now, now.use, role) for role in roles(now.case, now.use))


def _found(now: _Now, use: Use, role: Role) -> str:
    case, sight = now.case, use.sight(role)
    own, name = case.name(use.comm.id), f"The {role} {case.operand(sight)}"
    if sight.segment is None:
        return f"{name} lies outside every segment of the pools."
    at = f"{name} lies at byte {sight.operand.address - sight.segment.event.address:,} of segment "
    at += str(sight.segment.event.segment)
    if len(use.comm.group) < 2:
        return f"{at}; a group of one rank needs no window."
    if sight.window is not None:
        reach = "" if sight.is_whole else ", which ends before the operand does"
        return f"{at}, in window {sight.window.ordinal} of {own}{reach}."
    owners = dict.fromkeys(case.name(window.comm.id) for window in sight.others)
    return f"{at}, in a window of {' and '.join(owners)} and none of {own}." if owners else f"{at}, in no window."
