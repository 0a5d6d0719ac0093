"""PyTorch's memory history, for a watched program: switched on after a capture, and read as Python ends.

Runs inside the watched program, whose Python need not have the harness: the observer carries this text and executes it.
So it imports what Python brings, and runs under Python 3.9. A failure changes nothing for the program.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

MOST_ENTRIES = 100_000
"""Of PyTorch's ring. An entry without a stack takes about 200 bytes."""
MOST_HELD = 4096
"""Tensors that are told."""
MOST_CAPTURES = 4096
"""Of which the observer keeps when they began and ended."""
NEEDLESS = ["free_completed", "segment_alloc", "segment_free"]
"""Entries that PyTorch may leave out, if it is new enough to be asked."""
MARGIN, DRIFT = 200.0, 500e-6
"""Microseconds by which a time may be wrong, and what the clock of the machine may be moved by without a jump."""
NEAR = 1e6
MOST_FRAMES, MOST_TEXT = 12, 2000


def library() -> Any:
    """The observer. It is the first library of this process, so its names are in the global scope."""
    found = ctypes.CDLL(None)
    found.symm_observer_ticks.restype = ctypes.c_uint64
    return found


def now() -> tuple[int, float]:
    """This moment in ticks, and in microseconds since 1970."""
    return library().symm_observer_ticks(), time.time_ns() / 1000


def pairs(ask: Any) -> list[tuple[int, int]]:
    """What the observer has, in pairs."""
    ask.restype = ctypes.c_size_t
    room = ask(None, ctypes.c_size_t(0))
    into = (ctypes.c_uint64 * 2 * room)()
    found = ask(into, ctypes.c_size_t(room))
    return [(into[place][0], into[place][1]) for place in range(min(room, found))]


def begin() -> str:
    """Switch the history on. Returns `on`, or why there is none: `no-torch`, `own`, `cannot`."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return "no-torch"
        if torch._C._cuda_isHistoryEnabled():
            return "own"
        switch_on(torch.cuda.memory._record_memory_history)
        before = now()
        torch.cuda.memory._snapshot()
        after = now()
    except Exception:
        return "cannot"
    atexit.register(finish, torch, os.getpid(), before, after)
    return "on"


def switch_on(record: Any) -> None:
    """A stack would cost each allocation Python's lock, which a thread of the program may not get."""
    has_stacks = os.environ.get("SYMM_OBSERVER_STACKS") == "all"
    wanted = {"context": "alloc" if has_stacks else None, "stacks": "python", "max_entries": MOST_ENTRIES}
    try:
        record("all", skip_actions=NEEDLESS, **wanted)
    except (TypeError, RuntimeError):
        record("all", **wanted)


def finish(torch: Any, process: int, before: tuple[int, float], after: tuple[int, float]) -> None:
    """Hand over the tensors that may hold memory of graphs at a launch. A forked child is another process."""
    if os.getpid() == process:
        state, since, rate = handed_over(torch, before, after)
        library().symm_observer_history(state, ctypes.c_uint64(since), ctypes.c_uint64(rate))


def handed_over(torch: Any, before: tuple[int, float], after: tuple[int, float]) -> tuple[bytes, int, int]:
    """What became of the history, from when on it is known where a part was lost, and ticks a second."""
    try:
        if not torch._C._cuda_isHistoryEnabled():
            return b"switched-off", 0, 0
        end = now()
        snapshot = torch.cuda.memory._snapshot()
        clocks = [Clock(trace, before, after, end) for trace in snapshot["device_traces"] if trace]
        captures = pairs(library().symm_observer_captures)
        there = living(snapshot)
        held = wanted([each for clock in clocks for each in tensors(clock, there)], captures)
        is_short = len(held) > MOST_HELD or len(captures) > MOST_CAPTURES
        hand_over([] if is_short else held)
    except Exception:
        return b"cannot", 0, 0
    since = max([end[0] if is_short else 0, *(clock.since for clock in clocks)])
    return b"part" if since else b"read", since, int(max((clock.rate for clock in clocks), default=0.0) * 1e6)


