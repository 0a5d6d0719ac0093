"""Recordings built by hand: two communicators over the same two ranks, and what the oracle says of them."""

from __future__ import annotations

from typing import NamedTuple

from harness.oracle.findings import Finding
from harness.oracle.judge import examine
from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.placement import Placement
from harness.scenario.topology import Topology
from harness.trace.draw import Fate, State
from harness.trace.events import (
    Began,
    Called,
    CommCreated,
    Entered,
    Event,
    Kind,
    Operand,
    Ran,
    Registered,
    Role,
    SegmentAllocated,
)
from harness.trace.recording import Recording
from harness.trace.trace import Trace

TP, CP = 0, 1
"""Two communicators over the same two ranks."""
MIB = 1 << 20
LEGACY, SYMMETRIC = Ran("legacy", "NCCL's word", None, True), Ran("symmetric", "NCCL's word", None, True)
BOTH: tuple[Role, ...] = ("source", "output")


class Step(NamedTuple):
    """What one rank does at one place."""

    place: str
    events: tuple[Event, ...]


def comm(number: int, ident: int | None = None, generation: int = 0, group: Group = (0, 1)) -> Event:
    return CommCreated(number if ident is None else ident, group, generation, True, number)


def allocated(segment: int, size: int = 4 * MIB) -> Event:
    return SegmentAllocated(segment, "", segment * 64 * MIB, size)


def registered(comm: int, segment: int, size: int = 4 * MIB, window: int = 0) -> tuple[Event, ...]:
    """A registration of a whole segment; without a number its window has one of its own."""
    made = Registered(window or 100 + 10 * comm + segment, comm, segment, segment * 64 * MIB, size, False)
    return Entered("register", comm), made


def within(segment: int, offset: int = 4096) -> Operand:
    return Operand(f"segment {segment} + {offset}", segment * 64 * MIB + offset, 1024)


ORDINARY = Operand("ordinary memory", 7 << 40, 1024)


def called(
    comm: int, output: Operand, *, source: Operand = ORDINARY, kind: Kind = "all_gather", ran: Ran | None = LEGACY
) -> tuple[Event, ...]:
    """A call as an assembler writes it; one without `ran` has not returned."""
    meant = tuple(role for role, operand in zip(BOTH, (source, output), strict=True) if operand != ORDINARY)
    op = "sum" if kind in ("all_reduce", "reduce_scatter") else None
    family = ("tp", "cp")[comm % 10]
    made = Called(comm, source, output, kind, "bfloat16", op, 256, "library", family, meant, claims=False)
    return (made, Entered(kind, comm), *([] if ran is None else [ran]))


SETUP = Step("the start of main.py", (comm(TP), comm(CP), allocated(3)))
REGISTER = "register 1 (pool.py:12 __exit__)"
CALL = "all_gather 1 (model.py:31 forward)"
OWNED = (SETUP, Step(REGISTER, registered(TP, 3)), Step(CALL, called(TP, within(3), ran=SYMMETRIC)))


def recording(
    *ranks: tuple[Step, ...], states: tuple[State, ...] = (), placement: Placement | None = None, seconds: float = 0.0
) -> Recording:
    """These steps; places of the same text are one step."""
    places = tuple(dict.fromkeys(step.place for steps in ranks for step in steps))
    families: dict[str, Groups] = {"tp": (tuple(range(len(ranks))),), "cp": (tuple(range(len(ranks))),)}
    traces = tuple(
        Trace(rank, tuple(event for step in steps for event in (Began(places.index(step.place)), *step.events)))
        for rank, steps in enumerate(ranks)
    )
    fates = tuple(Fate(rank, state) for rank, state in enumerate(states or ["finished"] * len(ranks)))
    topology = Topology("watched", "explicit", placement=placement, families_given=families, shares={})
    return Recording(topology, traces, fates, places, seconds, nccl=(2, 32, 3))


def found(*ranks: tuple[Step, ...], states: tuple[State, ...] = ()) -> list[Finding]:
    return examine(recording(*ranks, states=states)).findings


def keys(findings: list[Finding]) -> list[str]:
    return [finding.key for finding in findings]
