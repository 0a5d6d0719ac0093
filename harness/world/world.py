"""The parent side of the world: persistent rank processes that run one draw after another.

Invariant: `run` answers with every rank's fate and trace, or raises. A draw ends at the deadline where nothing moves,
and within three times that where ranks still write (`watch`); stacks and new ranks come on top. Where ranks had died
before the draw, it runs a second time. With a debugger it waits for the user. After anything but a clean end the ranks
are killed and replaced before the next draw, so a draw never inherits another's wreckage.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any

import msgspec

from harness import interrupts
from harness.clock import CLOCK, Clock
from harness.errors import MachineError, UsageError
from harness.ipc import turns
from harness.ipc.memory import SLOTS, SharedMemory
from harness.ipc.messages import Call, Run
from harness.ipc.rendezvous import lost_signals
from harness.machine import mps
from harness.scenario.layouts.groups import GroupId
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Stall, Step, Straggle
from harness.trace.draw import Draw, Fate, Version
from harness.trace.events import PadOverwritten
from harness.trace.trace import Trace
from harness.world.calls import returned
from harness.world.hosts.hosts import Hosts, Over
from harness.world.leftovers import Leftovers
from harness.world.platform import Platform, Watched, choose
from harness.world.rank_process import death
from harness.world.ranks import Ranks, StartMethod
from harness.world.silence import Patience
from harness.world.watch import Debugger, DrawWatch

REMEMBERED = 64
"""Scenarios of which a world knows that its present rank processes have run them."""
DAMAGED = "its journal is damaged: something in this rank or one of its peers wrote over memory that was not its own"


class World:
    """Rank processes on one substrate. A context manager; `close` leaves no process and no memory behind.

    `size` is the largest world it can run; smaller ones use the first ranks. On the simulation draws
    may have up to `largest` ranks, if that is more; those are started when a draw needs them. `substrate` is `auto`,
    `sim` or `nccl`. `start` is `fork` (from one zygote) or `spawn` (a fresh interpreter a rank). `evidence` names
    kinds of `harness.machine.evidence`; without one of the path, the sharpest there is is taken.
    `watched` has the pools under test that call NCCL by themselves. `over` has the other hosts of the world, and how
    many ranks each host runs. Raises `MachineError` where the machine cannot do
    that, and `UsageError` where nothing stands in for a watched pool.
    """

    def __init__(
        self,
        size: int,
        substrate: str = "auto",
        *,
        largest: int = 0,
        deadline: float | None = None,
        start: StartMethod = "fork",
        evidence: Sequence[str] = (),
        watched: Watched | None = None,
        clock: Clock = CLOCK,
        over: Over | None = None,
    ) -> None:
        if size < 1:
            raise UsageError(f"a world of {size} ranks is too small")
        platform = choose(substrate, size if over is None else over.share, evidence)
        platform = platform if watched is None else platform.watching(watched)
        if over is not None:
            if platform.gpus and watched is not None and watched.stand_ins:
                raise UsageError(
                    f"pool {next(iter(watched.stand_ins))!r} calls NCCL by itself, which one host alone shows"
                )
            platform = platform.over(1 + len(over.others), over.share)
        self._watched = watched
        self._at_first = size
        size = platform.most_ranks(size, largest)
        self.size, self.deadline = size, deadline or platform.deadline
        self.restarts = 0
        self.ran: deque[Scenario] = deque(maxlen=REMEMBERED)
        """The last scenarios that these rank processes have run, in order."""
        self.leftovers = Leftovers()
        """What draws left to the next in the processes of ranks, which were replaced for it."""
        self._clock = clock
        self._patience = Patience()
        self._slots: dict[GroupId, int] = {}
        self._draws = 0
        with ExitStack() as undo:
            if platform.ranks_per_gpu > 1:
                served = mps.start()
                undo.callback(served.close)
                platform = platform.on(served)
            self.platform: Platform = platform
            self._shared = SharedMemory.create(size) if over is None else SharedMemory.of_host(size)
            undo.callback(self._shared.close)
            self._hosts = None
            if over is not None:
                self._hosts = undo.enter_context(Hosts(over, platform, self._shared, clock))
            self._ranks = Ranks(size, platform, self._shared, start, clock, self._hosts)
            undo.callback(self._ranks.close)
            try:
                self._ranks.start(self._at_first)
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
        return [rank.pid for rank in self._ranks.processes]

    @property
    def description(self) -> dict[str, Any]:
        """Versions and features of the substrate, as the first rank reports them; and the hosts, of several."""
        return self._ranks.description | ({"hosts": self._hosts.where} if self._hosts else {})

    @property
    def nccl(self) -> Version | None:
        """The NCCL that its ranks have loaded; None on the simulation."""
        loaded = self.description.get("nccl_loaded")
        return tuple(map(int, loaded.split("."))) if loaded else None

    @property
    def patience(self) -> float:
        """Seconds of silence of all ranks, once all have begun, after which a hurried draw is presumed to hang. A pause
        that the program asks for is not counted."""
        return self._patience.seconds(self.platform.patience)

    @cached_property
    def simulation(self) -> World | None:
        """A simulation beside ranks on GPUs, for tries that cost much there: started when first asked for, and closed
        with this world. None where this world is one, the machine has no room, or a pool under test needs NCCL."""
        if self.platform.gpus:
            with suppress(MachineError, UsageError):
                return self._held.enter_context(World(self.size, "sim", watched=self._watched))
        return None

    def close(self) -> None:
        """End every process and release the shared memory. May be called twice."""
        self._held.close()

    def renew(self) -> None:
        """Have the next draw run on new rank processes, which have run nothing."""
        if self._ranks.processes:
            self._ranks.kill()

    def run(self, scenario: Scenario, *, hurried: bool = False, debugger: Debugger | None = None) -> Draw:
        """Execute one scenario. Raises `PluginError` if a plug-in has not the shape of its part, `UsageError` if the
        scenario does not fit the world; everything else a rank can do is in the draw's fates.

        A `hurried` draw is for trying smaller cases of what has failed: once all ranks have been silent for `patience`
        seconds it is presumed to hang (`Draw.is_presumed`), and does not wait for the deadline. With a `debugger`, the
        deadline waits for the user.
        """
        interrupts.check()
        if scenario.world > self.size:
            raise UsageError(f"a scenario of {scenario.world} ranks does not fit a world of {self.size}")
        if self._shared.fd < 0:
            raise UsageError("the world is closed")
        self.check_hosts(scenario)
        self._place(scenario.topology.domain_of, scenario.topology.hides_peers)
        if self._ranks.processes and self.leftovers.is_foreign(scenario.system):
            self._drop()
        self._start(scenario.world)
        self._ranks.set_world_size(scenario.world)
        slots = self._slots_for([GroupId(tuple(range(scenario.world))), *scenario.groups])
        self.ran.append(scenario)
        self._draws += 1
        taking_part = self._ranks.processes[: scenario.world]
        encoded, debugged = msgspec.msgpack.encode(scenario), debugger.rank if debugger else None
        for index, rank in enumerate(taking_part):
            self._shared.journal(index).clear()
            rank.forget_output()
        if self._hosts is not None:
            self._hosts.prepare(slots)
        turns.prepare(self._shared.baton, scenario.scheduled.order if scenario.scheduled else ())
        sharing = self.platform.most_on_a_gpu(scenario.world)
        began = self._clock.now()
        with self._kill_unless_done():
            gone = [
                index
                for index, rank in enumerate(taking_part)
                if not rank.send(Run(encoded, slots, index == debugged, self._draws, sharing))
            ]
            groups = {slot: group.ranks for group, slot in slots.items()}
            pause = _longest_pause(scenario.steps)
            patience = self.patience + pause if hurried else math.inf
            watch = DrawWatch(
                taking_part,
                self._shared,
                groups,
                self.deadline,
                patience,
                clock=self._clock,
                debugger=debugger,
                elsewhere=self._hosts,
            )
            fates = watch.wait(self._drop)
        if (gone := gone + watch.unread) and self.leftovers.system:  # on new ranks there was no draw before
            self.leftovers.died({index: fates[index].how for index in gone})
            return self.run(scenario, hurried=hurried, debugger=debugger)
        if self.leftovers.note(scenario.system, watch.changes) and self._ranks.processes:
            self._drop()
        traces, fates = self._read(slots, fates)
        draw = Draw(scenario, traces, fates, self._clock.now() - began, self.deadline, watch.is_presumed, self.nccl)
        if draw.is_clean and not pause:
            self._patience.learn(watch.longest_silence)
        if self._keeps_connections and draw.has_lost_sends and self._ranks.processes:
            self._drop()
        return draw

    @property
    def _keeps_connections(self) -> bool:
        """Whether ranks have connections that outlive a draw's communicators. After a lost send their two ends may no
        longer be in step, so that a later send would be lost, too."""
        return bool(self.platform.gpus)

    def _read(self, slots: dict[GroupId, int], fates: Sequence[Fate]) -> tuple[tuple[Trace, ...], tuple[Fate, ...]]:
        """What the ranks of a draw wrote, and their fates by that."""
        written = [self._shared.journal(fate.rank).examine() for fate in fates]
        is_hung = any(fate.state == "hung" for fate in fates)
        on_pads = {} if all(fate.state == "finished" for fate in fates) else self._on_pads(slots, is_hung)
        traces = tuple(Trace(index, events, on_pads.get(index, ())) for index, (events, _) in enumerate(written))
        return traces, self._checked(fates, traces, [is_damaged for _, is_damaged in written])

    def _on_pads(self, slots: dict[GroupId, int], is_hung: bool) -> dict[int, tuple[PadOverwritten, ...]]:
        """By rank, what was written beside its pads or over signals: a rank that hangs in a kernel does not look."""
        found: dict[int, tuple[PadOverwritten, ...]] = {}
        for group, slot in slots.items():
            for member, rank in enumerate(group.ranks):
                lost = lost_signals(self._shared, slot, group, member) if is_hung else ()
                found[rank] = (*found.get(rank, ()), *self._shared.overwritten(slot, group, member), *lost)
        return found

    def _checked(self, fates: Sequence[Fate], traces: Sequence[Trace], damaged: Sequence[bool]) -> tuple[Fate, ...]:
        """The fates, by what the ranks wrote: one whose journal is damaged has crashed, whatever it said. What else is
        known of its end stays. Raises `MachineError` where a rank said that it had finished, and did not write so."""
        checked: list[Fate] = []
        for fate, trace, is_damaged in zip(fates, traces, damaged, strict=True):
            if fate.state == "finished" and not trace.has_finished and not is_damaged:
                self._drop()
                raise MachineError(f"rank {fate.rank} answered that it had finished, and its journal ends before")
            how = f"{fate.how}; {DAMAGED}" if fate.how else DAMAGED
            checked.append(msgspec.structs.replace(fate, state="crashed", how=how) if is_damaged else fate)
        if any(damaged) and self._ranks.processes:
            self._drop()  # whatever wrote there may do it again
        return tuple(checked)

    def call(self, function: str, *arguments: Any) -> list[Any]:
        """What `package.module:function(substrate, slots, *arguments)` returns on each rank, in rank order.

        For measurements on a rank. `slots` has one group, the whole world. Collective over its ranks. Raises
        `MachineError` if it raises on a rank or takes longer than five minutes.
        """
        interrupts.check()
        if self._shared.fd < 0:
            raise UsageError("the world is closed")
        if self._hosts is not None:
            raise UsageError(f"{function} runs on one host, and this world is over several")
        self._start(self.size)
        self._ranks.set_world_size(self.size)
        slots = self._slots_for([GroupId(tuple(range(self.size)))])
        with self._kill_unless_done():
            for rank in self._ranks.processes:
                rank.send(Call(function, slots, arguments))
            return returned(self._ranks.processes, function, self._clock)

    def check_hosts(self, scenario: Scenario) -> None:
        """Raise `UsageError` where its hosts cannot run a scenario that one could."""
        if self._hosts is None:
            return
        if scenario.scheduled is not None:
            raise UsageError("ranks take turns by a schedule on one host alone, and this world is over several")
        self._hosts.check(scenario.topology.domain_of)

    def _place(self, node_of: tuple[int, ...], hides_peers: bool) -> None:
        """Where processes are bound to nodes, have the ranks of a draw on what NCCL is to take for nodes, and let them
        see the GPUs that they are to see: if need be all start again."""
        if not self.platform.is_node_bound:
            return
        if _same_nodes(self._ranks.nodes[: len(node_of)], node_of) and self._ranks.hides_peers == hides_peers:
            return
        if self._ranks.processes:
            self._ranks.kill()
        self._ranks.nodes = node_of + (node_of[0],) * (self.size - len(node_of))
        self._ranks.hides_peers = hides_peers

    def _start(self, wanted: int) -> None:
        """Have so many ranks, in place of those that have died too; after a restart they find clean counters."""
        if dead := self._ranks.ended():
            statuses = self._drop()
            self.leftovers.died({index: death(statuses[index]) for index in dead})
        if not self._ranks.processes:
            self._shared.reset()
            self._slots.clear()
            self.ran.clear()
            self.leftovers.forget_ranks()
        self._ranks.start(max(wanted, self._at_first))

    @contextmanager
    def _kill_unless_done(self) -> Iterator[None]:
        """Whatever interrupts a draw (Ctrl-C, a plug-in's error), its ranks must not run on."""
        try:
            yield
        except BaseException:
            if self._ranks.processes:
                with suppress(MachineError):  # they are gone already, as after a signal to the whole process group
                    self._drop()
            raise

    def _slots_for(self, groups: Sequence[GroupId]) -> dict[GroupId, int]:
        """The row of shared counters of each group. It begins anew, whatever became of the last draw. Only while
        none of these ranks runs."""
        if len(self._slots) + len(groups) > SLOTS:
            self._slots.clear()
            self._shared.reset()
        for group in groups:
            self._shared.renew(self._slots.setdefault(group, len(self._slots)), len(group.ranks))
        return {group: self._slots[group] for group in groups}

    def _drop(self) -> list[int]:
        """Kill every rank; the next draw starts new ones. Returns wait statuses in rank order."""
        self.restarts += 1
        return self._ranks.kill()


def _longest_pause(steps: Sequence[Step]) -> float:
    """Seconds for which a program itself has a rank be silent."""
    stalled = sum(step.milliseconds for step in steps if isinstance(step, Stall))
    return max([stalled, *(step.milliseconds for step in steps if isinstance(step, Straggle))]) / 1000


def _same_nodes(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two placements put the same ranks together, whatever the nodes are called."""
    return [one.index(node) for node in one] == [other.index(node) for node in other]
