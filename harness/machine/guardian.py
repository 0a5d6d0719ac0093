"""The process that guards a private MPS daemon: it starts the daemon, and ends it after whoever uses it.

Invariant: once this process has ended, the daemon, its servers and its folder are gone, however its parent ended. Only
the parent holds the other end of stdin, and Linux closes that end with the parent's process, also after SIGKILL.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from pathlib import Path

from harness.clock import CLOCK, Clock
from harness.machine import daemon

READY = "ready"
"""The line with which a guardian reports that the daemon answers; any other line is what went wrong."""


def guard(folder: Path, stop: int, clock: Clock = CLOCK) -> None:
    """Start a daemon, report on stdout, and end it when stdin or `stop` has something to read or is closed."""
    environment = dict(os.environ)
    for name in (daemon.PIPES, daemon.LOGS):
        Path(environment[name]).mkdir()
    before = daemon.running()
    try:
        failed = daemon.launch(environment, clock)
        sys.stdout.write(f"{failed or READY}\n")
        sys.stdout.flush()
        if not failed:
            select.select([0, stop], [], [])
    finally:
        servers = daemon.servers(environment)  # known to the daemon alone, and only until it quits
        daemon.ask("quit", environment)
        daemon.end([pid for pid in daemon.running() - before if daemon.serves(pid, folder)] + servers, clock)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # SIGTERM may come at any time and must not break off the end; a wake-up descriptor makes it one more input of the
    # wait, as `select` restarts after a handler that raises nothing (PEP 475)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda *_: None)
    guard(Path(sys.argv[1]), reading)
