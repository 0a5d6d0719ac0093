"""A finding of a recording made into a program, and kept as a seed: the memory of the call, its windows, and the call.

Invariant: the program has only what was recorded. Where the harness has no step for something, the error names it. A
seed file that is written has broken the same rule on the harness's own ranks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from hypothesis import strategies as st

from harness.campaign.campaign import Campaign
from harness.campaign.limits import Limits
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.oracle.findings import Finding
from harness.oracle.history import History, Use
from harness.oracle.lives import WindowLife
from harness.oracle.sight import Sight
from harness.scenario.bases import Op
from harness.scenario.layouts.groups import Groups
from harness.scenario.operands import ITEMSIZE, DType, Elements, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    Collective,
    Recreate,
    ReduceScatter,
    Release,
    Step,
    Trim,
    same_on_all,
)
from harness.scenario.topology import Topology
from harness.studies.watching.judging import Judged
from harness.trace.events import Called
from harness.world.world import World

LIMITS = Limits(more=1, shrinks=0, reruns=1)
MOST = 1 << 16
"""Elements a rank of a call that the program makes; where memory lies does not depend on more."""
BUFFER, SECOND = "recorded", "recorded-output"
"""What the call's buffer is called, and its second one if peers reach both."""
OF_REGISTRATIONS = ("freed-while-registered", "double-registration", "registration-skew", "oversized-window", "hang")
"""Rules that are about segments and their registrations, at whatever call they show."""
UNTELLABLE = {
    "registered-in-capture": "registers in a capture",
    "captured-reuse": "gives memory of a graph to another buffer",
    "half-registered": "sends from one rank to another alone",
}
"""Rules of which the steps of a program cannot say the memory, with what there is no step for: `registered` is for
memory outside graphs, and who gets a block is the pool's."""
FREED = ("freed-while-registered", "stale-window")


class Untold(UsageError):
    """A finding of which no program can be made; the message says what it has no step for."""


def program_of(case: Case, topology: Topology, finding: Finding) -> Scenario:
    """A scenario over the recorded communicators that does what the finding is about. Raises `Untold`."""
    if finding.rule in UNTELLABLE:
        raise Untold(f"no program can be made of {finding.rule}: there is no step that {UNTELLABLE[finding.rule]}")
    uses = next((each for (step, _), each in case.calls.items() if step == finding.step and _has(each, finding)), None)
    is_of_call = uses is not None and finding.rule not in OF_REGISTRATIONS
    steps = _call(case, topology, uses or ()) if is_of_call else _registrations(case, topology, finding)
    return Scenario(topology, tuple(steps))


def _has(uses: Sequence[Use], finding: Finding) -> bool:
    return any(use.rank in finding.ranks for use in uses)


def _call(case: Case, topology: Topology, uses: Sequence[Use]) -> Iterator[Step]:
    """The buffers that peers reach, as they were registered; what became of their windows; the call."""
    called, group = uses[0].called, uses[0].comm.group
    roles = case.peer_roles([*uses])
    if called.kind not in ("all_gather", "reduce_scatter", "all_reduce"):
        raise Untold(f"no program can be made of it: there is no step for {called.kind}")
    dtype = _dtype(called.dtype)
    if not isinstance(called.counts, int):
        raise Untold("no program can be made of it: its ranks differ in counts")
    if called.op is not None and called.op not in get_args(Op):
        raise Untold(f"no program can be made of it: there is no step for op {called.op}")
    count = min(called.counts, MOST)
    if all(use.called.source.address == use.called.output.address for use in uses):
        roles = roles[:1]  # in place: one buffer
    gone: list[str] = []
    for role, buffer in zip(roles, (BUFFER, SECOND), strict=False):
        sights = {use.rank: use.sight(role) for use in uses}
        lists = {rank: _registered(topology, case.histories[rank], sight) for rank, sight in sights.items()}
        family = next((names[0] for names in lists.values() if names), called.family)
        leads = _leads(topology.world, sights, ITEMSIZE[dtype])
        elements = count if called.kind == "all_reduce" else count * len(group)
        yield Allocate(buffer, family, elements, dtype, registered=_lists(topology, lists), lead=leads, groups=None)
        windows = (window for rank, sight in sights.items() for window in _gone(case.histories[rank], sight))
        gone += (_family(topology, window) for window in windows)
    yield from map(Recreate, dict.fromkeys(gone))
    yield _made(called, count, (group,), is_in_place=len(roles) == 1)


