"""The process that ranks are forked from, with the slow imports already done.

Invariant: it is single-threaded when it forks, holds no GPU state, and dies with the parent; its
ranks die with it. What a system under test has started in a rank ends after that rank.
Spawning eight ranks as fresh interpreters takes 16 s on 2 cores (torch and triton
are imported eight times); forking them from one that has imported both takes a fraction of one.

It serves several worlds. Each has a line of its own, which comes through the door together with the world's memory.
A line that closes ends the ranks of its world and of no other.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, wait

import msgspec

from harness.ipc import packets
from harness.ipc.messages import Fork, Forked, Kill, Killed, RankConfig, Serve, Serving
from harness.rank.main import die_with_parent, main
from harness.rank.state import children

PRELOAD = ("torch", "triton", "triton.language", "harness.rank.server", "harness.substrate.sim.substrate")
_serve: msgspec.msgpack.Decoder[Serve] = msgspec.msgpack.Decoder(Serve)
_request: msgspec.msgpack.Decoder[Fork | Kill] = msgspec.msgpack.Decoder(Fork | Kill)


class ServedWorld:
    """One world as its zygote sees it: its line, its memory, and its ranks."""

    def __init__(self, line: socket.socket, memory: Sequence[int]) -> None:
        self.line, self.memory = line, memory
        self.ranks: set[int] = set()

    def close(self) -> None:
        """Let go of the descriptors."""
        self.line.close()
        for fd in self.memory:
            os.close(fd)


class Zygote:
    """Forks and reaps for every world whose line is open."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._worlds: dict[socket.socket, ServedWorld] = {}

    def serve(self) -> None:
        """Serve until the parent closes the door; then every rank is killed."""
        while self._door.fileno() >= 0:
            ready = wait([self._door, *self._worlds])
            for line in self._worlds.keys() & {*ready}:
                self._answer(self._worlds[line])
            if self._door in ready:
                self._open()

    def _open(self) -> None:
        """Take in one more world, or leave where the parent has gone."""
        try:
            _, (line, *memory) = packets.receive(self._door, _serve)
        except EOFError:
            for world in [*self._worlds.values()]:
                self._end(world)
            self._door.close()
            return
        world = ServedWorld(socket.socket(fileno=line), memory)
        self._worlds[world.line] = world
        self._reply(world, Serving())

    def _answer(self, world: ServedWorld) -> None:
        """Carry out the next request of a world, or end it where its line has closed."""
        try:
            request, descriptors = packets.receive(world.line, _request)
        except EOFError:
            self._end(world)
            return
        match request:
            case Fork(config):
                self._reply(world, Forked(self._fork(world, config, descriptors)))
            case Kill(pids):
                killed = world.ranks & {*pids}
                world.ranks -= killed
                statuses = kill(killed)
                self._end_orphans()
                self._reply(world, Killed(statuses))

    def _reply(self, world: ServedWorld, message: msgspec.Struct) -> None:
        try:
            packets.send(world.line, message)
        except OSError:  # closed while it waited, as after Ctrl-C
            self._end(world)

    def _end(self, world: ServedWorld) -> None:
        """Kill the ranks of a world and forget it."""
        del self._worlds[world.line]
        kill(world.ranks)
        self._end_orphans()
        world.close()

    def _end_orphans(self) -> None:
        """Kill what dead ranks had started: it falls to this process, which has no children but ranks."""
        children.end(spared={pid for world in self._worlds.values() for pid in world.ranks})

    def _fork(self, world: ServedWorld, config: RankConfig, descriptors: list[int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_rank(world, config, descriptors, parent)
        for fd in descriptors:
            os.close(fd)
        world.ranks.add(pid)
        return pid

    def _become_rank(self, world: ServedWorld, config: RankConfig, descriptors: list[int], parent: int) -> None:
        """In the child: keep what is this rank's alone, and serve. Never returns."""
        # a descriptor that a rank keeps holds another world's line open, and its memory with it
        self._door.close()
        for other in self._worlds.values():
            other.line.close()
            if other is not world:
                for fd in other.memory:
                    os.close(fd)
        end, lifeline, out, err = descriptors
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        main(config, Connection(end), lifeline, world.memory, parent)


def kill(pids: Collection[int]) -> dict[int, int]:
    """Kill and reap; wait status of each. A rank that was dead already keeps the status it died with."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # a pid is free for others only once it is reaped, and a zombie ignores signals
    return {pid: os.waitpid(pid, 0)[1] for pid in pids}


def be_zygote(door: int, parent: int, preload: Sequence[str]) -> None:
    """Import what ranks need, and serve until the parent has gone. `parent` is 0 where the door alone says so."""
    if parent:
        die_with_parent(parent)
    children.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a plug-in that is imported in the parent may have it ignored, and then no rank that ends could be waited for
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name in (*PRELOAD, *preload):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a rank's own collections need not walk through torch, and pages stay shared
    Zygote(socket.socket(fileno=door)).serve()


if __name__ == "__main__":
    be_zygote(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
