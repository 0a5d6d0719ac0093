"""Commands run as processes of their own, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.processes import marked, new_mark

ALONE = {
    "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "80",
}
"""The command of this very environment, active or not; no GPU, so that `auto` means the same everywhere; no files but
those the command writes."""


class Run(NamedTuple):
    """A command that has ended: what it said, and what it left."""

    status: int
    out: str
    err: str
    seconds: float
    processes: list[int]
    folder: Path

    @property
    def data(self) -> Any:
        """The facts it wrote to stdout."""
        return json.loads(self.out)


def symm(folder: Path, *arguments: str, limit: str = "true") -> Run:
    """Run a command in a folder, behind a shell's `ulimit`."""
    mark = new_mark()
    began = time.monotonic()
    ended = subprocess.run(
        ["sh", "-c", f'{limit} && exec symm "$@"', "symm", *arguments],
        cwd=folder,
        env={**os.environ, **ALONE, **mark},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Run(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began, marked(mark), folder)
