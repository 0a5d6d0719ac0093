"""What a rank is told when it is born."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True):
    """A rank's place in the world. `parent` is the process whose death it must not survive."""

    rank: int
    processes: int
    substrate: str
    gpu: int | None
    environment: dict[str, str]
    parent: int
    evidence: tuple[str, ...] = ()
