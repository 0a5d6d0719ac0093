"""Facts of a test beside its outcome: how many scenarios it ran, how many of them tested nothing, and its seed files.

Invariant: they are text, so that reports of other processes carry them (`pytest -n`), and JUnit XML holds them.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from harness.plugin.tested_world import TestedWorld
from harness.text import counted

DRAWS, REASONS = "symm_draws", "symm_vacuous_by_reason"


def tested_world(item: pytest.Function) -> TestedWorld | None:
    """The world that a test runs on, if it does."""
    return next((value for value in item.funcargs.values() if isinstance(value, TestedWorld)), None)


def record(item: pytest.Function, world: TestedWorld) -> None:
    """Put the facts of a test that has run among its properties."""
    facts = {
        "symm_substrate": world.substrate,
        DRAWS: str(world.draws),
        "symm_vacuous": str(world.vacuous.total()),
        REASONS: json.dumps(world.vacuous),
    }
    item.user_properties += [*facts.items(), *(("symm_seed_file", path) for path in world.seed_files)]


def words(report: pytest.TestReport) -> str:
    """What `-v` shows of a test behind its outcome; empty for one that ran no scenario."""
    facts = dict(report.user_properties)
    draws, vacuous = int(str(facts.get(DRAWS, 0))), Counter(json.loads(str(facts.get(REASONS, "{}"))))
    if not draws:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in vacuous.most_common())
    return f"({counted(draws, 'draw')}, {vacuous.total()} vacuous{f': {reasons}' if reasons else ''})"
