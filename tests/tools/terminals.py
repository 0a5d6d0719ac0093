"""A command on a terminal of its own, and a user who types there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.tools.commands import ALONE

SECONDS = 60.0
"""For all of it."""


def typed(
    folder: Path, command: Sequence[str], lines: Sequence[str], prompt: str, pause: float = 0.0
) -> tuple[int, str]:
    """The status and the output of a command in `folder`, for which each line is typed some seconds after a prompt."""
    ours, inside = pty.openpty()
    end, shown, left = time.monotonic() + SECONDS, "", [*lines]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **ALONE},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    ) as process:
        os.close(inside)
        try:
            while time.monotonic() < end and (text := _next(ours)) is not None:
                shown += text
                if left and shown.rstrip(" ").endswith(prompt):
                    time.sleep(pause)
                    os.write(ours, f"{left.pop(0)}\n".encode())
            return process.wait(timeout=max(1.0, end - time.monotonic())), shown.replace("\r\n", "\n")
        finally:
            process.kill()
            os.close(ours)


def _next(terminal: int) -> str | None:
    """What comes next; None where the terminal has closed."""
    try:
        return os.read(terminal, 4096).decode(errors="replace") if select.select([terminal], [], [], 0.2)[0] else ""
    except OSError:
        return None
