"""A rank's answers to the parent's requests: join the world, run a draw, call a function.

Invariant: whatever a draw does, the rank answers with a message or its process is gone; what it saw
is in its journal either way.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from harness.errors import JournalFull, UsageError
from harness.ipc.memory import CLOSING, SharedMemory
from harness.ipc.messages import (
    Broken,
    Call,
    Change,
    Done,
    Failed,
    Join,
    Raised,
    RankConfig,
    Refused,
    Reply,
    Request,
    Returned,
    Run,
    WorldSize,
)
from harness.ipc.rendezvous import Rendezvous
from harness.rank import values
from harness.rank.debugging import debug
from harness.rank.executor import Executor
from harness.rank.own import collect, freeze, trim
from harness.rank.state import randomness
from harness.rank.state.fingerprint import Fingerprint
from harness.scenario.layouts.groups import GroupId
from harness.scenario.scenario import Scenario
from harness.scenario.system import System
from harness.substrate.base import Substrate
from harness.system.boundary import Misshapen, SystemRaised, call_back, call_system
from harness.system.collectives import find_collectives
from harness.system.context import PoolPolicy, RankContext
from harness.system.loading import load_attribute
from harness.system.pools.built_in import load_pool, load_stand_in
from harness.system.shape import is_observed
from harness.trace import events as trace
from harness.trace.raising import Part
from harness.trace.trace import TEARDOWN

DRAWS_UNTIL_TRIM = 64
"""Draws after which a rank gives back what its heap keeps: up to 16 MiB of a draw with large calls."""


class Server:
    """One rank's substrate and journal, kept from draw to draw."""

    def __init__(
        self, rank: int, shared: SharedMemory, substrate: Substrate, connection: Connection | None = None
    ) -> None:
        self._shared, self._rank, self._substrate = shared, rank, substrate
        self._journal = shared.journal(rank)
        self._names: dict[Part, str] = {}
        """The parts of the system under test, each with its name."""
        self._connection, self._is_debugged = connection, False
        self._fingerprint = Fingerprint(is_on_gpu=substrate.name == "nccl")
        self._loaded: set[tuple[str, str]] = set()
        """Pools and collectives that this rank has run."""
        self._imported: tuple[Change, ...] = ()
        """What loading those of the draw under way has changed."""

    def describe(self) -> dict[str, Any]:
        """Versions and features of the substrate, and this rank's part in coming together."""
        return self._substrate.describe()

    def answer(self, request: Request) -> Reply:
        """Carry out one request, and answer how that ended."""
        try:
            return self._carry_out(request)
        except SystemRaised as raised:
            return self._raised(raised)
        except Misshapen as error:
            return Refused(f"{error.where} {self._names[error.where]!r} {error}")
        except UsageError as error:
            return _failed(error) if isinstance(error, JournalFull) else Refused(str(error))
        except Exception as error:
            if fault := self._substrate.fault(error):
                return Broken(f"failed with {fault}")
            return Failed(f"{type(error).__name__}: {error}", traceback.format_exc())

    def _raised(self, raised: SystemRaised) -> Reply:
        """Write down what the system raised; a fault of the device that it ran into breaks the rank."""
        what = raised.raising(self._packages)
        try:
            self._journal.append(trace.Raised(raised.where, what.text))
        except JournalFull as full:  # what the system raised may be made of that, as Triton's interpreter does
            return _failed(full)
        if fault := self._substrate.fault(raised.error):
            return Broken(f"failed with {fault}")
        if self._is_debugged and self._connection is not None:
            named = f"{raised.where} {self._names[raised.where]!r} raised {what.text}"
            debug(raised.error, self._packages, f"rank {self._rank}: {named}", self._connection)
        return Raised(what, self._imported)

    def _carry_out(self, request: Request) -> Reply:
        match request:
            case Join(token):
                self._substrate.join(token)
            case WorldSize(size):
                self._substrate.world(size)
            case Run(scenario, slots, is_debugged, number, sharing):
                self._is_debugged, self._substrate.device.sharing = is_debugged, sharing
                return Done(self._run(msgspec.msgpack.decode(scenario, type=Scenario), slots, number))
            case Call(function, slots, arguments):
                value = load_attribute("function", function, ())(self._substrate, slots, *arguments)
                self._fingerprint.settle()
                return Returned(value)
        self._fingerprint.settle()  # communicators set what they need, which no draw is to answer for
        return Done()

    @property
    def _packages(self) -> set[str]:
        """Those that the plug-ins are named by."""
        modules = (name.partition(":")[0] for name in self._names.values() if ":" in name)
        return {module.partition(".")[0] for module in modules} - {"harness"}

    def _run(self, scenario: Scenario, slots: dict[GroupId, int], number: int) -> tuple[Change, ...]:
        """Run draw `number`. Returns what it leaves to the next."""
        substrate, system = self._substrate, scenario.system
        self._names, self._imported = {"pool": system.pool, "collectives": system.collectives}, ()
        has_plug_in = ":" in system.pool + system.collectives
        if has_plug_in:
            self._fingerprint.watch_names()
        make_pool, make_kernel = load_pool(system.pool), find_collectives(system.collectives, substrate.name == "sim")
        is_watched = is_observed(make_pool)
        if is_watched and substrate.name == "sim":
            make_pool, is_watched = load_stand_in(system.pool, make_pool), False
        self._imported = self._changes_of_import(system)
        if has_plug_in:
            randomness.begin(values.key(scenario.seed, self._rank), substrate.device.torch_device)
        with ExitStack() as turns:
            record: Callable[[trace.Event], None] = self._journal.append
            if scenario.scheduled is not None:
                record = turns.enter_context(substrate.in_turns(scenario.scheduled, slots, record))
            substrate.start_recording(record, self._journal.beat, number)
            self._execute(scenario, slots, make_pool, make_kernel, is_watched)
        self._journal.append(trace.Finished())
        if number % DRAWS_UNTIL_TRIM == 0:
            trim()
        left = (Change("memory", "", substrate.left),) if substrate.left else ()
        return self._imported + self._fingerprint.changes(has_plug_in) + left

    def _execute(
        self,
        scenario: Scenario,
        slots: dict[GroupId, int],
        make_pool: Callable[[RankContext], PoolPolicy],
        make_kernel: Callable[[], Any],
        is_watched: bool,
    ) -> None:
        """Run the program, and give everything back."""
        substrate, topology, system = self._substrate, scenario.topology, scenario.system
        substrate.world(scenario.world)
        substrate.is_falling = self._rank in scenario.falls_on
        families = [topology.ids[name] for name in scenario.families]
        substrate.begin(families, topology.domain_of, slots, topology.node_of)
        if is_watched:
            substrate.observe(system.pool)
        executor = Executor(substrate, scenario, make_pool, call_system("collectives", make_kernel))
        executor.run()
        world = tuple(range(scenario.world))
        meeting = Rendezvous(self._shared, slots[GroupId(world)], world, self._rank)
        self._journal.append(trace.Closing())
        meeting.meet(CLOSING)  # no rank frees what a slower one may still read
        self._journal.append(trace.Began(TEARDOWN))
        executor.close()
        call_back(substrate.end)
        substrate.give_up(scenario)
        self._journal.append(trace.Closing())
        meeting.meet(CLOSING)

    def _changes_of_import(self, system: System) -> tuple[Change, ...]:
        """What loading a system for the first time has changed: new ranks would have it so at every draw of it."""
        names = system.pool, system.collectives
        if names in self._loaded:
            return ()
        self._loaded.add(names)
        changes = self._fingerprint.changes_of_import()
        collect()
        freeze()  # modules that are new, and what the fingerprint keeps of them, need no later collection either
        return tuple(msgspec.structs.replace(change, at_import=True) for change in changes)


def _failed(full: JournalFull) -> Failed:
    return Failed(str(full), traceback.format_exc())


def make_substrate(config: RankConfig, shared: SharedMemory) -> Substrate:
    """The substrate that a rank is to stand on."""
    evidence = frozenset(config.evidence)
    if config.substrate == "sim":
        from harness.substrate.sim.substrate import SimSubstrate  # noqa: PLC0415

        return SimSubstrate(config.rank, shared, evidence)
    from harness.substrate.nccl.substrate import NcclSubstrate  # noqa: PLC0415

    assert config.gpu is not None
    return NcclSubstrate(config.rank, config.processes, config.gpu, shared, evidence)
