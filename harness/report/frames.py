"""Where a hung rank is, in a line: the frames of its stack that say most. Where the system under test raised, and the
last lines of a dead rank."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from harness.oracle.case import ranks_text
from harness.oracle.findings import PRINTED, RAISED, TRACEBACK, Record
from harness.text import visible
from harness.world.stacks import is_native

PYTHON = 3
"""Lines of source shown, below the call into a library."""
WRAPPERS = re.compile(
    r"\((libc|libpython|libpthread|ld-linux|libtorch_python|linux-vdso)[.\d-]|\.cpython-|\.pyx:\d|^0x"
)
"""Frames that every native stack has above or below the library that matters, and those without a name."""


CALLS = re.compile(r"p?(nccl|cuda?)[A-Z]")
"""Calls of NCCL and CUDA, which say more than what a binding made of them."""

ASLEEP = re.compile(r"\bharness/ipc/futex\.py:\d|\b_sleep \(.*rendezvous\.py:\d")
"""How a rank waits for others on the host; where it waits says more."""

WRAPPED = re.compile(r"\bsubstrate/(?:nccl/quiet|sim/spins)\.py:\d")
"""How the harness calls NCCL, and what stands before Triton's interpreter; who calls it says more."""
OTHERS = re.compile(r"[(/]harness/(?!system/planted/|system/pools/)|/(site|dist)-packages/|/lib/python\d|\(<")
"""Frames that are not of the system under test, unless that is an installed package."""


def places(record: Record, is_whole: bool = False) -> Iterator[str]:
    """A line for each place where ranks of a hang are, such as
    `rank 0: in ncclCommWindowRegister (dev_runtime.cc:1862) < NcclCommunicator._register (communicator.py:55)`.

    `is_whole`: all of a traceback, too."""
    found: dict[str, list[int]] = {}
    for stack in record.stacks:
        if stack.witness == RAISED:
            if stack.frames:
                yield f"rank {stack.rank}: in {visible(' < '.join(map(_short, stack.frames)))}"
            continue
        if stack.witness == TRACEBACK:
            yield from map(visible, stack.frames if is_whole else ())
            continue
        if stack.witness == PRINTED:
            yield f"rank {stack.rank} printed, at the last:"
            yield from (f"  {visible(line)}" for line in stack.frames)
            continue
        found.setdefault(" < ".join(map(_short, _informative(stack.frames))), []).append(stack.rank)
    for place, ranks in found.items():
        yield f"{ranks_text(tuple(ranks))}: in {visible(place)}"


def _informative(frames: tuple[str, ...]) -> list[str]:
    """What Python called, if that was a library, the lines from which, and the innermost of the system under test."""
    asleep = [index for index, frame in enumerate(frames) if ASLEEP.search(frame)]
    frames = frames[asleep[-1] + 1 :] if asleep else frames
    native = [*takewhile(is_native, frames)]
    candidates = [frame for frame in native if WRAPPERS.search(frame) is None]
    called = ([frame for frame in candidates if CALLS.match(frame)] or candidates)[-1:]
    python = [frame for frame in frames[len(native) :] if WRAPPED.search(frame) is None]
    tested = next((index for index, frame in enumerate(python) if OTHERS.search(frame) is None), 0)
    return [*called, *python[:PYTHON], *python[max(PYTHON, tested) : tested + 1]] or native[:1]


def _short(frame: str) -> str:
    """A frame without the folders of its file."""
    return re.sub(r"\([^()]*/", "(", frame)
