"""Process state that one system changes, and then a planted fault of another in the same world, which has to be found.

The systems are the pools of `tests.tools.stateful` where there is such a module, and else those of `pieces`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType

from harness.errors import UsageError
from tests.hostile import forked, pieces, runs
from tests.hostile.case import Case, Outcome

DEMANDED = "a planted fault is found by the rule and in the draw of a fresh world"
ELSEWHERE = "tests.tools.stateful"
FAULTS = ("F03", "F06", "F13", "F14", "F15", "F17", "F22", "F24", "K02")
EACH = 4
"""Systems before each fault."""
MOST = 60
"""Draws in which the fault has to be found."""
FINDS = "finds"
"""The program in which both worlds run."""


def names() -> list[str]:
    """The systems that change something, as `--pool` takes them."""
    if importlib.util.find_spec(ELSEWHERE) is None:
        return [f"{pieces.__name__}:{name}" for name in pieces.PIECES]
    return [f"{ELSEWHERE}:{name}" for name in _pools(import_module(ELSEWHERE))]


def _pools(module: ModuleType) -> list[str]:
    """The classes that a module defines and that are pools."""
    return [
        name
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and hasattr(each, "use") and hasattr(each, "close")
    ]


NUMBER = max(20, len(names()))


def cases(random: Random, number: int) -> list[Case]:
    """Faults, each after some of the systems."""
    listed = names()
    random.shuffle(listed)
    chosen = [listed[index % len(listed)] for index in range(number)]
    faults = random.sample(FAULTS, min(len(FAULTS), -(-number // EACH)))
    shared = [(fault, chosen[index :: len(faults)]) for index, fault in enumerate(faults)]
    return [
        Case(f"{fault} after {', '.join(systems)}", partial(_act, fault, systems), len(systems))
        for fault, systems in shared
    ]


def _act(fault: str, systems: Sequence[str], folder: Path) -> Outcome:
    forked.finds = _finds  # type: ignore[attr-defined]
    ended = runs.run(folder, fault, *systems, program=FINDS)
    found = runs.problems(ended, (0,))
    if ended.status == 0:
        before, *after = json.loads(ended.out.splitlines()[-1])
        found += [] if before else ["it is found in no world"]
        found += [
            f"found as {each} after {system}, and as {before} in a fresh world"
            for system, each in zip(systems, after, strict=True)
            if each != before
        ]
    return Outcome(tuple(f"{fault}: {each}" for each in found))


def _finds(arguments: tuple[str, ...]) -> int:
    """In the child: what is found of the fault in a fresh world, and what after each system in a world of its own."""
    fault, *systems = arguments
    print(json.dumps([_found(fault), *(_found(fault, system) for system in systems)]))
    return 0


def _found(fault: str, system: str | None = None) -> list[object]:
    """The rule and the draws with which a fault is found, after draws of a system if one is given."""
    from harness.campaign.campaign import Campaign
    from harness.campaign.limits import Limits
    from harness.scenario.system import System
    from harness.strategies.programs import scenarios
    from harness.studies.faults.catalogue import select
    from harness.world.world import World

    limits = replace(Limits().within(0), more=1)
    (planted,) = select([fault])
    with World(2, "sim", deadline=5) as world:
        if system is not None:
            stateful = scenarios(2, system=System(system), via="library")
            with suppress(UsageError):  # a system that is refused has changed the process all the same
                Campaign(world, stateful, Path("kept"), limits=limits).run(3)
        campaign = Campaign(world, planted.draws(2), Path("kept"), limits=limits)
        found = campaign.run(MOST).found
    return next(([rule, each.draws_to_find] for rule, each in found.items()), [])
