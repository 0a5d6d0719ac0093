"""What `symm fuzz` was asked to draw: options that go together, made into a strategy.

Invariant: a request that exists can be drawn; one that cannot is refused by the name of the option, before any rank
starts. What only ranks know, whether their NCCL can run kernels, is asked of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec
from hypothesis.strategies import SearchStrategy

from harness.errors import MachineError, UsageError, not_one_of
from harness.nights.vocabulary import Vocabulary
from harness.oracle.states.state import State
from harness.oracle.states.universe import universe
from harness.scenario import topology
from harness.scenario.flows.catalogue import check_flow
from harness.scenario.scenario import Scenario, check_implicit
from harness.scenario.system import Sites, System
from harness.scenario.topology import Topology
from harness.strategies.actions import Via
from harness.strategies.flows import Tokens, applies, check_world, flows
from harness.strategies.placements import check_nodes, is_on, on_nodes
from harness.strategies.programs import HAZARDS, LONGEST, WITH_GRAPHS, scenarios
from harness.strategies.topologies import LARGER, topologies
from harness.system.check import check_system, made, pulls
from harness.world.platform import Platform

SMALLEST = 2
"""Ranks that a layer's communication needs."""


class Ranks(Protocol):
    """What drawing asks of the ranks that are to run it. Those of `harness.cli.dry` never start."""

    @property
    def size(self) -> int: ...
    @property
    def description(self) -> dict[str, Any]: ...
    @property
    def platform(self) -> Platform: ...


