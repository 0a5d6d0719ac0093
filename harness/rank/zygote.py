"""The process that ranks are forked from, with the slow imports already done.

Invariant: it is single-threaded when it forks, holds no GPU state, and dies with the parent; its
ranks die with it. Spawning eight ranks as fresh interpreters takes 16 s on 2 cores (torch and triton
are imported eight times); forking them from one that has imported both takes a fraction of one.

Messages (pickled, over a Unix socket): ("fork", options) with four descriptors in `multiprocessing`
order (connection, lifeline, stdout, stderr) -> pid; ("kill", pids) -> {pid: wait status}.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from multiprocessing import reduction
from multiprocessing.connection import Connection

import msgspec

from harness.ipc.messages import Options
from harness.rank.main import die_with_parent, main

PRELOAD = ("torch", "triton", "triton.language", "harness.rank.server", "harness.substrate.sim.substrate")


def serve(connection: Connection, memory: int) -> None:
    """Fork and reap until the parent closes the connection."""
    children: set[int] = set()
    while True:
        try:
            message = connection.recv()
        except EOFError:
            _kill(children)
            return
        match message:
            case ("fork", options):
                pid = _fork(connection, options, memory)
                children.add(pid)
                connection.send(pid)
            case ("kill", pids):
                connection.send(_kill({*pids} & children))
                children -= {*pids}


def _fork(connection: Connection, options: Options, memory: int) -> int:
    descriptors = [reduction.recv_handle(connection) for _ in range(4)]
    parent = os.getpid()
    pid = os.fork()
    if pid:
        for fd in descriptors:
            os.close(fd)
        return pid
    end, lifeline, out, err = descriptors
    connection.close()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    main(msgspec.structs.replace(options, parent=parent), Connection(end), lifeline, memory)
    return 0  # not reached: `main` ends the process


def _kill(pids: set[int]) -> dict[int, int]:
    """Kill and reap; wait status of each (a rank that was dead already keeps the status it died with)."""
    statuses: dict[int, int] = {}
    for pid in pids:
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        statuses[pid] = status
    return statuses


if __name__ == "__main__":
    socket_fd, memory_fd, parent_pid = (int(word) for word in sys.argv[1:4])
    if parent_pid:
        die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in (*PRELOAD, *sys.argv[4:]):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a rank's own collections need not walk through torch, and pages stay shared
    end = Connection(socket_fd)
    end.send("ready")
    serve(end, memory_fd)
