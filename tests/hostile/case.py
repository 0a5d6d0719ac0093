"""One hostile act and what came of it, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """`problems` are what was demanded and not so, one sentence each; `shown` says what came of it otherwise."""

    problems: tuple[str, ...] = ()
    shown: str = ""


@dataclass(frozen=True)
class Case:
    """An act by name. `run` acts in an empty folder; `number` is how many acts it counts for."""

    name: str
    run: Callable[[Path], Outcome]
    number: int = 1


class Kind(Protocol):
    """A module of this package that has cases."""

    DEMANDED: str
    NUMBER: int

    def cases(self, random: Random, number: int) -> Sequence[Case]: ...


@dataclass
class Tally:
    """What came of a kind so far."""

    number: int = 0
    seconds: float = 0.0
    used: float = 0.0
    """Seconds of a core."""
    failures: list[dict[str, str]] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)
