"""A shard: the part of a night's draws that one of several commands makes, as the engine that started it says.

Invariant: shards count from 1. The shards of a night have one seed, and no batch of draws is of two of them, so they
need no server: together they draw what one command would draw.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from harness.errors import UsageError

SHARD = "SYMM_SHARD"
"""`I/N`, for an engine that is not among `ENGINES`, as in a hosted CI's matrix."""
SHARDS = "SYMM_SHARDS"
"""How many shards there are, for an engine that says which one this is and not of how many."""
NIGHT = "SYMM_NIGHT"
"""Any text that the shards of a night share, and no other night has."""
BITS = 32
"""Of a seed that a night gives."""


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `of`, from 1 on."""

    index: int
    of: int
    source: str
    """What said so: an option or a variable of the environment."""

    def __str__(self) -> str:
        return f"shard {self.index} of {self.of}, from {self.source}"

    @property
    def batches(self) -> count[int]:
        """The numbers of the batches that it draws (`harness.strategies.batches`)."""
        return count(self.index - 1, self.of)

    def part(self, draws: int | None) -> int | None:
        """How many of a night's draws it makes."""
        return None if draws is None else (draws + self.of - self.index) // self.of


@dataclass(frozen=True)
class Engine:
    """The variables in which an engine says which of its tasks this is, of how many, and what all of them share."""

    index: str
    of: str
    night: str
    first: int | str = 0
    """The index of its first task, or the variable that has it."""
    step: str | None = None
    """The variable that says by how much indices go up, if not by 1."""

    def shard(self, environment: Mapping[str, str]) -> Shard | None:
        """The shard that this task is; None where the variables are not set, or there is one task alone."""
        if not (environment.get(self.index) and environment.get(self.of)):
            return None
        index, of = _number(environment, self.index), _number(environment, self.of)
        first = self.first if isinstance(self.first, int) else _number(environment, self.first, 1)
        step = _number(environment, self.step, 1) if self.step else 1
        place, rest = divmod(index - first, max(step, 1))
        if rest or not 0 <= place < of:
            raise UsageError(
                f"{self.index} is {index}, which is no place among {of} ({self.of}) that count from {first}"
                f"{f' in steps of {step}' if step > 1 else ''}; say which shard this is with --shard I/N"
            )
        return Shard(place + 1, of, self.index) if of > 1 else None


ENGINES = (
    Engine(  # Slurm
        *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_JOB_ID"),
        first="SLURM_ARRAY_TASK_MIN",
        step="SLURM_ARRAY_TASK_STEP",
    ),
    Engine("JOB_COMPLETION_INDEX", SHARDS, NIGHT),  # Kubernetes, which does not say how many completions there are
    Engine("CI_NODE_INDEX", "CI_NODE_TOTAL", "CI_PIPELINE_ID", first=1),  # GitLab
    Engine("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", "CIRCLE_WORKFLOW_ID"),
    Engine("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "BUILDKITE_BUILD_ID"),
)
"""The innermost first: a task of a Slurm array may have been submitted by a job of a CI."""
NIGHTS = tuple(dict.fromkeys((NIGHT, *(engine.night for engine in ENGINES), "GITHUB_RUN_ID")))
VARIABLES = tuple(dict.fromkeys((SHARD, *NIGHTS, *(name for engine in ENGINES for name in (engine.index, engine.of)))))
"""All that is read of the environment to tell whether this is a shard, and of which night."""


def shard(given: str | None, environment: Mapping[str, str]) -> Shard | None:
    """The shard that an option names, else the one that the environment names, if one does.

    Raises `UsageError` for one that is no shard, such as `0/4`.
    """
    if given is not None:
        return parse(given, "--shard")
    if named := environment.get(SHARD):
        return parse(named, SHARD)
    return next(filter(None, (engine.shard(environment) for engine in ENGINES)), None)


def uncounted(environment: Mapping[str, str]) -> str:
    """What to say where an engine names a task and nothing says of how many, or nothing."""
    for engine in ENGINES:
        if environment.get(engine.index) and not environment.get(engine.of):
            return f"no shard: {engine.index} is {environment[engine.index]}, and {engine.of} does not say of how many"
    return ""


def parse(text: str, source: str) -> Shard:
    """`I/N` as a shard. Raises `UsageError` naming its source."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise UsageError(f"{source} {text!r} is not I/N, such as 2/4")
    index, of = int(match[1]), int(match[2])
    if not 1 <= index <= of:
        raise UsageError(f"{source} {text!r} is no shard: shards count from 1, so I/N is 1/N up to N/N")
    return Shard(index, of, source)


def night_seed(environment: Mapping[str, str], today: datetime.date) -> tuple[int, str]:
    """The seed that all shards of a night share, and what gives it: what their engine calls the run, else the date."""
    name = next((name for name in NIGHTS if environment.get(name)), None)
    text = environment[name] if name else today.isoformat()
    digest = hashlib.sha256(f"{name}={text}".encode()).digest()
    return int.from_bytes(digest[: BITS // 8], "big"), f"{name} {text}" if name else f"the date, {text}"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "")
    if not text and default is not None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{name} is {text!r}, which is no number; say which shard this is with --shard I/N")
    return int(text)
