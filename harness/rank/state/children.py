"""Processes that a draw started on this rank and left: found, ended, reaped. Those of a plug-in's import are spared.

Invariant: a rank takes in the children of children that have ended (`adopt_orphans`), so that none goes unseen by
forking once more.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from ctypes import CDLL
from os import P_ALL, WEXITED, WNOHANG, WNOWAIT, kill, waitid, waitpid
from pathlib import Path
from signal import SIGKILL

PR_SET_CHILD_SUBREAPER = 36
GENERATIONS = 100
"""How often children are looked for: one that is killed may leave some, and may have forked before."""


def adopt_orphans() -> None:
    """Have descendants of this process whose own parent ends become its children (prctl(2))."""
    CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def has_any() -> bool:
    """Whether this process has a child, running or not yet reaped. One system call."""
    try:
        waitid(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end(spared: Collection[int] = ()) -> tuple[str, ...]:
    """Kill and reap every child but the `spared`, and what becomes a child by that. Returns the command lines of those
    that ran."""
    ended: list[str] = []
    for _ in range(GENERATIONS):
        left = [pid for pid in pids() if pid not in spared]
        if not left:
            break
        ended += [command for pid in left if (command := _command(pid))]
        for pid in left:
            with suppress(ProcessLookupError):
                kill(pid, SIGKILL)
        for pid in left:
            with suppress(ChildProcessError):  # reaped by another thread, or by a SIGCHLD that is ignored
                waitpid(pid, 0)
    return tuple(ended)


def every() -> dict[int, str]:
    """The command line of each child by its process id; empty for one that has ended."""
    return {pid: _command(pid) for pid in pids()}


def pids() -> list[int]:
    """The children of every thread: a child belongs to the one that forked it."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for each in lists for pid in _read(each).split()]


def _read(path: Path) -> str:
    with suppress(OSError):  # the thread has ended meanwhile
        return path.read_text()
    return ""


def _command(pid: int) -> str:
    """The command line of a process, or its name where it has none, as just before it runs another program; nothing of
    one that has ended."""
    process = Path(f"/proc/{pid}")
    try:
        line, status = (process / "cmdline").read_bytes(), (process / "stat").read_text(errors="replace")
    except OSError:
        return ""
    name, _, state = status.partition("(")[2].rpartition(") ")
    if state.startswith(("Z", "X")):
        return ""
    if line == Path("/proc/self/cmdline").read_bytes():
        return "a fork of this process"
    return line.replace(b"\0", b" ").decode(errors="replace").strip() or name
