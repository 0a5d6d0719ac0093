"""The parent side of the world: persistent rank processes that run one draw after another.

Invariant: `run` always answers within the deadline, with every rank's fate and trace. After anything
but a clean end the ranks are killed and replaced before the next draw, so a draw never inherits
another's wreckage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import msgspec

from harness.draw import Draw, Fate, State
from harness.errors import MachineError, PluginError, UsageError
from harness.launcher import Launcher, RankProcess, death
from harness.layout import Group
from harness.options import Options
from harness.platforms import Platform, choose
from harness.program import Scenario, System
from harness.rendezvous import deadlocked
from harness.shared import SLOTS, SharedMemory
from harness.trace import Trace

POLL = 0.05
ENDED = "ended"
GRACE = 0.5
"""Seconds for the other ranks to say what befell them, once one has died or broken."""
START_DEADLINE = 120.0


class _Died(MachineError):
    """A rank was gone when it should have answered."""


class World:
    """Rank processes on one substrate. A context manager; `close` leaves no process and no memory behind.

    `size` is the largest world it can run; smaller ones use the first ranks. `substrate` is `auto`,
    `sim` or `nccl`. `start` is `fork` (from one zygote) or `spawn` (a fresh interpreter a rank).
    Raises `MachineError` where the machine cannot do that.
    """

    def __init__(
        self,
        size: int,
        substrate: str = "auto",
        *,
        deadline: float | None = None,
        start: Literal["fork", "spawn"] = "fork",
    ) -> None:
        if size < 1:
            raise UsageError(f"a world of {size} ranks is too small")
        self.platform: Platform = choose(substrate, size)
        self.size, self.deadline = size, deadline or self.platform.deadline
        self.restarts = 0
        self.facts: dict[str, Any] = {}
        self._slots: dict[Group, int] = {}
        self._sizes: set[int] = set()
        self._ranks: list[RankProcess] = []
        self._shared = SharedMemory.create(size)
        self._launchers: list[Launcher] = []
        self._start_method = start
        try:
            self._launch()
            self._start()
        except OSError as error:
            self.close()
            raise MachineError(f"cannot start {size} rank processes: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the ranks, in rank order."""
        return [rank.pid for rank in self._ranks]

    def close(self) -> None:
        """End every process and release the shared memory. May be called twice."""
        for launcher in self._launchers:
            launcher.close()
        for rank in self._ranks:
            rank.close()
        self._launchers, self._ranks = [], []
        if self._shared.fd >= 0:
            self._shared.close()

    def run(self, scenario: Scenario) -> Draw:
        """Execute one scenario. Raises `PluginError` if the system under test raised, `UsageError` if the
        scenario does not fit the world; everything else a rank can do is in the draw's fates."""
        if scenario.world > self.size:
            raise UsageError(f"a scenario of {scenario.world} ranks does not fit a world of {self.size}")
        if self._shared.fd < 0:
            raise UsageError("the world is closed")
        if not self._launchers:
            self._launch()
        if not self._ranks:
            self._start()
        self._announce(scenario.world)
        slots = self._slots_for(scenario)
        taking_part = self._ranks[: scenario.world]
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
        if any(fate.state != "finished" for fate in fates):
            self._drop()
        return Draw(scenario, traces, fates, time.monotonic() - began, self.deadline)

    @contextmanager
    def _kill_unless_done(self) -> Iterator[None]:
        """Whatever interrupts a draw (Ctrl-C, a plug-in's error), its ranks must not run on."""
        try:
            yield
        except BaseException:
            if self._ranks:
                self._drop()
            raise

    def _launch(self) -> None:
        """Start what ranks are forked from, and wait until it has imported what they need."""
        for _ in range(1 if self._start_method == "fork" else self.size):
            self._launchers.append(Launcher(self._shared, self.platform.environment, self.platform.preload))
        for launcher in self._launchers:
            launcher.wait_ready()

    def _start(self) -> None:
        self._shared.reset()
        self._slots.clear()
        self._sizes.clear()
        for index in range(self.size):
            launcher = self._launchers[index % len(self._launchers)]
            options = Options(
                rank=index,
                processes=self.size,
                substrate=self.platform.name,
                gpu=self.platform.gpu_of(index),
                environment=self.platform.rank_environment(index),
                parent=0,
            )
            self._ranks.append(launcher.start(options))
        replies = self._collect(self._ranks)
        self.facts = replies[0][1]
        token = self.facts.pop("token", None)
        if token is not None:
            for rank in self._ranks:
                rank.send(("join", token))
            self._collect(self._ranks)

    def _announce(self, size: int) -> None:
        """Tell the ranks that will idle of a new world size; those of the draw learn it with the draw."""
        if size in self._sizes:
            return
        for rank in self._ranks:
            rank.send(("world", size))
        with suppress(_Died):  # the draw finds the dead rank, and tells of its end
            self._collect(self._ranks)
            self._sizes.add(size)

    def _collect(self, ranks: list[RankProcess]) -> list[tuple[Any, ...]]:
        """One reply from each rank outside a draw. Raises `_Died` if one is gone, `MachineError` if one fails."""
        replies = []
        end = time.monotonic() + START_DEADLINE
        for index, rank in enumerate(ranks):
            try:
                if not rank.connection.poll(max(0.0, end - time.monotonic())):
                    self._drop()
                    raise MachineError(f"rank {index} did not start within {START_DEADLINE:.0f} s")
                replies.append(rank.connection.recv())
            except (EOFError, ConnectionError):
                words = rank.printed().splitlines() or ["no message"]
                raise _Died(f"rank {index} died while starting: {words[-1]}") from None
            if replies[-1][0] in ("failed", "refused", "broken"):
                self._drop()
                raise MachineError(f"rank {index} cannot start: {replies[-1][1]}")
        return replies

    def _slots_for(self, scenario: Scenario) -> dict[Group, int]:
        """The row of shared counters of each group, the whole world among them."""
        groups = [tuple(range(scenario.world)), *scenario.groups]
        if len(self._slots) + len(groups) > SLOTS:
            self._slots.clear()
            self._shared.reset()
        for group in groups:
            self._slots.setdefault(group, len(self._slots))
        return {group: self._slots[group] for group in groups}

    def _await(
        self, ranks: list[RankProcess], groups: dict[int, Group], began: float, system: System
    ) -> tuple[Fate, ...]:
        """Wait for every rank, until one dies or breaks, all are stuck, or time is up."""
        waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(ranks)}
        broken: dict[int, str] = {}
        stuck = 0
        while waiting:
            ready = wait(list(waiting), timeout=GRACE if broken else POLL)
            for connection in ready:
                assert isinstance(connection, Connection)
                index = waiting.pop(connection)
                broken |= _reply(index, connection, system)
            if broken and not ready:
                break  # what the others had to say about it has been said
            stuck = stuck + 1 if not ready and deadlocked(self._shared, groups, [*waiting.values()]) else 0
            if stuck > 2 or time.monotonic() - began > self.deadline:  # three looks, 50 ms apart
                break
        if not waiting and not broken:
            return tuple(Fate(index, "finished") for index in range(len(ranks)))
        return self._fates(ranks, broken)

    def _fates(self, ranks: list[RankProcess], broken: dict[int, str]) -> tuple[Fate, ...]:
        """Every rank's end, where not all of them were well. Kills the ranks."""
        everyone = range(len(ranks))
        done = {index for index in everyone if Trace(index, self._shared.journal(index).read()).finished}
        dead = {index for index in everyone if index not in done and ranks[index].is_dead(broken.get(index) == ENDED)}
        stacks = {index: ranks[index].stack() for index in everyone if index not in done | dead | broken.keys()}
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
                fates.append(Fate(index, state, stack=stacks.get(index, "")))
        return tuple(fates)

    def _drop(self) -> list[int]:
        """Kill every rank; the next draw starts new ones. Returns wait statuses in rank order."""
        statuses: dict[int, int] = {}
        ranks, self._ranks = self._ranks, []
        self.restarts += 1
        try:
            for launcher in self._launchers:
                statuses |= launcher.kill([rank.pid for rank in ranks if rank.launcher is launcher])
        except MachineError:
            for launcher in self._launchers:
                launcher.close()
            self._launchers = []
            raise
        finally:
            for rank in ranks:
                rank.close()
        return [statuses.get(rank.pid, 0) for rank in ranks]


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
            raise PluginError(f"{where} {name!r} raised on rank {index}: {error}") from RuntimeError(text)
        case ("refused", error):
            raise PluginError(error)
        case ("failed", error, text):
            raise MachineError(f"rank {index} failed: {error}") from RuntimeError(text)
    return {}
