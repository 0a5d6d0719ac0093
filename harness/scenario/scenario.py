"""The scenario: one draw as frozen data.

Invariant: a `Scenario` that exists can be executed. `harness.scenario.validity` refuses every other one when it is
built, naming the step and the reason.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from harness.scenario.layouts.groups import Group, GroupId, GroupIds, ids_of
from harness.scenario.operands import ITEMSIZE
from harness.scenario.schedule import Schedule
from harness.scenario.steps import Allocate, Allocation, Ballast, Capture, Collective, EndCapture, ProgramError, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One draw as data: where (topology), what (system and steps), and the seed of its input values.

    `falling`: the ranks on which each new segment gets a lower address than the one before, in rising order of ranks.
    Elsewhere it gets a higher one. Only the simulation can choose. Unset, not empty, where there is none, so that files
    leave it out. `schedule`: which rank runs when, on the simulation; unset where the machine decides that.

    Raises `ProgramError` when built from a program that cannot run.
    """

    topology: Topology
    steps: tuple[Step, ...]
    system: System = System()
    seed: int = 0
    falling: Group | msgspec.UnsetType = msgspec.UNSET
    schedule: Schedule | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        from harness.scenario.validity import check  # noqa: PLC0415  (validity reads these classes)

        if not 0 <= self.seed < 1 << 63:
            raise ProgramError(f"seed {self.seed} is not between 0 and {(1 << 63) - 1}")
        self._check_falling()
        if self.scheduled is not None:
            self.scheduled.check(self.world)
        if self.system.sites == "implicit":
            check_implicit(self.topology)
        check(self.topology, self.steps)
        if self.system.sites == "implicit":
            self._check_asked()

    def _check_falling(self) -> None:
        if self.falling == ():
            msgspec.structs.force_setattr(self, "falling", msgspec.UNSET)
        ranks = self.falls_on
        if list(ranks) != sorted({*ranks}.intersection(range(self.world))):
            raise ProgramError(f"falling {[*ranks]} are not some of the ranks 0 to {self.world - 1}, in rising order")

    def _check_asked(self) -> None:
        """Raise `ProgramError` where a site asks for a group of which some ranks do not act: those would be waited
        for."""
        allocations = ((index, step) for index, step in enumerate(self.steps) if isinstance(step, Allocate))
        for index, step in allocations:
            acting = {rank for group in self.acting(step) for rank in group.ranks}
            for group in self.topology.families[IMPLICIT] if step.role == "window" else ():
                idle = [rank for rank in group if rank not in acting]
                if 0 < len(idle) < len(group):
                    asked = f"implicit sites ask for {IMPLICIT}{list(group)}, of which rank {idle[0]} does not act"
                    raise ProgramError(f"step {index} (allocate): {asked}")

    def __hash__(self) -> int:
        return hash((self.topology, self.steps, self.system, self.seed, self.falls_on, self.scheduled))

    @property
    def scheduled(self) -> Schedule | None:
        """The schedule, if there is one."""
        return None if isinstance(self.schedule, msgspec.UnsetType) else self.schedule

    @property
    def falls_on(self) -> Group:
        """The ranks in `falling`."""
        return () if isinstance(self.falling, msgspec.UnsetType) else self.falling

    @property
    def world(self) -> int:
        """Number of ranks that take part."""
        return self.topology.world

    def acting(self, step: Step) -> GroupIds:
        """The groups in which a step runs; none for a step that names no family."""
        return () if step.family is None else self.topology.acting(step.family, step.groups)

    def group_of(self, step: Step, rank: int) -> GroupId | None:
        """The group in which a rank takes part in a step; None where it goes on."""
        return next(iter(ids_of(self.acting(step), rank)), None)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The families that steps or sites name, in the order of first use: a draw needs their communicators."""
        named = [name for step in self.steps for name in (step.family, *step.other_families) if name is not None]
        return tuple(dict.fromkeys([*named, IMPLICIT] if self.system.sites == "implicit" else named))

    @cached_property
    def allocations(self) -> dict[str, Allocation]:
        """The step that makes each buffer, by the buffer's name."""
        return {step.buffer: step for step in self.steps if isinstance(step, Allocate | Ballast)}

    @cached_property
    def captures(self) -> dict[str, range]:
        """The steps of each graph's capture, without its end."""
        starts = {step.graph: index for index, step in enumerate(self.steps) if isinstance(step, Capture)}
        ends = {step.graph: index for index, step in enumerate(self.steps) if isinstance(step, EndCapture)}
        return {graph: range(starts[graph], end) for graph, end in ends.items()}

    def captured(self, least: int) -> GroupIds:
        """The groups of several ranks in which a call of so many bytes is captured, on any rank."""
        steps = (self.steps[index] for indices in self.captures.values() for index in indices)
        calls = ((step, group) for step in steps if isinstance(step, Collective) for group in self.acting(step))
        large = (group for step, group in calls if len(group.ranks) > 1 and self._bytes(step, group.ranks) >= least)
        return tuple(dict.fromkeys(large))

    def _bytes(self, step: Collective, group: Group) -> int:
        """Bytes of a call's largest operand, on any rank of a group."""
        width = ITEMSIZE[self.allocations[step.views[0].buffer].dtype]
        return width * max(max(step.lengths(group, rank)) for rank in group)

    @property
    def is_watched(self) -> bool:
        """Whether every substrate compares all memory around this scenario's calls; the simulation always does."""
        return self.seed % WATCHED == 0

    @property
    def groups(self) -> GroupIds:
        """Every distinct group of those families: a draw needs one communicator for each."""
        return tuple(dict.fromkeys(group for name in self.families for group in self.topology.ids[name]))


WATCHED = 4
"""One seed in so many is watched. 0 is, to which shrinking lowers a seed."""
IMPLICIT = "tp"
"""The family that implicit buffer sites name, whatever they are asked for."""


def check_implicit(topology: Topology) -> None:
    """Raise `ProgramError` where implicit sites cannot be on a topology."""
    if lack := lack_of_implicit(topology):
        raise ProgramError(f"implicit sites name {IMPLICIT!r}, {lack}")


def lack_of_implicit(topology: Topology) -> str:
    """Why implicit sites cannot be on a topology, as a clause; empty where they can."""
    if IMPLICIT not in topology.families:
        return f"which topology {topology.name!r} has not"
    for rank in range(topology.world):
        if (groups := len(ids_of(topology.ids[IMPLICIT], rank))) != 1:
            return (
                f"and rank {rank} of topology {topology.name!r} is in {groups or 'no'} group{'s' * (groups > 1)} of it"
            )
    return ""
