"""What NCCL leaves in shared memory when its processes are killed.

Invariant: nothing is removed but what processes of this world had mapped. NCCL unlinks a file in `/dev/shm` once every
peer has it mapped, which a process that is killed while a communicator is made or grown never sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MADE_BY_NCCL = "/dev/shm/nccl-"


def mapped(pids: Iterable[int]) -> set[Path]:
    """NCCL's files that these processes have mapped, and that are linked still. Local; one that is gone has none."""
    found: set[Path] = set()
    for pid in pids:
        with suppress(OSError):
            lines = os.fsdecode(Path(f"/proc/{pid}/maps").read_bytes()).splitlines()
            found |= {Path(line[line.index(MADE_BY_NCCL) :]) for line in lines if MADE_BY_NCCL in line}
    return {path for path in found if path.exists()}  # "(deleted)" is part of the name of one that is not linked


def remove(paths: Iterable[Path]) -> None:
    """Unlink them, after the processes have ended."""
    for path in paths:
        path.unlink(missing_ok=True)
