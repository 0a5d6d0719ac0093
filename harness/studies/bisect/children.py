"""Commands that a bisection runs: pip, and the harness itself.

Invariant: no command outlives the call that started it, also where that is interrupted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from harness import interrupts

PATIENCE = 20.0
"""Seconds for an interrupted command to end by itself: ranks on GPUs take a while to let go of them."""


class Ended(NamedTuple):
    """A command that has ended, with all that it wrote."""

    status: int
    out: str
    err: str


def run(command: Sequence[str], environment: dict[str, str], folder: Path | None = None) -> Ended:
    """Run a command in a folder, by default the working directory, with all of this environment and no input."""
    with TemporaryFile() as out, TemporaryFile() as err:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            process.wait()
        except BaseException:
            with interrupts.held():
                _end(process)
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(process.returncode, *texts)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
