"""Hung draws made by hand: ranks are put where a test needs them, event by event."""

from __future__ import annotations

from harness.oracle.case import Case
from harness.scenario.layouts.groups import ids_of
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Step
from harness.scenario.topology import Topology
from harness.trace.draw import Draw, Fate
from harness.trace.events import Began, Closing, CommCreated, Entered, Event
from harness.trace.trace import TEARDOWN, Trace
from tests.tools.scenes import explicit

CHAIN = explicit(tp=((0, 1), (2,)), cp=((0,), (1, 2)))
RING = explicit(tp=((0, 1), (2,)), cp=((1, 2), (0,)), dp=((0, 2), (1,)))
EIGHT = explicit(tp=((0, 1, 2, 3), (4, 5, 6, 7)), cp=((0, 4), (1, 5), (2, 6), (3, 7)))
THROUGH = (Began(TEARDOWN), Closing())
DONE = (Began(0), *THROUGH)
STEPS: tuple[Step, ...] = tuple(Allocate(f"b{index}", "tp", 8) for index in range(3))


def case(topology: Topology, *ranks: tuple[Event, ...], steps: tuple[Step, ...] = STEPS) -> Case:
    """A hang in which each rank has these facts, its communicators before them. Unnamed ranks are done."""
    world = topology.world
    facts = (*ranks, *[DONE] * (world - len(ranks)))
    traces = tuple(Trace(rank, (*comms(topology, rank), *events)) for rank, events in enumerate(facts))
    return Case(Draw(Scenario(topology, steps), traces, tuple(Fate(rank, "hung") for rank in range(world)), 5.0, 5.0))


def comms(topology: Topology, rank: int) -> list[CommCreated]:
    """The communicators of a rank, numbered as its families are."""
    mine = ((number, ids_of(ids, rank)) for number, ids in enumerate(topology.ids.values()))
    return [CommCreated(number, group.ranks, 0, True) for number, groups in mine for group in groups]


def inside(family: int, call: str = "register", step: int = 0) -> tuple[Event, ...]:
    """In a call over the group of the family with this number."""
    return Began(step), Entered(call, family)


TP, CP, DP = range(3)
