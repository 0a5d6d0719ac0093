"""What a failing draw shows before it is made smaller: its symptom, and the traits that a smaller case may need.

Invariant: a smaller case of a draw has no trait that the draw has not. So a draw that lacks a trait of a known smallest
case is no draw of that finding, whatever rule it breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.oracle.findings import Finding, Record
from harness.scenario.bases import CollectiveStep
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Ballast, Collective, GraphStep, Release, Step

OF_CALLS = frozenset(
    {
        "half-registered",
        "out-of-bounds",
        "race",
        "result-overwritten",
        "slow-path",
        "source-changed",
        "stale-peer-address",
        "wrong-data",
    }
)
"""Rules that the code of one operation may break. Others are about memory and registrations, at whatever call they
show."""
STANDS = re.compile(r"\bin (\w+(?: kernel)?) of ")
"""A call in the words of a hang (`harness.oracle.explanation`)."""
DIED = re.compile(r"^rank \d+ (.+?) at (?:step|the)\b")
LAST_FRAME = re.compile(r", in (\S+) \(([^:()]+):\d+\)\.$")
OF_LAYOUTS = frozenset({"more than two ranks", "2 families", "3 families"})
"""Traits that a smallest case may have because no layout that was tried is smaller."""
LARGE = 4096
"""Elements from which on a call is large."""


class Symptom(NamedTuple):
    """What a finding shows: its rule and cause with the place in the system. Beside another rule, which leads its draw,
    a finding mostly follows from that one: then the place does not count."""

    shown: str
    beside: str = ""

    def __str__(self) -> str:
        return BESIDE.join(filter(None, self))

    @staticmethod
    def read(text: str) -> Symptom:
        """The symptom of that text."""
        return Symptom(*text.split(BESIDE, 1))


BESIDE = " beside "


def symptom(findings: Sequence[Finding | Record], number: int, scenario: Scenario) -> Symptom:
    """The symptom of one of a draw's findings."""
    record, lead = findings[number], findings[0]
    return Symptom(shown(record, scenario)) if lead.rule == record.rule else Symptom(record.key, lead.rule)


def shown(record: Finding | Record, scenario: Scenario) -> str:
    """The rule, its cause, and where in the system it shows, such as `wrong-data in all_reduce by kernel`."""
    place = where(record, scenario)
    return f"{record.key} {place}" if place else record.key


def where(record: Finding | Record, scenario: Scenario) -> str:
    """Where in the system a finding shows, if its rule says that at all."""
    if record.rule in OF_CALLS:
        return _operation(at(record, scenario))
    if record.rule == "hang":
        return _standing(record.explanation)
    if record.rule == "rank-crash":
        died, frame = DIED.match(record.explanation), LAST_FRAME.search(record.explanation)
        how = re.sub(r"\d+", "N", re.sub(r"signal \d+ \((\w+)\)", r"\1", died[1])) if died else ""
        return f"{how}, in {frame[1]} ({frame[2]})" if frame else how
    return ""


def at(record: Finding | Record, scenario: Scenario) -> Step | None:
    """The step at which a finding shows; None for the start and the end."""
    return scenario.steps[record.step] if 0 <= record.step < len(scenario.steps) else None


def until(record: Finding | Record, scenario: Scenario) -> Sequence[Step]:
    """The steps up to that one."""
    return scenario.steps[: record.step + 1]


def _operation(step: Step | None) -> str:
    """A step, and the way that it goes."""
    if step is None:
        return "at the end"
    if not isinstance(step, CollectiveStep):
        return f"in {step.kind}"
    return f"in {step.kind}" if step.via == "library" else f"in {step.kind} by {step.via}"


def _standing(explanation: str) -> str:
    """The calls in which ranks stand at the root of a hang. If one registers, others wait for that wherever they are
    next."""
    root = explanation.partition(". ")[0]
    if " register" in root:
        return "in register"
    calls = sorted(set(STANDS.findall(root)))
    kernels = [call for call in calls if call.endswith(" kernel")]
    if kernels:
        return f"in {', '.join(kernels)}"
    return "in a call" if calls else ""


def traits(record: Finding | Record, scenario: Scenario) -> frozenset[str]:
    """What is not plain in a scenario, up to the step at which a finding shows."""
    steps, own = until(record, scenario), at(record, scenario)
    return frozenset([*_of_place(scenario, own), *_of_program(scenario, steps), *_of_call(record, scenario, own)])


def _of_place(scenario: Scenario, own: Step | None) -> Iterator[str]:
    """Where ranks are, and whether more than two take part."""
    if len(set(scenario.topology.node_of)) > 1:
        yield "nodes"
    if scenario.falls_on:
        yield "falling addresses"
    acting = scenario.acting(own) if isinstance(own, Allocate | CollectiveStep) else scenario.groups
    if any(len(group.ranks) > 2 for group in acting):
        yield "more than two ranks"


def _of_program(scenario: Scenario, steps: Sequence[Step]) -> Iterator[str]:
    """Kinds of steps beside allocations and calls, and how many communicators they name."""
    named = {scenario.topology.ids[step.family] for step in steps if step.family is not None}
    yield from (f"{number} families" for number in range(2, min(len(named), 3) + 1))
    for step in steps:
        if isinstance(step, Release | GraphStep) or not isinstance(step, Allocate | Collective | Ballast):
            yield step.kind
        elif isinstance(step, Collective):
            yield "call"
        if differs(scenario, step):
            yield "ranks that differ"
        if isinstance(step, Allocate) and step.role == "plain":
            yield "plain memory"
        if step.stream:
            yield "further streams"


def differs(scenario: Scenario, step: Step) -> bool:
    """Whether a step allocates or moves other sizes on some ranks, or nothing."""
    if isinstance(step, Ballast) or any(isinstance(getattr(step, name), tuple) for name in step.per_rank):
        return True
    if not isinstance(step, Allocate):
        return False  # other steps may be on a family whose groups overlap, of which none is named
    return len({rank for group in scenario.acting(step) for rank in group.ranks}) < scenario.world


def _of_call(record: Finding | Record, scenario: Scenario, own: Step | None) -> Iterator[str]:
    """How the call that breaks a rule differs from the plainest of its operation."""
    if record.rule not in OF_CALLS or not isinstance(own, Collective):
        return
    dtype = scenario.allocations[own.whole.buffer].dtype
    if dtype != "float32":
        yield dtype
    if own.op not in (None, "sum"):
        yield str(own.op)
    counts = (own.count,) if isinstance(own.count, int) else own.count
    if max(counts) > 1:
        yield "more than one element"
    if max(counts) >= LARGE:
        yield "a large call"
    if any(view.offset != 0 for view in own.views):
        yield "an offset"
    if own.claim:
        yield "claim"
