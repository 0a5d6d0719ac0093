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
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from harness.machine.inherited import inherited
from harness.nights.shard import VARIABLES
from harness.world import launcher
from harness.world.zygote import Zygotes
from tests.tools.nursery import NURSERY, Place
from tests.tools.processes import marked, new_mark

FORKED = multiprocessing.get_context("forkserver")
# not xdist: its workers get the path of the interpreter as it was when `xdist.plugin` was imported
FORKED.set_forkserver_preload(["harness.cli.main", "harness.plugin.tested_world", "hypothesis", "pytest"])
ONE_AT_A_TIME = threading.Lock()
"""Starting a process asks after all others, and of two threads that ask at once one gets a wrong answer."""

ALREADY = "-Wignore::pytest.PytestAssertRewriteWarning"
"""What a forked run has imported cannot be rewritten any more; none of it asserts for a test."""

Environ = dict[str, str]

ALONE = {
    "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "80",
    **dict.fromkeys(VARIABLES, ""),
}
"""The command of this very environment, active or not; no GPU, so that `auto` means the same everywhere; no files but
those the command writes; and no shard, whatever runs the tests."""


class Run(NamedTuple):
    """A command that has ended: its output, and what it left."""

    status: int
    out: str
    err: str
    seconds: float
    processes: list[int]
    folder: Path
    pid: int = 0

    @property
    def data(self) -> Any:
        """The data that it wrote to stdout."""
        return json.loads(self.out)


def seeded(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """A command that draws the same in every run of a test, unless it says which seed."""
    has_seed = "--seed" in arguments or "--help" in arguments
    return (*arguments, "--seed", "0") if arguments[:1] in (("fuzz",), ("agree",)) and not has_seed else arguments


def symm(folder: Path, *arguments: str, limit: str = "true") -> Run:
    """Run a command in a folder, behind a shell's `ulimit`."""
    mark, arguments = new_mark(), seeded(arguments)
    began = time.monotonic()
    ended = subprocess.run(
        ["sh", "-c", f'{limit} && exec symm "$@"', "symm", *arguments],
        cwd=folder,
        env=inherited(ALONE, mark),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Run(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began, marked(mark), folder)


def forked(folder: Path, *arguments: str) -> Run:
    """The same in a process forked from one that has imported the command line, and with a zygote forked from one that
    has imported what ranks need, which takes a short command most of its time."""
    return fork(symm_main, folder, seeded(arguments), inherited(ALONE))


def forked_with_a_fresh_seed(folder: Path, *arguments: str) -> Run:
    """The same, and the command chooses its seed."""
    return fork(symm_main, folder, arguments, inherited(ALONE))


def forked_code(folder: Path, code: str) -> Run:
    """Python code that calls the command line in a way of its own, run as `forked` runs a command."""
    return fork(code_main, folder, (code,), inherited(ALONE))


def forked_pytest(folder: Path, *arguments: str, environment: dict[str, str]) -> Run:
    """A run of pytest in a process forked from one that has imported it, in all of this environment."""
    return fork(pytest_main, folder, (*arguments, ALREADY), environment)


def fork(main: Callable[[tuple[str, ...]], int], folder: Path, arguments: tuple[str, ...], environment: Environ) -> Run:
    """Run a program's main function in a forked process and a folder."""
    mark, out, err = new_mark(), folder.with_suffix(".out"), folder.with_suffix(".err")
    began = time.monotonic()
    with ONE_AT_A_TIME:
        place = NURSERY.place()
        process = FORKED.Process(
            target=_become, args=(main, folder, arguments, {**environment, **mark}, out, err, place)
        )
        process.start()
    assert process.pid
    ended = wait([process.sentinel], 120)
    seconds = time.monotonic() - began
    with ONE_AT_A_TIME:
        process.kill()
        process.join()
    assert ended
    assert process.exitcode is not None
    return Run(process.exitcode, out.read_text(), err.read_text(), seconds, marked(mark), folder, process.pid)


def _become(
    main: Callable[[tuple[str, ...]], int],
    folder: Path,
    arguments: tuple[str, ...],
    environment: Environ,
    out: Path,
    err: Path,
    place: Place,
) -> None:
    """The program, in a process of its own."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    launcher.SHARED = Zygotes(place.zygote)
    for number, path in enumerate((Path(os.devnull), out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    sys.exit(main(arguments))


def symm_main(arguments: tuple[str, ...]) -> int:
    from harness.cli import main as cli

    sys.argv = ["symm", *arguments]
    cli.main()
    return 0


def code_main(arguments: tuple[str, ...]) -> int:
    (code,) = arguments
    exec(compile(code, "<code of a test>", "exec"), {"__name__": "__main__"})
    return 0


def pytest_main(arguments: tuple[str, ...]) -> int:
    import pytest

    sys.argv = ["pytest", *arguments]
    sys.path.insert(0, os.getcwd())  # as `python -m pytest` does
    return pytest.main([*arguments])
