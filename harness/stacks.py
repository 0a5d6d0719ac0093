"""The stacks of ranks that do not come back, from whoever can tell them.

A rank writes its Python stack itself on SIGUSR1, whatever C code it is in. py-spy, where it is installed
and may attach, adds the native frames, and reads a rank that is stopped and cannot write.

Invariant: never raises and leaves no process behind; all ranks together take `WRITING` and `SPYING`
seconds at most. A stack is one frame a line, innermost first, `name (file:line)` or `name (library)`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from harness.launcher import RankProcess

WRITING = 0.5
SPYING = 2.0
FRAMES = 25
"""Innermost frames kept, of native ones and of the others."""
BOTTOM = "_serve"
"""The frame of a rank below which every rank looks the same."""


class Stack(NamedTuple):
    """A stack as text, and who told it."""

    text: str
    witness: str


def take(ranks: Mapping[int, RankProcess], native: bool) -> dict[int, Stack]:
    """The stacks of ranks, by index; those that nobody can tell are left out.

    `native`: ask for native frames too, which stops a rank for about 0.3 s.
    """
    written = _written(ranks)
    dumps = {(index, "--nonblocking"): ranks[index].pid for index in ranks.keys() - written.keys()}
    if native:
        dumps |= {(index, "--native"): rank.pid for index, rank in ranks.items()}
    spied = _spied(dumps)
    told = {index: Stack(text, "SIGUSR1") for index, text in written.items()}
    told |= {index: Stack(text, "py-spy") for (index, option), text in spied.items() if option == "--nonblocking"}
    with_native = "py-spy with native frames"
    return told | {index: Stack(text, with_native) for (index, option), text in spied.items() if option == "--native"}


def py_spy() -> str | None:
    """The py-spy of this environment, or else of the system."""
    own = Path(sys.executable).with_name("py-spy")
    return str(own) if own.is_file() else shutil.which("py-spy")


def _written(ranks: Mapping[int, RankProcess]) -> dict[int, str]:
    """What the ranks write of themselves in `WRITING` seconds."""
    starts = {index: rank.ask_for_stack() for index, rank in ranks.items()}
    found: dict[int, str] = {}
    end = time.monotonic() + WRITING
    while len(found) < len(ranks) and time.monotonic() < end:
        time.sleep(0.01)
        for index in starts.keys() - found.keys():
            text = ranks[index].written_since(starts[index])
            if f"in {BOTTOM}" in text:
                found[index] = bounded(re.sub(r'  File "(.*)", line (\d+) in (.+)', r"\3 (\1:\2)", text).splitlines())
    return found


def _spied(dumps: Mapping[tuple[int, str], int]) -> dict[tuple[int, str], str]:
    """What py-spy tells of processes in `SPYING` seconds, by index and option; nothing where it cannot."""
    spy = py_spy()
    found: dict[tuple[int, str], str] = {}
    if spy is None:
        return found
    with ExitStack() as running:
        processes = {}
        for (index, option), pid in dumps.items():
            with suppress(OSError):
                process = _start([spy, "dump", "--pid", str(pid), option])
                running.enter_context(process)
                running.callback(process.kill)
                processes[index, option] = process
        end = time.monotonic() + SPYING
        for key, process in processes.items():
            with suppress(subprocess.TimeoutExpired):
                told, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
                found[key] = bounded(main_thread(told.decode(errors="replace"), dumps[key]))
    return {key: text for key, text in found.items() if text}


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
    )


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
    """Whether a frame is one of a library, and not a line of source."""
    return re.search(r":\d+\)$", frame) is None