class StartedRanks(Ranks, Protocol):
    """What running a scenario asks of them."""

    def check_hosts(self, scenario: Scenario) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """Free programs, or flows around a layer, of at most `world` ranks, on the system under test that is named.

    Each field is the option of its name. Raises `UsageError` where they do not go together.
    """

    world: int
    topology: Sequence[str] = ()
    """Files or names; all that fit if there is none."""
    pool: str | None = None
    collectives: str | None = None
    sites: Sites = "explicit"
    flow: str | None = None
    tokens: Tokens = "engine"
    hazard: Sequence[str] = ()
    graphs: bool = False
    streams: int = 1
    same_order: bool = False
    nodes: int | None = None
    nvlink_domain: int | None = None
    larger: bool = False
    """Whether a share of free programs, placed as they come, is to have more ranks than `world`."""

    def __post_init__(self) -> None:
        check_system(self.pool, self.collectives)
        if self.flow is None:
            self._check_free()
        else:
            self._check_flow(self.flow)
        check_nodes(self.nodes or 1, self.world, self.nvlink_domain)
        _ = self._layouts  # each has to load, to fit, and to have something to communicate

    def _check_free(self) -> None:
        if self.tokens != "engine":
            raise UsageError("--tokens goes with --flow; free programs have no batches")
        for hazard in self.hazard:
            if hazard not in HAZARDS:
                raise not_one_of("hazard", hazard, HAZARDS)
        if self.graphs and self.hazard:
            raise UsageError("--graphs does not go with --hazard")

    def _check_flow(self, flow: str) -> None:
        check_flow(flow)
        if self.world < SMALLEST:
            raise UsageError(f"flows need a world of at least {SMALLEST} ranks, not {self.world}")
        check_world(flow, self.tokens, self.world)
        given = {
            "--hazard": bool(self.hazard),
            "--graphs": self.graphs,
            "--streams": self.streams > 1,
            "--same-order": self.same_order,
        }
        for option in (name for name, is_given in given.items() if is_given):
            raise UsageError(f"{option} goes with free programs, and not with --flow")

    @cached_property
    def _named(self) -> list[Topology]:
        return [topology.find(name) for name in self.topology]

    @cached_property
    def _layouts(self) -> SearchStrategy[Topology] | None:
        """The topologies asked for by name."""
        if not self.topology:
            return None
        named = self._named
        for each in named if self.sites == "implicit" else ():
            check_implicit(each)
        if self.flow is not None and not any(applies(self.flow, each, self.tokens) for each in named):
            uneven = " with uneven tokens" if self.tokens == "uneven" else ""
            names = ", ".join(repr(each.name) for each in named)
            raise UsageError(f"flow {self.flow!r}{uneven} has nothing to communicate on {names}")
        return topologies(self.world, named)

    @property
    def system(self) -> System:
        """The system under test that the options name."""
        system = System(self.pool or System().pool, sites=self.sites)
        if self.collectives in (None, "library"):
            return system
        return msgspec.structs.replace(system, collectives=self.collectives)

    def via(self, ranks: Ranks) -> Via:
        """The way that collectives go on these ranks. Without peer pointers (NCCL before 2.29.2) there are no kernels:
        raises `MachineError` where one is asked for."""
        if self.collectives == "library":
            return "library"
        if ranks.description.get("kernels", True):
            return "mixed" if self.collectives is None else "kernel"
        if self.collectives is not None:
            raise MachineError(f"NCCL {ranks.description['nccl_loaded']} gives kernels no peer pointers; 2.29.2 does")
        return "library"

    def reachable(self, ranks: Ranks) -> tuple[State, ...]:
        """The states of the oracle that these draws can reach."""
        via = self.via(ranks)
        kernels = () if via == "library" else made(self.collectives)
        return universe(library=via != "kernel", kernels=kernels, graphs=self.graphs)

    def strategy(self, ranks: Ranks) -> SearchStrategy[Scenario]:
        """The scenarios to draw for these ranks."""
        is_larger = self.larger and ranks.size >= max(LARGER)
        strategy = self._programs(self.via(ranks), is_larger, ranks.platform.name == "sim")
        if not self._places(ranks):
            return strategy
        return on_nodes(strategy, self.world, self.nodes or 1, self.nvlink_domain)

    def _places(self, ranks: Ranks) -> bool:
        """Whether layouts are drawn on nodes of its own choice, and not as named."""
        return (self.nodes, self.nvlink_domain) != (None, None) or ranks.platform.is_node_bound

    def adapted(self, scenario: Scenario, ranks: StartedRanks) -> Scenario | None:
        """A scenario of a corpus on the system under test. None where this request draws no such ones, or these ranks
        or their hosts cannot run it."""
        if not self._can_run(scenario, ranks) or not self._draws(scenario, ranks):
            return None
        try:
            adapted = msgspec.structs.replace(scenario, system=self.system, schedule=msgspec.UNSET)
            ranks.check_hosts(adapted)
        except UsageError:  # implicit sites cannot be on every topology
            return None
        return adapted

    def _can_run(self, scenario: Scenario, ranks: Ranks) -> bool:
        is_as_drawn = is_on(scenario.topology, self.world, self.nodes or 1, self.nvlink_domain)
        needs_simulation = bool(scenario.falls_on) or (ranks.platform.is_node_bound and not is_as_drawn)
        return scenario.world <= ranks.size and (ranks.platform.name == "sim" or not needs_simulation)

    def _draws(self, scenario: Scenario, ranks: Ranks) -> bool:
        """Whether it is made of what this request draws."""
        words = Vocabulary()
        words.take(scenario)
        is_uneven = self.flow is not None and self.tokens != "padded"
        return (
            words.hazards <= {*self.hazard, *(["uneven"] if is_uneven else [])}
            and words.streams <= self.streams
            and (self.graphs or "capture" not in words.kinds)
            and (words.via == "library" or self.via(ranks) != "library")
            and not (scenario.falls_on and self.same_order)
            and (not self._named or self._is_named(scenario.topology, ranks))
        )

    def _is_named(self, topology: Topology, ranks: Ranks) -> bool:
        """Whether it is one of the topologies asked for by name, wherever this request places it."""
        if self._places(ranks):
            return any(topology.ids == each.ids for each in self._named)
        return topology.key in {each.key for each in self._named}

    def not_shown(self, ranks: Ranks) -> str:
        """What these ranks do not show of the placement asked for, in a line, or nothing."""
        share = -(-self.world // (self.nodes or 1))
        return ranks.platform.not_shown((self.nvlink_domain or 0) > share)

    def _programs(self, via: Via, larger: bool, chooses_addresses: bool) -> SearchStrategy[Scenario]:
        layouts, system = self._layouts, self.system
        if self.flow is not None:
            return flows(self.world, flow=self.flow, tokens=self.tokens, topologies=layouts, system=system, via=via)
        return scenarios(
            self.world,
            topologies=topologies(self.world, larger=larger) if layouts is None else layouts,
            system=system,
            hazards=self.hazard,  # type: ignore[arg-type]
            via=via,
            max_steps=WITH_GRAPHS if self.graphs else LONGEST,
            graphs=self.graphs,
            streams=self.streams,
            falling=not self.same_order and chooses_addresses,
            pulls=pulls(self.collectives),
        )
