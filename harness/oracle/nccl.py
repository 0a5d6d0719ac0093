"""What NCCL allows, by version: the one place where a rule learns which NCCL ran a draw.

Invariant: a rule compares no versions; it asks here for what it has to know, by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.trace.draw import Version

SIMULATED: Version = (2, 32, 3)
"""The NCCL whose rules the simulation follows."""
UNEVEN_WINDOWS: Version = (2, 30, 7)


@dataclass(frozen=True)
class NcclRules:
    """The rules of one NCCL."""

    version: Version

    @property
    def has_uneven_windows(self) -> bool:
        """Whether the ranks of a communicator may register windows of different sizes (2.30.7, release notes)."""
        return self.version >= UNEVEN_WINDOWS


def rules_of(version: Version | None) -> NcclRules:
    """The rules that applied to a draw on this NCCL, or on the simulation where there is none."""
    return NcclRules(SIMULATED if version is None else version)
