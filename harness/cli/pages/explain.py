"""`symm show SEED`: a seed is run once, and explains itself in the terminal, as a page and as a trace."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.keeper import Found
from harness.campaign.seeds import Seed
from harness.cli.pages.report import write_page
from harness.clock import CLOCK
from harness.errors import MachineError, PluginError, UsageError
from harness.oracle.judge import judge
from harness.report import data, terminal
from harness.report.pages import console, page, perfetto, runs, telling
from harness.report.pages.account import Account, Outcome
from harness.scenario import topology
from harness.scenario.topology import parse, read_file
from harness.studies import systems
from harness.system.check import check_system, fallbacks, observed, prepare
from harness.trace.draw import Draw
from harness.world.platform import Watched
from harness.world.world import World

SECONDS = 20.0
"""In which a campaign makes the accounts of its findings; the one that is begun is finished."""


class Wanted(NamedTuple):
    """How a seed is to be run, and where its account goes."""

    substrate: str = "auto"
    deadline: float | None = None
    allow_plugins: bool = False
    no_run: bool = False
    html: str | None = None
    perfetto: str | None = None
    json_file: str | None = None


def is_seed(name: str) -> bool:
    """Whether a name is that of a seed file, or of a seed that ships and no topology."""
    if Path(name).is_file():
        try:
            found = parse(read_file(name))
        except (ValueError, RecursionError, UsageError):
            return False
        return isinstance(found, dict) and "scenario" in found and "findings" in found
    return name not in topology.named() and name in seeds.named()


def explain(name: str, wanted: Wanted) -> None:
    """Show a seed. Raises `UsageError` where its file is damaged, or where a trace is wanted and nothing can be run."""
    for target in (wanted.html, wanted.perfetto, wanted.json_file):
        data.check_target(target, [name])
    seed = seeds.find(name)
    draw, account = _account(name, seed, wanted)
    if wanted.perfetto is not None:
        if draw is None:
            raise UsageError(f"--perfetto needs a run of the seed. {account.not_run}")
        write_page(wanted.perfetto, json.dumps(perfetto.trace(account), separators=(",", ":")))
    if wanted.html is not None:
        write_page(wanted.html, page.seed_page(account))
    if "-" not in (wanted.html, wanted.perfetto, wanted.json_file):
        console.show(terminal.Screen(), account)
    data.write({"schema": data.SCHEMA, **msgspec.to_builtins(account)}, wanted.json_file)


def _account(name: str, seed: Seed, wanted: Wanted) -> tuple[Draw | None, Account]:
    """The draw that was made, if any, and the account of it or of the file."""
    if wanted.no_run:
        return None, telling.of_file(name, seed, "It was not run (--no-run), so there are no pictures of a run.")
    try:
        if not wanted.allow_plugins:
            for each in seed.scenarios:
                seeds.check_plug_ins(name, each.system, ())
        return _run(name, seed, wanted)
    except (MachineError, PluginError, UsageError) as error:
        return None, telling.of_file(name, seed, f"It could not be run here: {error}.")


def _run(name: str, seed: Seed, wanted: Wanted) -> tuple[Draw, Account]:
    *before, scenario = seed.scenarios
    for each in seed.scenarios:
        check_system(each.system.pool, each.system.collectives)
    pools = [each.system.pool for each in seed.scenarios]
    watched = Watched(observed(*pools), prepare, fallbacks(*(each.system.collectives for each in seed.scenarios)))
    size = max(each.world for each in seed.scenarios)
    with World(size, wanted.substrate, deadline=wanted.deadline, watched=watched) as world:
        for each in before:
            world.run(each)
        draw = world.run(scenario, hurried=True)
        ran_on = f"a run on substrate {world.platform.name} ({world.platform.why})"
        return draw, telling.of_draw(name, seed, draw, ran_on, [*_outcomes(world, draw)])


def _outcomes(world: World, draw: Draw) -> Iterator[Outcome]:
    """The seed's own outcome, then those of other systems."""
    own = tuple(dict.fromkeys(finding.key for finding in judge(draw)))
    yield Outcome(systems.name_of(draw.scenario.system), own, is_own=True)
    for tried in systems.compare(world, draw, systems.variants(draw.scenario)):
        yield telling.outcome(tried)


def of_findings(
    world: World, found: Iterable[Found], environment: dict[str, Any], seconds: float = SECONDS
) -> dict[str, Account]:
    """Accounts of the findings of a campaign by their seed files, each run once more on its world. What cannot be run,
    and what has no file, is left out; and so is what is left after `seconds`, or after Ctrl-C."""
    accounts: dict[str, Account] = {}
    ends = CLOCK.now() + seconds
    for each in found:
        if CLOCK.now() >= ends or interrupts.has_come():
            break
        seed = Seed(seeds.SCHEMA, each.scenario, (each.finding,), environment)
        if each.seed_file:
            with suppress(Exception):  # a picture must not cost what was found
                draw = world.run(each.scenario, hurried=True)
                accounts[each.seed_file] = telling.of_draw(each.seed_file, seed, draw, "one more run of the finding")
    return accounts


def with_accounts(facts: dict[str, Any], accounts: Mapping[str, Account]) -> dict[str, Any]:
    """The facts of a run, each finding with its account, where there is one."""
    for finding in facts["findings"]:
        if finding["seed_file"] in accounts:
            finding["account"] = accounts[finding["seed_file"]]
    return facts


def write_report(facts: dict[str, Any], html: str | None) -> None:
    """The page of one run; nothing for None."""
    if html is not None:
        plain = json.loads(msgspec.json.encode(facts))
        write_page(html, page.report_page(runs.report({"this run": plain})))
