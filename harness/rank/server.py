"""A rank's answers to the parent's messages: join the world, run a draw, call a function.

Invariant: whatever a draw does, the rank answers with a message or its process is gone; what it saw
is in its journal either way.
"""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

from harness.errors import UsageError
from harness.ipc.memory import CLOSING, SharedMemory
from harness.ipc.messages import Options
from harness.ipc.rendezvous import Rendezvous
from harness.rank.executor import Executor
from harness.scenario.layout import Group
from harness.scenario.scenario import Scenario
from harness.substrate.base import Substrate
from harness.system.boundary import SystemRaised
from harness.system.collectives import load_collectives
from harness.system.loading import load_attribute
from harness.system.pools.built_in import load_pool
from harness.trace import events as trace
from harness.trace.trace import TEARDOWN


class Server:
    """One rank's substrate and journal, kept from draw to draw."""

    def __init__(self, options: Options, shared: SharedMemory) -> None:
        self._shared, self._rank = shared, options.rank
        self._journal = shared.journal(options.rank)
        self._substrate = make_substrate(options, shared)

    def describe(self) -> dict[str, Any]:
        """What the parent should know of this rank: the substrate's versions and its contribution to joining."""
        return self._substrate.describe()

    def answer(self, message: tuple[Any, ...]) -> tuple[Any, ...]:
        """Carry out one message and say how it went."""
        try:
            return self._carry_out(message)
        except SystemRaised as raised:
            self._journal.append(trace.Raised(raised.where, str(raised)))
            if fault := self._substrate.fault(raised.__cause__):
                return "broken", f"failed with {fault}"
            return "raised", raised.where, str(raised), traceback.format_exc()
        except UsageError as error:
            return "refused", str(error)
        except Exception as error:
            if fault := self._substrate.fault(error):
                return "broken", f"failed with {fault}"
            return "failed", f"{type(error).__name__}: {error}", traceback.format_exc()

    def _carry_out(self, message: tuple[Any, ...]) -> tuple[Any, ...]:
        match message:
            case ("join", token):
                self._substrate.join(token)
            case ("world", size):
                self._substrate.world(size)
            case ("run", data, slots):
                self._run(msgspec.msgpack.decode(data, type=Scenario), slots)
            case ("call", name, slots, arguments):
                return "returned", load_attribute("function", name, ())(self._substrate, slots, *arguments)
            case _:
                raise RuntimeError(f"rank {self._rank} does not know the message {message!r}")
        return ("done",)

    def _run(self, scenario: Scenario, slots: dict[Group, int]) -> None:
        substrate, topology = self._substrate, scenario.topology
        make_pool, kernel = load_pool(scenario.system.pool), load_collectives(scenario.system.collectives)
        substrate.start_recording(self._journal.append)
        substrate.world(scenario.world)
        substrate.begin([topology.families[name] for name in scenario.families], topology.node_of, slots)
        executor = Executor(substrate, scenario, make_pool, kernel)
        executor.run()
        world = tuple(range(scenario.world))
        meeting = Rendezvous(self._shared, slots[world], world, self._rank)
        self._journal.append(trace.Closing())
        meeting.meet(CLOSING)  # no rank frees what a slower one may still read
        self._journal.append(trace.Began(TEARDOWN))
        executor.close()
        substrate.end()
        self._journal.append(trace.Closing())
        meeting.meet(CLOSING)
        self._journal.append(trace.Finished())


def make_substrate(options: Options, shared: SharedMemory) -> Substrate:
    """The substrate a rank was told to stand on."""
    evidence = frozenset(options.evidence)
    if options.substrate == "sim":
        from harness.substrate.sim.substrate import SimSubstrate  # noqa: PLC0415

        return SimSubstrate(options.rank, shared, evidence)
    from harness.substrate.nccl.substrate import NcclSubstrate  # noqa: PLC0415

    assert options.gpu is not None
    return NcclSubstrate(options.rank, options.processes, options.gpu, shared, evidence)
