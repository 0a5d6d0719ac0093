"""Runs a program under the observer, and passes on how it ends.

Invariant: the program decides how it ends. A signal to this process reaches it, and nothing of it is left when this
returns.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import interrupts
from harness.errors import UsageError

GRACE = 10.0
"""Seconds that a program has to end after a signal."""


def run(command: Sequence[str], environment: Mapping[str, str], look: Callable[[], None], every: float | None) -> int:
    """Run a command to its end, and call `look` every so many seconds. Returns its exit status, 128 and more for a
    signal. Raises `UsageError` where it cannot be started, and `KeyboardInterrupt` after a signal to this process, once
    the program is gone."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error.strerror or error}") from error
    with _ended(process):
        while True:
            try:
                status = process.wait(every)
                return status if status >= 0 else 128 - status
            except subprocess.TimeoutExpired:
                look()


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no program behind: it has some seconds after a signal, and is killed then."""
    try:
        yield
    finally:
        with interrupts.held():
            for number in _signals():
                with suppress(ProcessLookupError):
                    process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)


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
    if any(folder.glob("*.symm")):
        raise UsageError(f"{folder} holds what another run wrote; name another folder, or remove it")
    return folder
