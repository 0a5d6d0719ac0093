"""`symm fuzz --dry`: draw what `symm fuzz` would draw, and say what it holds.

Invariant: no rank starts and no plug-in runs. A campaign without findings runs these very scenarios, in this order. Its
guide adds mutations in between, which follow from what ranks saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from rich.console import Console

from harness import interrupts
from harness.cli.ending import at_the_end
from harness.cli.nights.tonight import Tonight
from harness.cli.request import Request
from harness.errors import UsageError
from harness.machine import nccl
from harness.report import data, drawn
from harness.strategies.batches import distinct
from harness.studies.drawing.drawn import Drawn
from harness.world import environment
from harness.world.platform import Platform, choose


class Unstarted(NamedTuple):
    """Ranks that could be started here, as far as drawing asks (`harness.cli.request.Ranks`)."""

    size: int
    description: dict[str, Any]
    platform: Platform

    @classmethod
    def on(cls, substrate: str, world: int, largest: int, evidence: Sequence[str]) -> Unstarted:
        """Those of `World(world, substrate, largest=largest)`. Raises `MachineError` where it could not be."""
        platform = choose(substrate, world, evidence)
        version = nccl.version() if platform.gpus else None
        known = (
            {"kernels": version >= nccl.PEER_POINTERS, "nccl_loaded": ".".join(map(str, version))} if version else {}
        )
        return cls(platform.most_ranks(world, largest), known, platform)


def run(
    console: Console, request: Request, ranks: Unstarted, draws: int | None, night: Tonight, json_file: str | None
) -> None:
    """Draw, then show and write the account, also after Ctrl-C. Raises `UsageError` without a number of draws."""
    if draws is None:
        raise UsageError("--dry goes with --draws; --minutes is a time for running them")
    for line in (f"substrate {ranks.platform.name}: {ranks.platform.why}", *night.lines):
        console.print(line, highlight=False)
    found_here = {**environment.describe(), "substrate": ranks.platform.name, "why": ranks.platform.why}
    account, strategy = Drawn(), request.strategy(ranks)

    def facts() -> dict[str, Any]:
        return drawn.as_data(account, night.seed, found_here)

    def write() -> None:
        data.write(facts(), json_file)

    with at_the_end(lambda: drawn.show(console, facts()), write), drawn.progress(console, draws) as advance:
        for scenario in islice(distinct(strategy, night.seed, night.batches), draws):
            interrupts.check()
            account.take(scenario)
            advance()
