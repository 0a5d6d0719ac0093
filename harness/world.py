"""The parent side of the world: persistent rank processes that run one draw after another.

Invariant: `run` always answers within the deadline, with every rank's fate and trace. After anything
but a clean end the ranks are killed and replaced before the next draw, so a draw never inherits
another's wreckage.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from harness import interrupts, mps
from harness.crew import Crew, StartMethod
from harness.draw import Draw, Fate, State
from harness.errors import MachineError, PluginError, UsageError
from harness.launcher import RankProcess, death
from harness.layout import Group
from harness.platforms import Platform, choose
from harness.program import Scenario, System
from harness.rendezvous import deadlocked
from harness.shared import REGISTER, SLOTS, SharedMemory
from harness.stacks import take
from harness.trace import Trace

POLL = 0.05
ENDED = "ended"
CALL_DEADLINE = 300.0
GRACE = 0.5
"""Seconds for the other ranks to say what befell them, once one has died or broken."""


class World:
    """Rank processes on one substrate. A context manager; `close` leaves no process and no memory behind.

    `size` is the largest world it can run; smaller ones use the first ranks. `substrate` is `auto`,
    `sim` or `nccl`. `start` is `fork` (from one zygote) or `spawn` (a fresh interpreter a rank). `evidence` names
    kinds of `harness.evidence`; without one of the path, the sharpest there is is taken.
    Raises `MachineError` where the machine cannot do that.
    """

    def __init__(
        self,
        size: int,
        substrate: str = "auto",
        *,
        deadline: float | None = None,
        start: StartMethod = "fork",
        evidence: Sequence[str] = (),
    ) -> None:
        if size < 1:
            raise UsageError(f"a world of {size} ranks is too small")
        platform = choose(substrate, size, evidence)
        self.size, self.deadline = size, deadline or platform.deadline
        self.restarts = 0
        self._slots: dict[Group, int] = {}
        with ExitStack() as undo:
            if platform.ranks_per_gpu > 1:
                served = mps.start()
                undo.callback(served.close)
                platform = platform.on(served)
            self.platform: Platform = platform
            self._shared = SharedMemory.create(size)
            undo.callback(self._shared.close)
            self._crew = Crew(size, platform, self._shared, start)
            undo.callback(self._crew.close)
            try:
                self._crew.muster()
            except OSError as error:
                raise MachineError(f"cannot start {size} rank processes: {error.strerror}") from error
            self._held = undo.pop_all()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the ranks, in rank order."""
        return [rank.pid for rank in self._crew.ranks]

    @property
    def facts(self) -> dict[str, Any]:
        """What the first rank says of itself: versions and features of its substrate."""
        return self._crew.facts

    def close(self) -> None:
        """End every process and release the shared memory. May be called twice."""
        self._held.close()

    def run(self, scenario: Scenario) -> Draw:
        """Execute one scenario. Raises `PluginError` if the system under test raised, `UsageError` if the
        scenario does not fit the world; everything else a rank can do is in the draw's fates."""
        interrupts.check()
        if scenario.world > self.size:
            raise UsageError(f"a scenario of {scenario.world} ranks does not fit a world of {self.size}")
        if self._shared.fd < 0:
            raise UsageError("the world is closed")
        self._place(scenario.topology.node_of)
        self._muster()
        self._crew.announce(scenario.world)
        slots = self._slots_for([tuple(range(scenario.world)), *scenario.groups])
        taking_part = self._crew.ranks[: scenario.world]
        message = ("run", msgspec.msgpack.encode(scenario), slots)
        for index, rank in enumerate(taking_part):
            self._shared.journal(index).clear()
            rank.forget_output()
        began = time.monotonic()
        with self._kill_unless_done():
            for rank in taking_part:
                rank.send(message)
            groups = {slot: group for group, slot in slots.items()}
            fates = self._await(taking_part, groups, began, scenario.system)
        traces = tuple(Trace(index, self._shared.journal(index).read()) for index in range(scenario.world))
        return Draw(scenario, traces, fates, time.monotonic() - began, self.deadline)

    def call(self, function: str, *arguments: Any) -> list[Any]:
        """What `package.module:function(substrate, slots, *arguments)` returns on each rank, in rank order.

        For measurements on a rank. `slots` has one group, the whole world. Collective over its ranks. Raises
        `MachineError` if it raises on a rank or takes longer than five minutes.
        """
        interrupts.check()
        if self._shared.fd < 0:
            raise UsageError("the world is closed")
        self._muster()
        self._crew.announce(self.size)
        slots = self._slots_for([tuple(range(self.size))])
        with self._kill_unless_done():
            for rank in self._crew.ranks:
                rank.send(("call", function, slots, arguments))
            return self._returned(function)

    def _returned(self, function: str) -> list[Any]:
        """Every rank's reply to a call, or the first thing that went wrong."""
        ranks = self._crew.ranks
        waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(ranks)}
        replies: dict[int, Any] = {}
        end = time.monotonic() + CALL_DEADLINE
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                raise MachineError(f"rank {min(waiting.values())} did not return from {function}")
            for connection in ready:
                assert isinstance(connection, Connection)
                index = waiting.pop(connection)
                try:
                    reply = connection.recv()
                except (EOFError, ConnectionError):
                    raise MachineError(f"rank {index} died in {function}: {ranks[index].printed()}") from None
                if reply[0] != "returned":
                    raise MachineError(f"{function} failed on rank {index}: {reply[1]}")
                replies[index] = reply[1]
        return [replies[index] for index in range(len(ranks))]

    def _place(self, node_of: tuple[int, ...]) -> None:
        """Where processes are bound to nodes, have the ranks of a draw on its nodes: if need be all start anew."""
        if not self.platform.node_bound or _same_nodes(self._crew.nodes[: len(node_of)], node_of):
            return
        if self._crew.ranks:
            self._crew.dismiss()
        self._crew.nodes = node_of + (node_of[0],) * (self.size - len(node_of))

    def _muster(self) -> None:
        """Have all ranks; new ones find clean counters."""
        if not self._crew.ranks:
            self._shared.reset()
            self._slots.clear()
        self._crew.muster()

    @contextmanager
    def _kill_unless_done(self) -> Iterator[None]:
        """Whatever interrupts a draw (Ctrl-C, a plug-in's error), its ranks must not run on."""
        try:
            yield
        except BaseException:
            if self._crew.ranks:
                self._drop()
            raise

    def _slots_for(self, groups: Sequence[Group]) -> dict[Group, int]:
        """The row of shared counters of each group. Its registrations count from zero, whatever became of the last
        ones; only while none of these ranks runs."""
        if len(self._slots) + len(groups) > SLOTS:
            self._slots.clear()
            self._shared.reset()
        for group in groups:
            self._slots.setdefault(group, len(self._slots))
            self._shared.counters[self._slots[group], :, REGISTER] = 0
        return {group: self._slots[group] for group in groups}

    def _await(
        self, ranks: list[RankProcess], groups: dict[int, Group], began: float, system: System
    ) -> tuple[Fate, ...]:
        """Wait for every rank, until one dies or breaks, all are stuck, or time is up."""
        waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(ranks)}
        broken: dict[int, str] = {}
        stuck, late = 0, False
        while waiting:
            ready = wait(list(waiting), timeout=GRACE if broken else POLL)
            for connection in ready:
                assert isinstance(connection, Connection)
                index = waiting.pop(connection)
                broken |= _reply(index, connection, system)
            if broken and not ready:
                break  # what the others had to say about it has been said
            stuck = stuck + 1 if not ready and deadlocked(self._shared, groups, [*waiting.values()]) else 0
            late = time.monotonic() - began > self.deadline
            if stuck > 2 or late:  # three looks, 50 ms apart
                break
        if not waiting and not broken:
            return tuple(Fate(index, "finished") for index in range(len(ranks)))
        # ranks that are all stuck have said what they wait for: native frames would tell nothing more
        return self._fates(ranks, broken, native=late and not broken)

    def _fates(self, ranks: list[RankProcess], broken: dict[int, str], native: bool) -> tuple[Fate, ...]:
        """Every rank's end, where not all of them were well, with native frames if asked for. Kills the ranks."""
        everyone = range(len(ranks))
        done = {index for index in everyone if Trace(index, self._shared.journal(index).read()).finished}
        dead = {index for index in everyone if index not in done and ranks[index].is_dead(broken.get(index) == ENDED)}
        left = {index: ranks[index] for index in everyone if index not in done | dead | broken.keys()}
        stacks = take(left, native)
        printed = [rank.printed() for rank in ranks]
        statuses = self._drop()
        fates = []
        for index in everyone:
            if index in dead:
                fates.append(Fate(index, "crashed", f"{death(statuses[index])}\n{printed[index]}".strip()))
            elif index in done:
                fates.append(Fate(index, "finished"))
            elif index in broken and not dead:  # next to a death, a broken rank is a consequence
                fates.append(Fate(index, "crashed", broken[index]))
            else:
                state: State = "stopped" if dead or broken else "hung"
                fates.append(Fate(index, state, "", *stacks.get(index, ())))
        return tuple(fates)

    def _drop(self) -> list[int]:
        """Kill every rank; the next draw starts new ones. Returns wait statuses in rank order."""
        self.restarts += 1
        return self._crew.dismiss()


def _same_nodes(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two placements put the same ranks together, whatever the nodes are called."""
    return [one.index(node) for node in one] == [other.index(node) for node in other]


def _place(text: str) -> str:
    """Where a traceback's first exception was raised, in brackets."""
    first, *_ = text.split("\n\nThe above exception was")
    frames = re.findall(r'File "(?:[^"]*/)?([^"/]+)", line (\d+), in (\S+)', first)
    return " (in {2}, {0}:{1})".format(*frames[-1]) if frames else ""


def _reply(index: int, connection: Connection, system: System) -> dict[int, str]:
    """Nothing for a rank that is done, what broke for one that is not. Raises what is wrong with the request."""
    try:
        reply = connection.recv()
    except (EOFError, ConnectionError):
        return {index: ENDED}
    match reply:
        case ("broken", words):
            return {index: words}
        case ("raised", where, error, text):
            name = system.pool if where == "pool" else system.collectives
            raise PluginError(f"{where} {name!r} raised on rank {index}: {error}{_place(text)}") from RuntimeError(text)
        case ("refused", error):
            raise PluginError(error)
        case ("failed", error, text):
            raise MachineError(f"rank {index} failed: {error}") from RuntimeError(text)
    return {}