def _made(called: Called, count: int, groups: Groups, is_in_place: bool) -> Collective:
    """The call, on buffers that are in the program."""
    if called.kind == "all_gather":
        return AllGather(called.family, View(BUFFER), count, groups=groups)
    op: Any = called.op
    if called.kind == "reduce_scatter":
        return ReduceScatter(called.family, View(BUFFER), count, op=op, groups=groups)
    if is_in_place:
        return AllReduce(called.family, View(BUFFER), count, op=op, groups=groups)
    return AllReduce(called.family, View(SECOND), count, View(BUFFER), op, groups=groups)


def _registrations(case: Case, topology: Topology, finding: Finding) -> Iterator[Step]:
    """One buffer for each segment that the ranks of the finding registered with one communicator, in their order."""
    histories = [case.histories[rank] for rank in finding.ranks]
    segments = [_segments(topology, history) for history in histories]
    if not any(segments):
        raise Untold(f"no program can be made of {finding.rule}: no rank of it registered a segment")
    for number in range(max(map(len, segments))):
        lists = {
            history.rank: found[number] if number < len(found) else ()
            for history, found in zip(histories, segments, strict=True)
        }
        name = f"{BUFFER}{number}"
        family = next(names[0] for names in lists.values() if names)
        yield Allocate(name, family, 1, registered=_lists(topology, lists))
        if finding.rule in FREED:
            yield Release(name)
    if finding.rule in FREED:
        yield Trim()


def _segments(topology: Topology, history: History) -> list[tuple[str, ...]]:
    """For each segment that a rank registered the families it was registered with, in order."""
    found: dict[int, list[str]] = {}
    for window in history.windows.values():
        found.setdefault(window.event.segment, []).append(_family(topology, window))
    return [tuple(names) for names in found.values()]


def _registered(topology: Topology, history: History, sight: Sight) -> tuple[str, ...]:
    """The families with which the segment of an operand had been registered by then, in order."""
    return tuple(_family(topology, window) for window in _over(history, sight))


def _gone(history: History, sight: Sight) -> list[WindowLife]:
    """The windows over an operand that went with their communicators."""
    return [each for each in _over(history, sight) if each.is_gone_with_communicator and each in sight.former]


def _over(history: History, sight: Sight) -> list[WindowLife]:
    """The windows over an operand's segment that were there before the call, live or gone."""
    if sight.segment is None:
        return []
    known = {id(window) for window in (*sight.others, *sight.beside, *sight.nulls, *sight.former)}
    return [
        window
        for window in history.windows.values()
        if window.segment is sight.segment and (id(window) in known or window is sight.window)
    ]


def _family(topology: Topology, window: WindowLife) -> str:
    return next(name for name, ids in topology.ids.items() if window.comm.id in ids)


def _lists(topology: Topology, lists: dict[int, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """What each rank registers, once if all do the same. A rank that the finding says nothing of does as the first that
    it speaks of."""
    usual = next(iter(lists.values()))
    return same_on_all(tuple(lists.get(rank, usual) for rank in range(topology.world)))


def _leads(world: int, sights: dict[int, Sight], width: int) -> Elements:
    """How far into its segment the operand begins on each rank, where ranks differ."""
    starts = {
        rank: (sight.operand.address - sight.segment.event.address) // width
        for rank, sight in sights.items()
        if sight.segment is not None
    }
    least = min(starts.values(), default=0)
    found = tuple(min(starts.get(rank, least) - least, MOST) for rank in range(world))
    return found if any(found) else 0


def _dtype(name: str) -> DType:
    known: tuple[DType, ...] = get_args(DType)
    for dtype in known:
        if dtype == name:
            return dtype
    raise Untold(f"no program can be made of it: there is no step for {name}")


def first_program(judged: Judged) -> tuple[Scenario, str]:
    """The program of the first finding that can be made one, and the finding's rule. Raises `UsageError` with the
    reason of the first finding where there is none."""
    reasons = []
    for finding in judged.findings:
        try:
            return program_of(judged.case, judged.assembled.members.topology, finding), finding.rule
        except UsageError as error:
            reasons.append(error)
    raise reasons[0]


def keep(world: World, scenario: Scenario, rule: str, target: Path, environment: dict[str, Any]) -> Scenario:
    """Run a program that a recording's finding became, shrink it, and write the smallest as a seed file. Raises
    `UsageError` where it breaks another rule, or none."""
    with TemporaryDirectory(prefix="symm-") as folder:
        campaign = Campaign(world, st.just(scenario), Path(folder), environment=environment, limits=LIMITS)
        found = campaign.run(1).found
        kept = next((each for each in found.values() if each.finding.rule == rule), None)
        if kept is None:
            others = ", ".join(found) or "no rule"
            raise UsageError(f"the program made of the recording breaks {others}, and not {rule}; it is not kept")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(kept.seed_file, part)
        os.replace(part, target)
        return kept.scenario
