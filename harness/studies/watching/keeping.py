"""The finding of a recording kept as a seed file: made into a program, run on ranks of the harness, and shrunk.

Invariant: a seed file that is written has broken the same rule on the harness's own ranks.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from harness.campaign.campaign import Campaign
from harness.campaign.limits import Limits
from harness.errors import UsageError
from harness.scenario.scenario import Scenario
from harness.studies.watching.judging import Judged
from harness.studies.watching.program import program_of
from harness.world.world import World

LIMITS = Limits(more=1, shrinks=0, reruns=1)


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
