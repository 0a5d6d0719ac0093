"""The child side of the world: one rank's process, from its first message to its last.

Invariant: a rank never outlives its parent. `PR_SET_PDEATHSIG` ends it with the process that forked
it (which itself ends with the parent), and a lifeline thread ends it when the parent's end of a pipe
closes, should the signal have been missed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

from harness.ipc.memory import SharedMemory
from harness.ipc.messages import RankConfig, Ready, Request
from harness.rank.state.children import adopt_orphans

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent thread dies, and check that it has not already."""
    # PR_SET_PDEATHSIG fires with the thread that forked, not its process (prctl(2)); a zygote has one thread
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call, and the signal will not come
        os._exit(1)


def hold_lifeline(fd: int) -> None:
    """End this process as soon as the other end of `fd` closes."""

    def watch() -> None:
        while os.read(fd, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def main(config: RankConfig, connection: Connection, lifeline: int, memory: Sequence[int], parent: int) -> None:
    """Serve draws until the parent closes the connection. `parent` forked this process. Never returns."""
    die_with_parent(parent)
    adopt_orphans()
    hold_lifeline(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    os.environ.update(config.environment)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # the parent looks at any time, and a rank may be killed
    status = 0
    try:
        _serve(config, connection, memory)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(config: RankConfig, connection: Connection, memory: Sequence[int]) -> None:
    import torch  # noqa: PLC0415  (already loaded by the zygote)

    from harness.rank.server import Server, make_substrate  # noqa: PLC0415
    from harness.system.loading import stay  # noqa: PLC0415

    torch.set_num_threads(1)
    stay()
    gc.disable()  # see harness.rank.executor
    shared = SharedMemory(memory[0], config.processes, *memory[1:])
    server = Server(config.rank, shared, make_substrate(config, shared), connection)
    gc.freeze()  # so that a rank's own collections need not walk through its fingerprint
    connection.send(Ready(server.describe()))
    while True:
        request: Request = connection.recv()
        connection.send(server.answer(request))
