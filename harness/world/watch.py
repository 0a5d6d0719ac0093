"""One draw under way, as the parent sees it: which ranks have answered, which can go on, and every rank's end.

Here it is decided that a rank hangs: by the deadline, by proof that no rank can go on, or by silence (`silence`).
Invariant: a wait ends within three times the deadline, and at the deadline where nothing moves. The time does not count
in which the watch itself was stopped, or a user debugs a rank. Whatever ended the wait, each rank has a fate. Where not
all of them were well, they are killed before their fates are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from harness.clock import CLOCK, Clock
from harness.errors import MachineError, PluginError
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Asks, Broken, Change, Done, Failed, Line, Raised, Refused, Reply, Said
from harness.ipc.rendezvous import deadlocked
from harness.ipc.turns import is_stuck as is_stuck_by_schedule
from harness.scenario.layouts.groups import Group
from harness.trace.draw import Fate, State
from harness.trace.raising import Raising
from harness.trace.trace import Trace
from harness.world.rank_process import RankProcess, death
from harness.world.silence import Silence
from harness.world.stacks import Stack, take

POLL = 0.05
PAUSE = 2.0
"""Seconds between two looks that do not count: whoever looks was stopped, and may be the ranks with it."""
LOOKS = 3
"""So many times, one after another, ranks have to be found stuck."""
STILL, LONGEST = 0.25, 3.0
"""Parts of the deadline. Ranks that have written nothing for the first of them hang when it passes. Others are slow, as
on a busy machine, and have the second in all."""
ENDED = "ended"
GRACE = 0.5
"""Seconds for the other ranks to report their own failures, once one has died, broken or raised."""

Wait = Callable[[Iterable[Any], float], Sequence[Any]]
"""As `multiprocessing.connection.wait`: those of the connections that can be read, after some seconds at most."""
Standing = Literal["finished", "raised", "dead", "broken", "unfinished"]
"""How a rank stands when the wait is over."""


class Debugger(NamedTuple):
    """How the user debugs one rank: text is shown by `say`, and `ask` waits for a line of theirs."""

    rank: int
    say: Callable[[str], None]
    ask: Callable[[], str]


class Elsewhere(Protocol):
    """Hosts that have some of the ranks, and tell late of them."""

    def settle(self) -> None:
        """Have here what every host knows. Raises `MachineError` where one is lost."""

    def take(self, ranks: Mapping[int, RankProcess], native: bool) -> dict[int, Stack]:
        """The stacks of ranks, as `stacks.take` gives them."""


class DrawWatch:
    """Waits for `ranks`, which are running a draw of these `groups`, by the slot of each.

    They have `deadline` seconds from now, or up to `LONGEST` times that while any of them still writes. They are stuck
    before that once they have all been silent for `patience`.
    """

    def __init__(
        self,
        ranks: Sequence[RankProcess],
        shared: SharedMemory,
        groups: dict[int, Group],
        deadline: float,
        patience: float = math.inf,
        *,
        clock: Clock = CLOCK,
        wait: Wait = wait,
        debugger: Debugger | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._ranks, self._shared, self._groups, self._elsewhere = ranks, shared, groups, elsewhere
        self._clock, self._wait = clock, wait
        self._end, self._patience = clock.now() + deadline, patience
        self._still, self._last = STILL * deadline, clock.now() + LONGEST * deadline
        self._looked = clock.now()
        self._silence = Silence([shared.journal(index) for index in range(len(ranks))], clock)
        self.is_presumed = False
        """Whether the ranks are taken for stuck by their silence alone."""
        self.changes: dict[int, tuple[Change, ...]] = {}
        """What the draw leaves to the next in the processes of ranks, by rank."""
        self.unread: list[int] = []
        """Ranks that had ended before they took the request, so not in this draw."""
        self._is_late = False
        self._times_stuck = 0
        self._waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(ranks)}
        self._broken: dict[int, str] = {}
        """Of ranks that have broken or ended, how."""
        self._raised: dict[int, Raising] = {}
        """What the system under test raised, by rank."""
        self._debugger, self._is_debugged = debugger, False

    @property
    def longest_silence(self) -> float:
        """Seconds for which no rank recorded anything, at the longest."""
        return self._silence.longest

    def wait(self, kill: Callable[[], list[int]]) -> tuple[Fate, ...]:
        """Every rank's end. `kill` ends them all and returns their wait statuses. Raises an error of the request; then
        they still run."""
        while self._waiting:
            ready = self._wait([*self._waiting], GRACE if self._broken else POLL)
            for connection in ready:
                self._hear(connection)
            if self._is_over(is_quiet=not ready):
                break
        if not self._waiting and not self._has_failed:
            return tuple(Fate(index, "finished", printed=rank.printed()) for index, rank in enumerate(self._ranks))
        # native frames take time: ranks that are all stuck have written down what they wait for, a presumption is no
        # report, and of ranks that broke or raised the reason is known
        return self._fates(kill, native=self._is_late and not self._has_failed)

    @property
    def _has_failed(self) -> bool:
        """Whether a rank has ended by itself, so that its peers may wait for it."""
        return bool(self._broken or self._raised)

    def _hear(self, connection: Connection) -> None:
        """Take the reply of one rank, or let its debugger talk."""
        index = self._waiting[connection]
        reply: Reply | None
        try:
            reply = self._ranks[index].receive()
        except (EOFError, ConnectionError) as ended:
            reply = Broken(ENDED)
            # Linux says so where a process closed its end with something in it that it had not read (unix(7))
            self.unread += [index] if isinstance(ended, ConnectionResetError) else []
        if reply is None:  # a part of one
            return
        if isinstance(reply, Said | Asks):
            self._talk(self._ranks[index], reply)
            return
        del self._waiting[connection]
        self._is_debugged = self._is_debugged and index != self._debugged
        if isinstance(reply, Done | Raised):
            self.changes |= {index: reply.changes} if reply.changes else {}
        match _failure(index, reply):
            case Raising() as raising:
                self._raised[index] = raising
                self._end = min(self._end, self._clock.now() + GRACE)  # unless the others are stuck before that
            case str(broken) if broken:
                self._broken[index] = broken

    @property
    def _debugged(self) -> int | None:
        return self._debugger.rank if self._debugger else None

    def _talk(self, rank: RankProcess, message: Said | Asks) -> None:
        """Carry a debugger's words to the user, or the user's to the debugger. They have all the time they want."""
        assert self._debugger is not None
        self._is_debugged, self._end = True, math.inf
        match message:
            case Said(text):
                self._debugger.say(text)
            case Asks():
                rank.send(Line(self._debugger.ask()))

    def _is_over(self, *, is_quiet: bool) -> bool:
        """Whether no more is to be expected of the ranks that have not answered. `is_quiet`: none has, this time."""
        if self._is_debugged:
            self._looked = self._clock.now()  # the time that the user took is no pause
            return False
        if self._broken and is_quiet:
            return True  # the others have had their time to report what became of them
        self._look_for_deadlock(is_quiet)
        silent = self._silence.look() > self._patience
        self._is_late = self._is_past_the_end()
        self.is_presumed = silent and not self._is_late and not self._has_failed
        is_stuck = self._times_stuck >= LOOKS or is_stuck_by_schedule(self._shared.baton)
        return is_stuck or self._is_late or self.is_presumed

    def _is_past_the_end(self) -> bool:
        """Whether the time is up: at once where a rank has failed, else once nothing moves any more."""
        now = self._clock.now()
        if (pause := now - self._looked) > PAUSE:
            self._end, self._last = self._end + pause, self._last + pause
        self._looked = now
        has_stopped = self._has_failed or self._silence.stillness >= self._still or now > self._last
        return now > self._end and has_stopped

    def _look_for_deadlock(self, is_quiet: bool) -> None:
        """Count the looks that found all of them stuck, one after another: a single look may fall between two writes
        of a rank that goes on, as the counters are read without a lock."""
        waiting = [*self._waiting.values()]
        is_stuck = is_quiet and deadlocked(self._shared, self._groups, waiting)
        if is_stuck and self._elsewhere is not None:  # what would free them may be on its way
            self._elsewhere.settle()
            is_stuck = deadlocked(self._shared, self._groups, waiting)
        self._times_stuck = self._times_stuck + 1 if is_stuck else 0

    def _fates(self, kill: Callable[[], list[int]], native: bool) -> tuple[Fate, ...]:
        """Every rank's end, where not all of them were well, with native frames if asked for."""
        standings = [self._standing(index) for index in range(len(self._ranks))]
        unfinished = {index: self._ranks[index] for index, how in enumerate(standings) if how == "unfinished"}
        # in this order: a stack is written behind the output, and both go with the process
        printed = [rank.printed() for rank in self._ranks]
        stacks = self._take(unfinished, native)
        statuses = kill()
        fates = (self._fate(index, standings, stacks.get(index), statuses[index]) for index in range(len(self._ranks)))
        return tuple(msgspec.structs.replace(fate, printed=printed[fate.rank]) for fate in fates)

    def _take(self, ranks: Mapping[int, RankProcess], native: bool) -> dict[int, Stack]:
        return take(ranks, native, self._clock) if self._elsewhere is None else self._elsewhere.take(ranks, native)

    def _standing(self, index: int) -> Standing:
        if Trace(index, self._shared.journal(index).read()).has_finished:
            return "finished"  # even if it died afterwards: the draw was over for it
        if index in self._raised:
            return "raised"
        if self._ranks[index].is_dead(has_closed=self._broken.get(index) == ENDED):
            return "dead"
        return "broken" if index in self._broken else "unfinished"

    def _fate(self, index: int, standings: Sequence[Standing], stack: Stack | None, status: int) -> Fate:
        """One rank's end, next to how the others stand."""
        match standings[index]:
            case "dead":
                return Fate(index, "crashed", death(status))
            case "finished":
                return Fate(index, "finished")
            case "raised":
                return Fate(index, "raised", raising=self._raised[index])
            case "broken" if "dead" not in standings:  # next to a death, a broken rank is a consequence
                return Fate(index, "crashed", self._broken[index])
        state: State = "stopped" if "dead" in standings or self._has_failed else "hung"
        text, witness = stack or ("", "")
        return Fate(index, state, stack=text, witness=witness)


def _failure(index: int, reply: Reply) -> str | Raising:
    """How a rank broke, or what was raised on it; nothing of one that is done. Raises an error of the request."""
    match reply:
        case Broken(error):
            return error
        case Raised(what):
            return what
        case Refused(error):
            raise PluginError(error)
        case Failed(error, text):
            raise MachineError(f"rank {index} failed: {error}") from RuntimeError(text)
    return ""
