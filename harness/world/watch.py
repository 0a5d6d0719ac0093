"""One draw under way, as the parent sees it: who has answered, who can go on, and every rank's end.

Invariant: a wait ends within the deadline, and whatever ended it, each rank has a fate. Where not all of them were
well, they are killed before their fates are told.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from harness.errors import MachineError, PluginError
from harness.ipc.memory import SharedMemory
from harness.ipc.rendezvous import deadlocked
from harness.scenario.layout import Group
from harness.scenario.system import System
from harness.trace.draw import Fate, State
from harness.trace.trace import Trace
from harness.world.launcher import RankProcess, death
from harness.world.silence import Silence
from harness.world.stacks import take

POLL = 0.05
LOOKS = 3
"""So many times, one after another, ranks have to be found stuck."""
ENDED = "ended"
GRACE = 0.5
"""Seconds for the other ranks to say what befell them, once one has died or broken."""


class Watch:
    """Waits for `ranks`, which have been told to run a draw of these `groups`, by the slot of each.

    They have `deadline` seconds from now, and are stuck before that once they have all been silent for `patience`.
    """

    def __init__(
        self,
        ranks: Sequence[RankProcess],
        shared: SharedMemory,
        groups: dict[int, Group],
        deadline: float,
        patience: float = math.inf,
    ) -> None:
        self._ranks, self._shared, self._groups = ranks, shared, groups
        self._end, self._patience = time.monotonic() + deadline, patience
        self._silence = Silence([shared.journal(index) for index in range(len(ranks))])
        self.is_presumed = False
        """Whether the ranks are taken for stuck by their silence alone."""
        self._broken: dict[int, str] = {}
        """Of ranks that have broken or ended, in what words."""

    @property
    def longest_silence(self) -> float:
        """Seconds for which no rank recorded anything, at the longest."""
        return self._silence.longest

    def wait(self, system: System, kill: Callable[[], list[int]]) -> tuple[Fate, ...]:
        """Every rank's end. `kill` ends them all and returns their wait statuses. Raises what is wrong with the
        request, which `system` is part of; then they still run."""
        waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(self._ranks)}
        stuck, late = 0, False
        while waiting:
            ready = wait(list(waiting), timeout=GRACE if self._broken else POLL)
            for connection in ready:
                assert isinstance(connection, Connection)
                index = waiting.pop(connection)
                self._broken |= _reply(index, connection, system)
            if self._broken and not ready:
                break  # what the others had to say about it has been said
            stuck = stuck + 1 if not ready and deadlocked(self._shared, self._groups, [*waiting.values()]) else 0
            late = time.monotonic() > self._end
            self.is_presumed = self._silence.look() > self._patience and not late and not self._broken
            if stuck >= LOOKS or late or self.is_presumed:
                break
        if not waiting and not self._broken:
            return tuple(Fate(index, "finished") for index in range(len(self._ranks)))
        # ranks that are all stuck have said what they wait for, and a presumption is no report: native frames take time
        return self._fates(kill, native=late and not self._broken)

    def _fates(self, kill: Callable[[], list[int]], native: bool) -> tuple[Fate, ...]:
        """Every rank's end, where not all of them were well, with native frames if asked for."""
        ranks, broken, everyone = self._ranks, self._broken, range(len(self._ranks))
        done = {index for index in everyone if Trace(index, self._shared.journal(index).read()).has_finished}
        dead = {index for index in everyone if index not in done and ranks[index].is_dead(broken.get(index) == ENDED)}
        left = {index: ranks[index] for index in everyone if index not in done | dead | broken.keys()}
        stacks = take(left, native)
        printed = [rank.printed() for rank in ranks]
        statuses = kill()
        fates = []
        for index in everyone:
            if index in dead:
                fates.append(Fate(index, "crashed", f"{death(statuses[index])}\n{printed[index]}".strip()))
            elif index in done:
                fates.append(Fate(index, "finished"))
            elif index in broken and not dead:  # next to a death, a broken rank is a consequence
                fates.append(Fate(index, "crashed", f"{broken[index]}\n{printed[index]}".strip()))
            else:
                state: State = "stopped" if dead or broken else "hung"
                fates.append(Fate(index, state, "", *stacks.get(index, ())))
        return tuple(fates)


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
