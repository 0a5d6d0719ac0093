"""Makes the account of a seed: of its file alone, or of a draw of it, too.

Invariant: the account names the finding that the draw shows, and that of the file where the draw shows none or none was
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import Seed
from harness.oracle.case import Case, group_name
from harness.oracle.findings import Finding, Record, ordered
from harness.oracle.judge import every
from harness.report.frames import places
from harness.report.listing import layout, whereabouts
from harness.report.pages import lanes, wording
from harness.report.pages.account import NOT_RUN, Account, Family, Line, Member, Outcome
from harness.report.pages.moments import memory_map, roles
from harness.report.pages.outputs import outputs
from harness.report.pages.program import step_text
from harness.scenario.layouts.groups import GroupId
from harness.scenario.scenario import Scenario
from harness.studies.agree.facts import ANYWHERE
from harness.studies.systems import LIBRARY, SITES, Tried
from harness.trace.draw import Draw
from harness.trace.trace import TEARDOWN

Call = tuple[str, GroupId]
"""The family that a call names, and the group that makes it."""
NO_FINDING = Record("no finding", "the file holds no finding", -1, ())


def of_file(name: str, seed: Seed, not_run: str = "") -> Account:
    """The account of a seed that was not run."""
    leading = seed.findings[0] if seed.findings else NO_FINDING
    return Account(
        name=name,
        command=_command(name, seed.scenario),
        verdict=wording.verdict(None, seed.findings, leading),
        step=leading.step,
        families=_families(seed.scenario, (), ()),
        places=tuple(whereabouts(seed.scenario.topology)),
        program=_program(seed.scenario, leading, seed.findings),
        shows_at_end=lanes.shown(leading, seed.findings, TEARDOWN),
        system=_system(seed.scenario),
        environment=_environment(seed.environment),
        note=seed.note,
        not_run=not_run,
        stacks=tuple(places(leading)),
    )


def of_draw(name: str, seed: Seed, draw: Draw, ran_on: str, outcomes: Sequence[Outcome] = ()) -> Account:
    """The account of a seed that was run."""
    case = Case(draw)
    whole = [*every(case)]
    found = ordered(whole)
    leading = _leading(found, seed)
    records = [finding.record() for finding in found] or [*seed.findings]
    record = leading.record() if leading else _fitting(seed.findings, draw.scenario)
    calls, owns = _concerned(case, record)
    return Account(
        name=name,
        command=_command(name, draw.scenario),
        verdict=wording.verdict(case, records, record, _everywhere(whole, record)),
        step=record.step,
        families=_families(draw.scenario, calls, owns),
        places=tuple(whereabouts(draw.scenario.topology)),
        program=_program(draw.scenario, record, records),
        shows_at_end=lanes.shown(record, records, TEARDOWN),
        system=_system(draw.scenario),
        environment=_environment(seed.environment),
        note=seed.note,
        ran_on=ran_on,
        not_run="" if leading else "The run that is shown here broke no rule; the finding is the file's.",
        lanes=lanes.lanes(case, draw, leading, whole),
        memory=memory_map(case, record.step, record.ranks),
        turns=lanes.turns(case, record.ranks),
        outputs=outputs(case, draw),
        waits=lanes.waits(case),
        outcomes=tuple(outcomes),
        contrast=contrast(outcomes),
        stacks=tuple(places(record)),
    )


def _leading(found: Sequence[Finding], seed: Seed) -> Finding | None:
    """The finding that the file is about, if the draw shows it; else the draw's first."""
    wanted = seed.findings[0].key if seed.findings else ""
    return next((each for each in found if each.key == wanted), found[0] if found else None)


def _everywhere(found: Sequence[Finding], leading: Record) -> tuple[int, ...]:
    """The ranks on which a finding shows: there is one for each, and the first stands for all."""
    ranks = {rank for each in found if (each.key, each.step) == (leading.key, leading.step) for rank in each.ranks}
    return tuple(sorted(ranks | {*leading.ranks}))


def _fitting(records: Sequence[Record], scenario: Scenario) -> Record:
    """The first finding of a file, without the ranks and the step that its scenario has not: anyone may write one."""
    if not records:
        return NO_FINDING
    ranks = tuple(rank for rank in records[0].ranks if 0 <= rank < scenario.world)
    has_step = records[0].step < len(scenario.steps) or records[0].step >= TEARDOWN
    return msgspec.structs.replace(records[0], ranks=ranks, step=records[0].step if has_step else -1)


