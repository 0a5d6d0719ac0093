"""Kinds of evidence for what NCCL did with a call: which there are, from which version on, and what each shows.

Invariant: a kind that is asked for and cannot be had is refused with the reason; otherwise the sharpest of this
version is chosen. Nothing here needs NCCL to be installed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.errors import MachineError, UsageError, not_one_of
from harness.machine import profiler

Version = tuple[int, ...]


FORCED, CALLS = "forced", "calls"


class Kind(msgspec.Struct, frozen=True):
    """One kind of evidence. `since`: the first NCCL that has it. `environment`: what selects it, on every machine."""

    name: str
    since: Version
    shows: str
    is_of_path: bool = False
    """Whether it shows which path a call took; a world has one such kind, or `forced` and `calls` together."""
    is_simulated: bool = False
    """Whether the simulation has it too."""
    environment: dict[str, str] = {}

    def missing(self, version: Version) -> str:
        """Why this NCCL does not have it, or this machine cannot; empty if both do."""
        if version < self.since:
            return f"evidence {self.name!r} needs NCCL {dotted(self.since)}; {dotted(version)} is there"
        why = self.lacks()
        return why and f"evidence {self.name!r} cannot be had: {why}"

    def lacks(self) -> str:
        """What it needs beside NCCL and this machine lacks; empty if nothing."""
        return profiler.why_missing() if self.name == CALLS else ""

    def needs(self) -> dict[str, str]:
        """The environment that processes need for it. Raises `MachineError` where this machine cannot have it."""
        return {profiler.VARIABLE: profiler.library()} if self.name == CALLS else self.environment


KINDS = (
    Kind(FORCED, (2, 31), "path and ownership: NCCL runs a forced symmetric kernel, or refuses it", is_of_path=True),
    Kind(CALLS, (2, 31), "path: what NCCL tells its profiler plug-in of each call", is_of_path=True),
    Kind("profiler", (2, 27), "path: the names of the kernels that ran, from CUPTI", is_of_path=True),
    Kind(
        "log",
        (2, 27),
        "path: what NCCL's log says of each call, on rank 0 of a communicator",
        is_of_path=True,
        environment={"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,TUNING,REG"},
    ),
    Kind(
        "check",
        (2, 29, 7),
        "ownership: NCCL compares registrations and offsets between ranks on every call",
        environment={"NCCL_CHECK_MODE": "DEBUG_GLOBAL"},
    ),
    Kind(
        "stamps", (2, 29, 2), "mapping: stamps of all ranks, read through peer pointers without NCCL", is_simulated=True
    ),
    Kind("digests", (2, 27), "data: a digest of every output, for comparing worlds", is_simulated=True),
    Kind("differential", (2, 31), "bits: the same call again, forced to the legacy path", is_simulated=True),
)
NAMES = tuple(kind.name for kind in KINDS)


def dotted(version: Version) -> str:
    """Such as `2.29.7`."""
    return ".".join(map(str, version))


def check_names(asked: Sequence[str]) -> None:
    """Raise `UsageError` for a kind that does not exist, and for two that show which path a call took."""
    for name in asked:
        if name not in NAMES:
            raise not_one_of("evidence", name, NAMES)
    paths = [kind.name for kind in KINDS if kind.is_of_path and kind.name in asked]
    if len(paths) > 1 and paths != [FORCED, CALLS]:
        raise UsageError(f"evidence {' and '.join(map(repr, paths))} both say which path a call took; name one")


def on_nccl(asked: Sequence[str], version: Version) -> tuple[Kind, ...]:
    """The kinds for a world on this NCCL: those asked for and, of the path, the sharpest if none is named.

    That is the forced path, with NCCL's own word beside it where it can be had. Raises `MachineError` for one that this
    version does not have.
    """
    chosen = [kind for kind in KINDS if kind.name in asked]
    for kind in chosen:
        if kind.missing(version):
            raise MachineError(kind.missing(version))
    if not any(kind.is_of_path for kind in chosen):
        chosen = [*_of_path(version), *chosen]
    return tuple(chosen)


def _of_path(version: Version) -> list[Kind]:
    """The sharpest evidence of the path."""
    there = [kind for kind in KINDS if kind.is_of_path and kind.name != CALLS and not kind.missing(version)]
    beside = [kind for kind in KINDS if kind.name == CALLS and there[0].name == FORCED and not kind.missing(version)]
    return [there[0], *beside]


def on_sim(asked: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds for the simulation, which knows its paths. Raises `MachineError` for one that only NCCL has."""
    chosen = tuple(kind for kind in KINDS if kind.name in asked)
    for kind in chosen:
        if not kind.is_simulated:
            raise MachineError(f"evidence {kind.name!r} comes from NCCL; the simulation has none of it")
    return chosen
