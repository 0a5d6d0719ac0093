"""Runs a program under the observer, and passes on how it ends.

Invariant: the program decides how it ends. A signal to this process reaches it, and then nothing of it is left when
this returns, not even workers whose launcher has gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import interrupts
from harness.errors import UsageError
from harness.machine.inherited import inherited
from harness.machine.observer.build import OUT
from harness.machine.observer.records import SUFFIX
from harness.studies.watching.alive import started_under

GRACE = 10.0
"""Seconds that a program has to end after a signal."""


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    look: Callable[[], None],
    every: float | None,
    interrupted: Callable[[], None],
) -> int:
    """Run a command to its end, and call `look` every so many seconds. Returns its exit status, 128 and more for a
    signal. Raises `UsageError` where it cannot be started, and `KeyboardInterrupt` after a signal to this process, once
    the program is gone; `interrupted` is called while it is still there."""
    try:
        process = subprocess.Popen(command, env=inherited(environment))
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error.strerror or error}") from error
    with _ended(process, environment[OUT]):
        try:
            return _waited(process, look, every)
        except KeyboardInterrupt:
            interrupted()
            raise


def _waited(process: subprocess.Popen[bytes], look: Callable[[], None], every: float | None) -> int:
    while True:
        try:
            status = process.wait(every)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            look()


@contextmanager
def _ended(process: subprocess.Popen[bytes], folder: str) -> Iterator[None]:
    """Leave no program behind that is interrupted: it has some seconds after a signal, and is killed then."""
    try:
        yield
    except BaseException:
        with interrupts.held():
            for number in _signals():
                with suppress(ProcessLookupError):
                    process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            _end_others(folder)
        raise


def _end_others(folder: str) -> None:
    """End what the program had started and did not end itself, as a launcher that was a script."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in started_under(folder):
            with suppress(OSError):
                os.kill(process, number)
        end = time.monotonic() + GRACE
        while any(started_under(folder)) and time.monotonic() < end:
            time.sleep(0.05)


def _signals() -> Iterator[int]:
    """What a program gets that is still there, one after the other."""
    # Ctrl-C in a terminal reaches the program, too. A second one would end a launcher before its workers.
    yield 0 if interrupts.has_come() and interrupts.status() == interrupts.STATUS else signal.SIGTERM
    yield signal.SIGTERM
    yield signal.SIGKILL


def free_folder(folder: Path) -> Path:
    """A folder for what processes write. Raises `UsageError` where it holds files of another run, or cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror or error}") from error
    if any(folder.glob(f"*{SUFFIX}")):
        raise UsageError(f"{folder} holds what another run wrote; name another folder, or remove it")
    return folder
