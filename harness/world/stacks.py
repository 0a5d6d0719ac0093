"""The stacks of ranks that do not come back, from whatever can read them.

A rank writes its Python stack itself on SIGUSR1, whatever C code it is in. py-spy, where it is installed
and may attach, adds the native frames, and reads a rank that is stopped and cannot write.

Invariant: never raises and leaves no process behind; all ranks together take `WRITING` and `SPYING`
seconds at most, 2 s in all. A stack is one frame a line, innermost first, `name (file:line)` or `name (library)`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from harness.clock import CLOCK, Clock
from harness.world.rank_process import RankProcess

WRITING = 0.5
SPYING = 1.5
PAUSE = 0.01
"""Seconds between two looks for a written stack."""
FRAMES = 25
"""Innermost frames kept, of native ones and of the others."""
BOTTOM = "_serve"
"""The frame of a rank below which every rank looks the same."""


PYTHON, NATIVE = "--nonblocking", "--native"
"""Options of py-spy: to read a process without stopping it, and to add the frames of libraries."""


class Stack(NamedTuple):
    """A stack as text, and what read it."""

    text: str
    witness: str


def take(ranks: Mapping[int, RankProcess], native: bool, clock: Clock = CLOCK) -> dict[int, Stack]:
    """The stacks of ranks, by index; those that nothing can read are left out.

    `native`: ask for native frames too, which stops a rank for about 0.3 s.
    """
    written = _written(ranks, clock)
    dumps = {(index, PYTHON): ranks[index].pid for index in ranks.keys() - written.keys()}
    if native:
        dumps |= {(index, NATIVE): rank.pid for index, rank in ranks.items()}
    spied = _spied(dumps, clock)
    found = {index: Stack(text, "SIGUSR1") for index, text in written.items()}
    found |= {index: Stack(text, "py-spy") for (index, option), text in spied.items() if option == PYTHON}
    with_native = "py-spy with native frames"
    return found | {index: Stack(text, with_native) for (index, option), text in spied.items() if option == NATIVE}


def py_spy() -> str | None:
    """The py-spy of this environment, or else of the system."""
    own = Path(sys.executable).with_name("py-spy")
    return str(own) if own.is_file() else shutil.which("py-spy")


def _written(ranks: Mapping[int, RankProcess], clock: Clock) -> dict[int, str]:
    """The stacks that the ranks write themselves within `WRITING` seconds."""
    starts = {index: rank.ask_for_stack() for index, rank in ranks.items()}
    found: dict[int, str] = {}
    end = clock.now() + WRITING
    while len(found) < len(ranks) and clock.now() < end:
        clock.sleep(PAUSE)
        for index in starts.keys() - found.keys():
            text = ranks[index].written_since(starts[index])
            if f"in {BOTTOM}" in text:
                found[index] = bounded(re.sub(r'  File "(.*)", line (\d+) in (.+)', r"\3 (\1:\2)", text).splitlines())
    return found


def _spied(dumps: Mapping[tuple[int, str], int], clock: Clock) -> dict[tuple[int, str], str]:
    """The stacks that py-spy reads within `SPYING` seconds, by index and option; nothing where it cannot.

    As many at a time as there are cores: each reads the symbols of every library, and together none would be done.
    """
    spy, end = py_spy(), clock.now() + SPYING
    if spy is None or not dumps:
        return {}

    def read(dump: tuple[tuple[int, str], int]) -> str:
        (_, option), pid = dump
        return output_of([spy, "dump", "--pid", str(pid), option], end - clock.now())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        printed = pool.map(read, dumps.items())
        texts = {key: bounded(main_thread(text, dumps[key])) for key, text in zip(dumps, printed, strict=True)}
    return {key: text for key, text in texts.items() if text}


def output_of(command: list[str], seconds: float) -> str:
    """The output of a command that ends well within this time; else nothing."""
    if seconds <= 0:
        return ""
    try:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.decode(errors="replace")


def main_thread(dump: str, pid: int) -> list[str]:
    """The frames of a process's first thread, whose id is the process's own, in what py-spy printed."""
    lines = iter(dump.splitlines())
    for line in lines:
        if line.startswith(f"Thread {pid} "):
            return [frame.strip() for frame in takewhile(lambda line: line.startswith("    "), lines)]
    return []


def bounded(frames: list[str]) -> str:
    """The frames above the rank's own loop that are innermost, as text."""
    above = [*takewhile(lambda frame: not frame.startswith(f"{BOTTOM} ("), frames)]
    above = [frame for frame in above if frame.endswith(")")]
    native = [*takewhile(is_native, above)]
    return "\n".join([*native[:FRAMES], *above[len(native) :][:FRAMES]])


def is_native(frame: str) -> bool:
    """Whether a frame is one of a library, which may know its line of source, and not one of Python."""
    return re.search(r"\.py:\d+\)$|\(<[^()]*>:\d+\)$", frame) is None