def _command(name: str, scenario: Scenario) -> str:
    return seeds.command(name, scenario.system)


def _concerned(case: Case, record: Record) -> tuple[tuple[Call, ...], tuple[GroupId, ...]]:
    """The groups that make the call of a finding, and those that own its memory."""
    calls: dict[Call, None] = {}
    owns: dict[GroupId, None] = {}
    for history in case.histories:
        for use in history.uses:
            if use.step == record.step and history.rank in record.ranks:
                calls[use.called.family, use.comm.id] = None
                for role in roles(case, use):
                    sight = use.sight(role)
                    windows = (*sight.others, *((sight.window,) if sight.window else ()))
                    owns.update(dict.fromkeys(window.comm.id for window in windows))
    return tuple(calls), tuple(owns)


def _families(scenario: Scenario, calls: Sequence[Call], owns: Sequence[GroupId]) -> tuple[Family, ...]:
    """The families that the program names; all of the layout where it names none."""
    ids = scenario.topology.ids
    return tuple(
        Family(
            name,
            tuple(
                Member(group_name({name: (group,)}, group), group.ranks, (name, group) in calls, group in owns)
                for group in ids[name]
            ),
        )
        for name in scenario.families or ids
    )


def _program(scenario: Scenario, leading: Record, records: Sequence[Record]) -> tuple[Line, ...]:
    return tuple(
        Line(index, step.kind, step_text(step), index == leading.step, lanes.shown(leading, records, index))
        for index, step in enumerate(scenario.steps)
    )


def _system(scenario: Scenario) -> dict[str, str]:
    system = scenario.system
    found = {
        "pool policy": system.pool,
        "collectives": system.collectives,
        "buffer sites": system.sites,
        "layout": layout(scenario.topology),
        "ranks": f"{scenario.world} on {scenario.topology.where}",
        "seed of the data": str(scenario.seed),
    }
    if scenario.falls_on:
        found["segments at falling addresses"] = f"on ranks {', '.join(map(str, scenario.falls_on))}"
    if scenario.scheduled is not None:
        found["schedule"] = f"order {' '.join(map(str, scenario.scheduled.order))}"
    return found


def _environment(environment: dict[str, Any]) -> dict[str, str]:
    return {name: _value(value) for name, value in environment.items() if value not in (None, "", [], {})}


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def contrast(outcomes: Sequence[Outcome]) -> str:
    """Which part of the system makes the difference: the one with another in whose place the program is clean. Systems
    that refused the program say nothing of it."""
    outcomes = [each for each in outcomes if each.was_run]
    if not any(each.is_own and each.rules for each in outcomes) or len(outcomes) < 2:
        return ""
    clean = [each.system for each in outcomes if not each.rules]
    if LIBRARY in clean:
        return "Made by the library, the same calls are right: the fault lies in the kernel under test."
    pools = [each.removeprefix("pool ") for each in clean if each.startswith("pool ")]
    if SITES in clean and not pools:
        return "It is clean where buffer sites name the group of their call: the fault lies in the sites."
    if pools:
        noun = "pool" if len(pools) == 1 else "pools"
        return f"The same program is clean with {noun} {', '.join(pools)}: the pool policy makes the difference."
    own = {rule for each in outcomes if each.is_own for rule in each.rules}
    others = [each.system for each in outcomes if not own & {*each.rules}]
    if others:
        return (
            f"No pool that ships is clean here; {', '.join(others)} {'ends' if len(others) == 1 else 'end'} otherwise."
        )
    return "It fails alike with every pool that ran it, so the pool policy alone is not the cause."


def outcome(tried: Tried) -> Outcome:
    """What came of another system, with the first step at which it went another way."""
    rules = tuple(dict.fromkeys(record.key for record in tried.findings))
    if tried.refused:
        return Outcome(tried.system, NOT_RUN, difference=tried.refused)
    if tried.first is None:
        return Outcome(tried.system, rules, difference="no difference was seen")
    where, own, other = tried.first
    first = None if where.step == ANYWHERE else where.step
    return Outcome(tried.system, rules, first_step=first, difference=f"{where}: {own} in the seed, {other} here")
