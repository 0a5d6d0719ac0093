"""One scenario on several systems under test: what each breaks, and where it first goes another way.

Invariant: all run on the same world, and each is compared with the same draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from harness.campaign.replay import with_system
from harness.errors import PluginError, UsageError
from harness.oracle.case import Case
from harness.oracle.findings import Record
from harness.oracle.judge import examine_case
from harness.scenario.scenario import Scenario
from harness.scenario.system import POOLS, System
from harness.studies.agree.facts import Difference, Facts, Where, between, data, ownership, path, place
from harness.trace.draw import Draw
from harness.trace.events import Entered, Placed, Registered, SegmentAllocated
from harness.trace.trace import TEARDOWN
from harness.world.world import World

LIBRARY, SITES = "collectives by the library", "sites that name their group"


class Tried(NamedTuple):
    """The scenario on one system. `first` is where its draw first differs from the one that it is compared with."""

    system: str
    draw: Draw | None
    findings: tuple[Record, ...]
    first: Difference | None = None
    refused: str = ""
    """Why it could not run there."""


def variants(scenario: Scenario, pools: Sequence[str] = POOLS) -> Iterator[tuple[str, Scenario]]:
    """The scenario on other systems by their names: with each pool; with the library, where kernels run calls; and
    with sites that name their group, where they do not."""
    own = scenario.system
    for pool in pools:
        if pool != own.pool:
            yield f"pool {pool}", with_system(scenario, pool=pool)
    by_library = with_system(scenario, collectives="library")
    if by_library.steps != scenario.steps:
        yield LIBRARY, by_library
    if own.sites == "implicit":
        yield SITES, with_system(scenario, sites="explicit")


def name_of(system: System) -> str:
    """The parts of a system in a line."""
    sites = "" if system.sites == "explicit" else f", sites {system.sites}"
    return f"pool {system.pool}{sites}"


def compare(
    world: World, own: Draw, others: Iterable[tuple[str, Scenario]], *, hurried: bool = True
) -> Iterator[Tried]:
    """Run each of the others on `world`, and compare it with a draw. A system that refuses the scenario says why."""
    facts = known(Case(own))
    for name, scenario in others:
        try:
            draw = world.run(scenario, hurried=hurried)
        except (PluginError, UsageError) as error:
            yield Tried(name, None, (), refused=str(error))
            continue
        case = Case(draw)
        found = tuple(finding.record() for finding in examine_case(case).findings)
        differ = between(facts, known(case)) or ()
        yield Tried(name, draw, found, next(iter(differ), None))


def known(case: Case) -> Facts:
    """What two systems may do differently, by step and rank: memory and registrations, then calls and their data."""
    return growth(case) | ownership(case) | place(case) | path(case) | data(case)


def growth(case: Case) -> Facts:
    """For each step and rank: segments that came, buffers and where they lie, and registrations that were entered."""
    found: dict[Where, list[str]] = {}
    for history in case.histories:
        for step, event in history.trace.steps():
            match event:
                case SegmentAllocated() if step < TEARDOWN:
                    thing, text = "memory", f"a segment of {event.size} bytes"
                case Placed() if (life := history.segments.get(event.segment)) is not None:
                    at = event.address - life.event.address
                    thing, text = f"buffer {event.buffer}", f"segment {event.segment} + {at}"
                case Registered():
                    null = " (null)" if event.is_null else ""
                    thing, text = "registration", f"{case.name(history.comms[event.comm].id)}{null}"
                case Entered(call="register"):
                    thing, text = "registration entered", case.name(history.comms[event.comm].id)
                case _:
                    continue
            found.setdefault(Where(step, history.rank, thing), []).append(text)
    return {where: " and ".join(texts) for where, texts in found.items()}


def as_data(tried: Tried) -> dict[str, object]:
    """Plain data of it."""
    first = tried.first
    return {
        "system": tried.system,
        "findings": tried.findings,
        "first_difference": first and {**first.where._asdict(), "own": first.first, "other": first.second},
        "refused": tried.refused,
    }
