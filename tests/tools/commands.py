"""Commands run as processes of their own, in a folder of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import sysconfig
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from tests.tools.processes import marked, new_mark

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["harness.cli.main"])
ONE_AT_A_TIME = threading.Lock()
"""Starting a process asks after all others, and of two threads that ask at once one gets a wrong answer."""

ALONE = {
    "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "80",
}
"""The command of this very environment, active or not; no GPU, so that `auto` means the same everywhere; no files but
those the command writes."""


class Run(NamedTuple):
    """A command that has ended: its output, and what it left."""

    status: int
    out: str
    err: str
    seconds: float
    processes: list[int]
    folder: Path

    @property
    def data(self) -> Any:
        """The data that it wrote to stdout."""
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


def forked(folder: Path, *arguments: str) -> Run:
    """The same in a process forked from one that has imported the command line, which takes a short command most of
    its time."""
    mark, out, err = new_mark(), folder.with_suffix(".out"), folder.with_suffix(".err")
    began = time.monotonic()
    process = FORKED.Process(target=_main, args=(folder, arguments, {**ALONE, **mark}, out, err))
    with ONE_AT_A_TIME:
        process.start()
    ended = wait([process.sentinel], 120)
    seconds = time.monotonic() - began
    with ONE_AT_A_TIME:
        process.kill()
        process.join()
    assert ended
    assert process.exitcode is not None
    return Run(process.exitcode, out.read_text(), err.read_text(), seconds, marked(mark), folder)


def _main(folder: Path, arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path) -> None:
    """The command, in a process of its own."""
    os.chdir(folder)
    os.environ.update(environment)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    from harness.cli import main as cli

    for number, path in enumerate((Path(os.devnull), out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["symm", *arguments]
    cli.main()
