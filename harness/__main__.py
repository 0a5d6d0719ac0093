"""`symm`, and `python -m harness`: the command line, on firm ground from the first moment on.

Invariant: before anything slow is imported, Ctrl-C has a meaning, and the three standard descriptors are open: one that
a shell has closed would be given to shared memory or to a pipe, and written over.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from harness import interrupts


def main() -> None:
    """Entry point. Exit statuses are those of `harness.cli.main`."""
    interrupts.leave_at_once()
    _open_what_is_closed()
    try:
        os.getcwd()  # where plug-ins are looked for and seed files are kept
    except FileNotFoundError:
        sys.stderr.write("symm: the working directory is not there any more\n")
        sys.exit(2)
    from harness.cli import main as cli  # noqa: PLC0415  (half a second)

    try:
        cli.main()
    except SystemExit as ended:
        _leave_threads(ended.code)
        raise


def _leave_threads(status: object) -> None:
    """End at once where a plug-in has started threads: Python would wait for them, for ever if they do not end."""
    if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0)


def _open_what_is_closed() -> None:
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if __name__ == "__main__":
    main()
