"""The rule on order: what two ranks do to the same bytes is ordered, unless both read.

Rules: race. Only draws by a schedule have the facts.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.findings import Finding, Race
from harness.oracle.rules.happens_before import Access, Pair, unordered
from harness.text import counted
from harness.trace.accesses import WORKSPACE, Relaxed, Scheduled
from harness.trace.trace import Trace

HARNESS = {
    "fills": "has its operand filled",
    "looks at": "has its operand looked at",
    "clears": "gets or gives back the buffer",
}
"""What the harness does with a rank's memory, as what the rank does in an engine."""


def judge(case: Case) -> Iterator[Finding]:
    traces = [history.trace for history in case.histories]
    if not any(isinstance(event, Scheduled) for trace in traces for event in trace.events[:1]):
        return
    told: set[tuple[object, ...]] = set()
    for pair in unordered(traces):
        what = pair.second.step, _site(pair.first), _site(pair.second)
        if what not in told:
            told.add(what)
            yield _race(case, traces, pair)


def _site(access: Access) -> tuple[str, str, str]:
    return access.event.how, access.event.kernel, access.event.place


def _race(case: Case, traces: list[Trace], pair: Pair) -> Finding:
    first, second = sorted((pair.first, pair.second), key=lambda access: not access.event.kernel)
    ranks = tuple(sorted({first.rank, second.rank}))
    return Race(
        f"{_memory(case, pair)}: rank {first.rank} {_does(first)} at {case.at_step(first.step)}, and rank "
        f"{second.rank} {_does(second)} at {case.at_step(second.step)}. Nothing orders the two: no release of either "
        f"rank behind its access was acquired by the other.{_partly(first, second)}{_relaxed(traces, pair)}",
        step=max(first.step, second.step),
        ranks=ranks,
    )


def _partly(first: Access, second: Access) -> str:
    """Why two accesses of kernels, of which one takes whole words, are a race all the same."""
    whole, other = sorted((first.event, second.event), key=lambda event: -event.word)
    if not whole.word or not other.kernel:
        return ""
    if other.word:
        return f" One takes words of {whole.word} bytes, and the other of {other.word}."
    place = f"{other.kernel} ({other.place})"
    if other.how.startswith("atomically"):
        return f" The atomic operation in {place} is not at system scope, so peers may find it in parts."
    what = "no atomic operation, and no volatile load of words of four bytes at most"
    return f" The access in {place} may be made in parts: it is {what}."


def _does(access: Access) -> str:
    event = access.event
    if not event.kernel:
        return HARNESS.get(event.how, event.how)
    return f"{event.how} them in {event.kernel} ({event.place})"


def _memory(case: Case, pair: Pair) -> str:
    """Such as `bytes 0–511 of 'b1' on rank 0`."""
    event = pair.second.event
    begin, end = pair.byte, min(_end(access, pair.byte) for access in (pair.first, pair.second))
    if event.pad == WORKSPACE:
        return f"{counted(end - begin, 'byte')} of a workspace or of flags on rank {event.owner}"
    if event.pad:
        return f"the {event.pad} of {case.name(event.group)} on rank {event.owner}"
    history = case.histories[event.owner]
    base = next((each.base for each in history.trace.events if isinstance(each, Scheduled)), 0)
    lives = [
        (name, life)
        for name, life in history.buffers.items()
        if life.event.address <= base + begin < life.event.address + life.event.size and life.born <= pair.second.step
    ]
    if not lives:
        return f"{counted(end - begin, 'byte')} of a segment on rank {event.owner}"
    name, life = max(lives, key=lambda entry: entry[1].born)
    start = base + begin - life.event.address - life.event.front
    return f"bytes {start}–{start + end - begin - 1} of {name!r} on rank {event.owner}"


def _end(access: Access, byte: int) -> int:
    return next(end for begin, end in access.event.spans if begin <= byte < end)


def _relaxed(traces: list[Trace], pair: Pair) -> str:
    """The atomic operations of the two ranks between the two accesses that order nothing, as sentences."""
    begin, end = sorted((pair.first.event.number, pair.second.event.number))
    sites = {
        (event.kernel, event.place, event.why): None
        for rank in sorted({pair.first.rank, pair.second.rank})
        for event in traces[rank].events
        if isinstance(event, Relaxed) and begin < event.number < end
    }
    return "".join(
        f" The atomic operation in {kernel} ({place}) is {why}, and orders nothing." for kernel, place, why in sites
    )