class Clock:
    """PyTorch's times, as ticks.

    PyTorch reads the counter that ticks are, and gives times by a straight line through two pairs of both: one of when
    it was loaded, one of the snapshot. The line is found again by the snapshot and by a mark: the entry of the snapshot
    that was made where the history began. Without the mark, entries were lost. Then the line is that of the machine's
    clock, which the one of PyTorch may leave by `DRIFT`.
    """

    def __init__(
        self, trace: list[dict[str, Any]], before: tuple[int, float], after: tuple[int, float], end: tuple[int, float]
    ) -> None:
        self.trace, self._end = trace, end
        marks = [each["time_us"] for each in trace[:64] if each["action"] == "snapshot"]
        mark = next((us for us in marks if abs(us - before[1]) < NEAR), None)
        start = after if mark is None else ((before[0] + after[0]) / 2, mark)
        self.rate = (end[0] - start[0]) / max(end[1] - start[1], 1.0)
        self._is_whole = mark is not None
        self._unsure = MARGIN + (after[1] - before[1] if self._is_whole else 0.0)
        self.since = 0 if self._is_whole else self.ticks(trace[0]["time_us"])

    def ticks(self, us: float) -> int:
        """A time of PyTorch's."""
        return int(self._end[0] + (us - self._end[1]) * self.rate)

    def margin(self, us: float) -> int:
        """How wrong that may be."""
        return int((self._unsure + (0.0 if self._is_whole else (self._end[1] - us) * DRIFT)) * self.rate)


class Tensor(NamedTuple):
    """Memory that PyTorch gave out, and in ticks when it came and went (0: it is there) and how wrong that may be."""

    address: int
    size: int
    came: int
    went: int
    margin: int
    frames: str


def tensors(clock: Clock, living: set[int]) -> Iterator[Tensor]:
    """Those that came while the history was kept. One that has not gone, and is not there either, is left out."""
    there: dict[int, dict[str, Any]] = {}
    for entry in clock.trace:
        if entry["action"] == "alloc":
            there[entry["addr"]] = entry
        elif entry["action"] == "free_requested" and entry["addr"] in there:
            yield tensor(clock, there.pop(entry["addr"]), clock.ticks(entry["time_us"]))
    for address, entry in there.items():
        if address in living:
            yield tensor(clock, entry, 0)


def tensor(clock: Clock, entry: dict[str, Any], went: int) -> Tensor:
    came = entry["time_us"]
    return Tensor(entry["addr"], entry["size"], clock.ticks(came), went, clock.margin(came), frames_of(entry))


def frames_of(entry: dict[str, Any]) -> str:
    """The stack of an allocation, innermost frame first, as the observer writes stacks."""
    frames = islice(entry.get("frames") or (), MOST_FRAMES)
    lines = [f"{each['filename']}:{each['line']} {each['name']}" for each in frames]
    while sum(map(len, lines)) > MOST_TEXT:
        lines.pop()
    return "\n".join(lines)


def living(snapshot: dict[str, Any]) -> set[int]:
    """The addresses of all blocks that tensors have now."""
    found = set()
    for segment in snapshot["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                found.add(address)
            address += block["size"]
    return found


def wanted(held: list[Tensor], captures: list[tuple[int, int]]) -> list[Tensor]:
    """The tensors in memory of NCCL's that were there at a launch, but for those that came in a capture: graphs may
    share a pool."""
    segments = pairs(library().symm_observer_segments)
    launches = sorted(when for pair in pairs(library().symm_observer_launches) for when in pair if when)
    return [
        each
        for each in held
        if any(start <= each.address < start + size for start, size in segments)
        and is_there_at_one(each, launches)
        and not any(start - each.margin <= each.came <= end + each.margin for start, end in captures)
    ]


def is_there_at_one(held: Tensor, moments: list[int]) -> bool:
    """Whether a tensor may be there at one of these moments, which are in order."""
    first = bisect_right(moments, held.came - held.margin)
    return first < len(moments) and (not held.went or moments[first] < held.went + held.margin)


def hand_over(held: list[Tensor]) -> None:
    tell = library().symm_observer_held
    for *numbers, frames in held:
        tell(*map(ctypes.c_uint64, numbers), frames.encode(errors="replace"))
