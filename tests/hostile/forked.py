"""Commands forked from this process, which has imported all that they and their ranks need.

A forked command has a session of its own, and its zygote is its child, as in life. So one costs a tenth of a second
instead of four. A few of every kind run as real commands all the same.
Invariant: whoever forks here has one thread.
"""

from __future__ import annotations

import atexit
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from harness.rank.zygote import be_zygote
from harness.world import launcher
from harness.world.zygote import Zygote, Zygotes
from tests.tools.nursery import wear
from tests.tools.processes import VARIABLE

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
OURS = ("tests.hostile.deeds", "tests.hostile.pieces", "tests.tools.stateful")
"""Plug-ins that a zygote has to import by itself, as it does those in the working directory."""

COMMAND: Any = None
"""The command line as Typer builds it, once it has been built for all forked commands."""


class Child:
    """A forked process, as `subprocess.Popen` has it."""

    def __init__(self, pid: int, stderr: IO[bytes] | None = None) -> None:
        self.pid, self.stderr = pid, stderr
        self.status: int | None = None

    def poll(self) -> int | None:
        """Its status once it has ended; a signal as a negative number."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.005)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def fork(call: Callable[[], object]) -> Child:
    """Run a function in a forked process. Its status is what it returns or exits with, and 70 on any other error."""
    pid = os.fork()
    if pid:
        return Child(pid)
    status: object = 70
    try:
        status = call() or 0
    except SystemExit as left:
        status = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):
                stream.flush()
        os._exit(status if isinstance(status, int) else 1)


def become(folder: Path, environment: dict[str, str], call: Callable[[], object]) -> object:
    """In the child: a program of its own session, folder, environment and output, with zygotes forked from it."""
    os.setsid()
    os.chdir(folder)
    wear(environment[VARIABLE])
    os.environ.clear()
    os.environ.update(environment)
    for number in SIGNALS[:4]:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for number, name in enumerate((os.devnull, folder.with_suffix(".out"), folder.with_suffix(".err"))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), number)
    _close(set())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True
    launcher.SHARED = Zygotes(partial(Zygote, spawn=spawn))
    return call()


def symm(arguments: tuple[str, ...]) -> object:
    """In the child: the command line."""
    from harness.__main__ import main
    from harness.cli import main as cli

    cli.app = COMMAND or cli.app
    sys.argv = ["symm", *arguments]
    return main()  # type: ignore[func-returns-value]


def pytest(arguments: tuple[str, ...]) -> object:
    """In the child: pytest."""
    from hypothesis.configuration import set_hypothesis_home_dir
    from pytest import main  # noqa: PT013  (the name is this function's)

    # it would be that of the parent, whose database has what all acts before this one found
    set_hypothesis_home_dir(Path(".hypothesis").absolute())
    sys.argv = ["pytest", *arguments]
    sys.path.insert(0, os.getcwd())
    return int(main(["-Wignore::pytest.PytestAssertRewriteWarning", "-pno:cacheprovider", *arguments]))


def spawn(door: socket.socket, environment: dict[str, str], preload: tuple[str, ...]) -> Child:
    """A zygote's process, forked, as `harness.world.zygote.spawn` starts one."""
    parent = os.getpid()
    read, write = os.pipe()
    child = fork(partial(_zygote, door, environment, preload, write, parent))
    os.close(write)
    child.stderr = os.fdopen(read, "rb")
    return child


def _zygote(
    door: socket.socket, environment: dict[str, str], preload: tuple[str, ...], error: int, parent: int
) -> object:
    for number, fd in enumerate((os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR), error)):
        os.dup2(fd, number)
    _close({door.fileno()})
    for number in SIGNALS[1:4]:
        signal.signal(number, signal.SIG_DFL)
    sys.unraisablehook = sys.__unraisablehook__
    _untrace()
    os.environ.clear()
    os.environ.update(environment)
    folder = os.getcwd()
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for name in [name for name, module in sys.modules.items() if _is_plug_in(name, module, folder)]:
        del sys.modules[name]
    be_zygote(os.dup(door.fileno()), parent, preload)
    return 0


def _untrace() -> None:
    """Drop what looks at every line, as Hypothesis does in a test: a fresh interpreter has none of it."""
    sys.settrace(None)
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    for tool in range(6) if monitoring else ():
        if monitoring.get_tool(tool):
            monitoring.set_events(tool, 0)


def _is_plug_in(name: str, module: object, folder: str) -> bool:
    return name in OURS or str(getattr(module, "__file__", None)).startswith(folder + os.sep)


def _close(kept: set[int]) -> None:
    """Close every descriptor but the standard ones and those."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
