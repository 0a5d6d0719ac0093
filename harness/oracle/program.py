"""What was run, as far as rules ask for it: of a draw its scenario, of a recording the little that is known.

Invariant: here alone the two differ. What a rule asks about a call or a buffer is in the trace, and not here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from harness.scenario.layouts.groups import GroupId, ids_of
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, InFlight, Recreate, Replay, Steady
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.raising import Part
from harness.trace.recording import Recording

Seen = Draw | Recording
"""What can be judged."""


class Program(ABC):
    """What was run. That of a recording says nothing of graphs (its events say what was captured), of steady state, and
    of what was to come."""

    is_lockstep: ClassVar[bool] = False
    """Whether its ranks take the same steps, and wait for each other at the end."""
    done: ClassVar[str] = "ended"
    """What a rank has done that is through with everything."""
    compares_data: ClassVar[bool] = False
    """Whether its ranks look at the data, so that a loss shows."""

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """The layout, and where its ranks are."""

    @property
    def families(self) -> tuple[str, ...]:
        """The families that it names, whose names come before others of the same groups."""
        return ()

    @abstractmethod
    def place(self, step: int) -> str:
        """Which step that is, as it follows `at`."""

    @abstractmethod
    def operand(self, buffer: str) -> str:
        """How an operand is called that lies in a buffer of this name."""

    @property
    def is_watched(self) -> bool:
        """Whether all memory was compared around every call, whatever the substrate."""
        return False

    @property
    def is_even_by_mistake(self) -> bool:
        """Whether sizes that were meant to differ between ranks do not."""
        return False

    @property
    def steady(self) -> Mapping[int, bool]:
        """The steps at which steady state begins (True) or ends."""
        return {}

    @property
    def captures(self) -> Mapping[str, range]:
        """The steps in which each graph is captured."""
        return {}

    @property
    def replays(self) -> Mapping[int, str]:
        """The steps that run a graph, each with the graph."""
        return {}

    @property
    def flights(self) -> Sequence[range]:
        """The steps whose calls nothing waits for."""
        return ()

    def group_of(self, step: int, rank: int) -> GroupId | None:
        """The group in which a rank takes part in a step; None where that is not known."""
        return None

    def recreated_without(self, rank: int, until: int) -> frozenset[int]:
        """The steps, up to one, that re-create the communicators of a family which leaves a rank out."""
        return frozenset()

    def are_on_one_host(self, first: int, second: int) -> bool:
        """Whether two ranks are on one host, as far as that is known."""
        return True

    def name_of(self, part: Part) -> str:
        """The name of a part of the system under test."""
        return ""


class DrawnProgram(Program):
    """The program of a draw."""

    is_lockstep = True
    done = "run every step"
    compares_data = True

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    @property
    def topology(self) -> Topology:
        return self._scenario.topology

    @property
    def families(self) -> tuple[str, ...]:
        return self._scenario.families

    @property
    def is_watched(self) -> bool:
        return self._scenario.is_watched

    @cached_property
    def is_even_by_mistake(self) -> bool:
        sizes = [step.elements for step in self._scenario.steps if isinstance(step, Allocate)]
        return any(isinstance(elements, tuple) and len({*elements}) == 1 for elements in sizes)

    @cached_property
    def steady(self) -> Mapping[int, bool]:
        return {index: step.begins for index, step in enumerate(self._scenario.steps) if isinstance(step, Steady)}

    @property
    def captures(self) -> Mapping[str, range]:
        return self._scenario.captures

    @cached_property
    def replays(self) -> Mapping[int, str]:
        return {index: step.graph for index, step in enumerate(self._scenario.steps) if isinstance(step, Replay)}

    def place(self, step: int) -> str:
        """Such as `step 3 (all_gather)`."""
        return f"step {step} ({self._scenario.steps[step].kind})"

    def operand(self, buffer: str) -> str:
        return repr(buffer)

    @cached_property
    def flights(self) -> Sequence[range]:
        steps = self._scenario.steps
        ends = [index for index, step in enumerate(steps) if isinstance(step, InFlight) and not step.begins]
        begins = [index for index, step in enumerate(steps) if isinstance(step, InFlight) and step.begins]
        return [range(start, next((end for end in ends if end > start), len(steps))) for start in begins]

    def group_of(self, step: int, rank: int) -> GroupId | None:
        return self._scenario.group_of(self._scenario.steps[step], rank)

    def recreated_without(self, rank: int, until: int) -> frozenset[int]:
        ids = self.topology.ids
        return frozenset(
            index
            for index, step in enumerate(self._scenario.steps[: max(0, until + 1)])
            if isinstance(step, Recreate) and not ids_of(ids[step.family], rank)
        )

    def name_of(self, part: Part) -> str:
        system = self._scenario.system
        return system.pool if part == "pool" else system.collectives


class WatchedProgram(Program):
    """A program that knows nothing of the harness, as a recording has it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def topology(self) -> Topology:
        return self._recording.topology

    def place(self, step: int) -> str:
        """Such as `all_gather 14 (model.py:31 forward)`."""
        return self._recording.places[step]

    def operand(self, buffer: str) -> str:
        return buffer

    def are_on_one_host(self, first: int, second: int) -> bool:
        hosts = self._recording.hosts
        return not hosts or hosts[first] == hosts[second]


def program_of(seen: Seen) -> Program:
    """What was run to see this."""
    return DrawnProgram(seen.scenario) if isinstance(seen, Draw) else WatchedProgram(seen)
