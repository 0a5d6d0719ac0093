"""The child side of the world: one rank's process, from its first message to its last.

Invariant: a rank never outlives its parent. `PR_SET_PDEATHSIG` ends it with the process that forked
it (which itself ends with the parent), and a lifeline thread ends it when the parent's end of a pipe
closes, should the signal have been missed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Options

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent thread dies, and check that it has not already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def hold_lifeline(fd: int) -> None:
    """End this process as soon as the other end of `fd` closes."""

    def watch() -> None:
        while os.read(fd, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def main(options: Options, connection: Connection, lifeline: int, memory: int) -> None:
    """Serve draws until the parent closes the connection. Never returns."""
    die_with_parent(options.parent)
    hold_lifeline(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    os.environ.update(options.environment)
    status = 0
    try:
        _serve(options, connection, memory)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(options: Options, connection: Connection, memory: int) -> None:
    import torch  # noqa: PLC0415  (already loaded by the zygote)

    from harness.rank.server import Server  # noqa: PLC0415

    torch.set_num_threads(1)
    gc.disable()  # see harness.rank.executor
    server = Server(options, SharedMemory(memory, options.processes))
    connection.send(("ready", server.describe()))
    while True:
        message: tuple[Any, ...] = connection.recv()
        connection.send(server.answer(message))
