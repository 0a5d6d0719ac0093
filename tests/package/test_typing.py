"""A user's `mypy --strict` sees the types of an installed harness."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tools.installed import Environment

USER = """
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hypothesis import given, settings

from harness import Draw, Finding, Scenario, TestedWorld, World, judge, scenarios
from harness.system.collectives import CollectiveContext, Collectives, TritonCollectives
from harness.system.context import PoolPolicy, ProcessGroup, RankContext


class MyPool:
    def __init__(self, context: RankContext) -> None:
        self._pool = context.pool("mine")

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with self._pool.use():
            yield

    def close(self) -> None:
        self._pool.close()


class MyKernels(TritonCollectives):
    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_gather(context, output, source)
        context.barrier()


def policy(context: RankContext) -> PoolPolicy:
    return MyPool(context)


KERNELS: Collectives = MyKernels()


@settings(max_examples=5, deadline=None)
@given(scenario=scenarios(world=2))
def test_mine(world: TestedWorld, scenario: Scenario) -> None:
    draw: Draw = world.check(scenario)
    assert not judge(draw)


def found(scenario: Scenario) -> list[Finding]:
    with World(2, "sim") as world:
        return judge(world.run(scenario))
"""
MISTAKE = """
from harness import World, scenarios


def wrong(world: World) -> None:
    world.run("a scenario")


scenarios(world="four")
"""

SETTINGS = """
[mypy]
strict = true

[mypy-torch.*]
follow_imports = skip
"""
"""torch's own types take mypy most of a minute to read, and no claim here rests on them."""


@pytest.fixture(scope="module")
def checked(environment: Environment) -> list[str]:
    """The lines that mypy prints of both files."""
    for name, text in {"user.py": USER, "mistaken.py": MISTAKE, "mypy.ini": SETTINGS}.items():
        Path(environment.elsewhere, name).write_text(text.removeprefix("\n"))
    asked = ("--no-color-output", "--python-executable", environment.python, "user.py", "mistaken.py")
    return environment.run(sys.executable, "-m", "mypy", *asked).stdout.splitlines()


def test_a_users_plug_ins_and_property_pass_mypy_strict(checked: list[str]) -> None:
    assert checked[-1].endswith("(checked 2 source files)")
    assert not [line for line in checked if line.startswith("user.py")]


def test_mypy_finds_a_users_mistakes_in_calls_of_the_harness(checked: list[str]) -> None:
    places = [line.partition(": error: Argument")[0] for line in checked[:-1]]
    assert places == ["mistaken.py:5", "mistaken.py:8"], checked
