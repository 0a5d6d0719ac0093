"""What draws left to the next in the processes of ranks, counted once for each kind and system.

Invariant: a note, and no finding: ranks in which something is left are replaced, so no draw inherits it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from harness.ipc.messages import Change
from harness.scenario.system import System

PROCESS, RUNS = "process", "runs"
NO_SYSTEM = System("none", "none")
"""Of ranks that have run no draw yet."""


class Leftover(msgspec.Struct, frozen=True):
    """The first of its kind: which rank of which system left what, from which value to which, and in how many draws
    that kind was seen. `at_import`: it came with loading the system."""

    rank: int
    pool: str
    collectives: str
    what: str
    old: str
    new: str
    at_import: bool = False
    draws: int = 1


class Leftovers:
    """Those of a world. Iterates in the order in which each kind was first seen."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str, str, bool], Leftover] = {}
        self.system: System | None = None
        """That of the last draw on the ranks there are; None where they are new."""
        self.is_at_import = False
        """Whether loading that system has changed something, which is then there for every draw of it."""

    def __iter__(self) -> Iterator[Leftover]:
        return iter(self._by_kind.values())

    def forget_ranks(self) -> None:
        """New ranks have run nothing."""
        self.system, self.is_at_import = None, False

    def is_foreign(self, system: System) -> bool:
        """Whether a draw of this system would find what loading another one has changed."""
        return self.is_at_import and self.system is not None and _names(self.system) != _names(system)

    def note(self, system: System, changes: Mapping[int, Sequence[Change]]) -> bool:
        """Take what a draw of a system left, by rank. Returns whether ranks with it may not run another draw."""
        self.system = system
        kinds = {(change.what, change.at_import): (rank, change) for rank, each in changes.items() for change in each}
        for rank, change in kinds.values():
            self._count(system, rank, change)
        self.is_at_import |= any(change.at_import for _, change in kinds.values())
        return any(not change.at_import for _, change in kinds.values())

    def died(self, ranks: Mapping[int, str]) -> None:
        """Take how ranks ended between the last draw, if there was one, and the next one."""
        for rank, how in ranks.items():
            self._count(self.system or NO_SYSTEM, rank, Change(PROCESS, RUNS, how))

    def _count(self, system: System, rank: int, change: Change) -> None:
        names = _names(system)
        first = Leftover(rank, *names, change.what, change.old, change.new, change.at_import, draws=0)
        kind = (*names, change.what, change.at_import)
        known = self._by_kind.get(kind, first)
        self._by_kind[kind] = msgspec.structs.replace(known, draws=known.draws + 1)


def _names(system: System) -> tuple[str, str]:
    return system.pool, system.collectives
