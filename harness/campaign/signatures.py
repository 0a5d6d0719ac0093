"""The signature of a finding: 16 hex digits that are equal over nights, seeds and substrates.

It is a hash of the rule and its cause, of the place in the system, and of the shape of the smallest case. Invariant: it
follows from the case and its first finding alone. No count, address, line, name or rank number goes into it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec

from harness.campaign.symptoms import OF_CALLS, at, differs, traits, until, where
from harness.oracle.findings import Finding, Record
from harness.scenario.bases import CollectiveStep
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Ballast, GraphStep, Step
from harness.scenario.system import System

VERSION = 1
"""Goes into every signature. A change of what is hashed raises it."""
DIGITS = 16
LINE = re.compile(r":\d+\)")
PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\b0x[0-9a-f]+\b|\d+")
"""What differs from one run to the next in the message of an exception."""
RAISED = re.compile(r" raised (?:\w+): (.*?)(?: in \S+ \([^()]*\))? on rank", re.DOTALL)

Form = tuple[Any, ...]


def signature(findings: Sequence[Finding | Record], scenario: Scenario) -> str:
    """The signature of a smallest case, by the first of its findings: the others follow from that one."""
    data = msgspec.json.encode(form(findings[0], scenario))
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def form(record: Finding | Record, scenario: Scenario) -> Form:
    """What is hashed."""
    cause = LINE.sub(")", record.cause)
    place = where(record, scenario)
    if record.rule == "raised" and (message := RAISED.search(record.explanation)):
        place = PARTICULAR.sub("…", message[1])
    apart = sorted(traits(record, scenario))
    own = part(scenario.system, parts(record, scenario))
    return VERSION, record.rule, cause, place, own, apart, _program(record, scenario)


def parts(record: Finding | Record, scenario: Scenario) -> tuple[str, ...]:
    """The parts of the system that the rule is about, by name: kernels, or the pool policy with the sites that ask
    it."""
    step = at(record, scenario)
    is_kernel = record.rule in (*OF_CALLS, "hang") and isinstance(step, CollectiveStep) and step.via == "kernel"
    return ("collectives",) if is_kernel else ("pool", "sites")


def part(system: System, names: Sequence[str]) -> Form:
    """These parts of a system. Two systems that have them alike are one to the rule."""
    return tuple(getattr(system, name) for name in names)


def _program(record: Finding | Record, scenario: Scenario) -> list[Form]:
    """The steps up to the finding, by communicators in the order of first use. One stands for equal ones in a row."""
    steps = until(record, scenario)
    ids = [None if step.family is None else scenario.topology.ids[step.family] for step in steps]
    order = list(dict.fromkeys(each for each in ids if each is not None))
    families = [None if each is None else order.index(each) for each in ids]
    forms = (
        _step(scenario, step, family, record.rule in OF_CALLS) for step, family in zip(steps, families, strict=True)
    )
    return [each for each, _ in groupby(forms)]


def _step(scenario: Scenario, step: Step, family: int | None, is_of_calls: bool) -> Form:
    """A step without names, counts and ranks."""
    match step:
        case CollectiveStep() if is_of_calls:
            return step.kind, family, step.via, step.op, step.part is not None
        case CollectiveStep():
            return "call", family
        case Allocate():
            return step.kind, family, step.role, differs(scenario, step), step.stream > 0
        case Ballast():
            return step.kind, family
        case GraphStep():
            return (step.kind,)
    return step.kind, family, getattr(step, "begins", True)
