"""Which processes of a run are still there, as the kernel of this machine says.

Invariant: a process counts only if it has the run's own folder or file; a number that another process got later does
not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.machine.observer.build import OUT
from harness.machine.observer.records import SUFFIX


def writing(folder: Path) -> frozenset[str]:
    """Paths of the recordings in a folder whose processes have not ended: they have them mapped."""
    return frozenset(str(path) for path in folder.glob(f"*{SUFFIX}") if _maps(path))


def _maps(recording: Path) -> bool:
    """The observer names a file after the host, the process and a number."""
    _, _, rest = recording.name.rpartition("-")[0].rpartition("-")
    return str(recording.resolve()).encode() in _read(f"/proc/{rest}/maps")


def started_under(folder: str) -> Iterator[int]:
    """The processes of this user that were started with recordings going to a folder, whoever is their parent now."""
    wanted = f"{OUT}={folder}".encode()
    for number in filter(str.isdigit, os.listdir("/proc")):
        if int(number) != os.getpid() and wanted in _read(f"/proc/{number}/environ").split(b"\0"):
            yield int(number)


def _read(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""
