"""`symm agree`: scenarios run in two ways that have to agree, on two substrates or as they are and rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.cli.ending import Outputs, at_the_end
from harness.cli.options import DeadlineOption, JsonOption, SeedOption, Substrate, drawn_with, fresh
from harness.errors import UsageError
from harness.report import data, leftovers, terminal
from harness.scenario.scenario import Scenario
from harness.scenario.system import POOLS
from harness.strategies.actions import Via
from harness.strategies.batches import distinct
from harness.strategies.common import common
from harness.studies.agree.comparison import Comparison, Sides, Worlds
from harness.studies.agree.metamorphic import Variants, subjects
from harness.system.check import check_system, observed, prepare
from harness.world import environment
from harness.world.platform import Watched
from harness.world.world import World

VARIANTS = ("drawn", "rewritten")


class Compared(NamedTuple):
    """What a command compares: on which worlds, what it draws, and how it names the two sides."""

    worlds: tuple[World, ...]
    sides: Sides
    strategy: st.SearchStrategy[Scenario]
    names: tuple[str, str]
    substrates: tuple[str, ...]
    what: str

    @property
    def world(self) -> World:
        """The one whose environment seed files hold."""
        return self.worlds[-1]


def agree(
    context: typer.Context,
    draws: Annotated[int | None, typer.Option(min=1, help="Default 200, or no limit with --minutes.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001)] = None,
    world: Annotated[int, typer.Option(min=2, max=64, metavar="MAX", help="Largest world to draw.")] = 8,
    pool: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|module:attr", help="Pool policies; repeatable. Default: the six designs."),
    ] = None,
    metamorphic: Annotated[
        bool,
        typer.Option(
            "--metamorphic",
            help="One world, on each scenario as it is and rewritten: other rank numbers, names of families, order of "
            "steps or calls. The verdict has to stay. Planted faults are drawn too, unless --pool is given.",
        ),
    ] = False,
    substrate: Annotated[
        Substrate | None, typer.Option(help="Of the one world of --metamorphic. Default: auto.")
    ] = None,
    seed: SeedOption = None,
    seeds_dir: Annotated[Path, typer.Option(help="Where scenarios are kept that differ.")] = Path("symm-seeds"),
    deadline: DeadlineOption = None,
    against: Annotated[
        Literal["sim", "nccl"], typer.Option(hidden=True, help="sim: a second simulation, to try the comparison.")
    ] = "nccl",
    json_file: JsonOption = None,
) -> None:
    """The same scenarios on sim and on nccl, or as they are and rewritten: facts and findings have to agree."""
    outputs = Outputs(context, json_file)
    if substrate is not None and not metamorphic:
        raise UsageError("--substrate goes with --metamorphic; without it, sim is compared with nccl")
    for name in pool or ():
        check_system(name, None)
    seeds.check_folder(seeds_dir)
    number = fresh(seed)
    console = terminal.Screen(stderr=json_file == "-")
    limit = draws if draws is not None or minutes is not None else 200
    ranks = partial(World, world, deadline=deadline, watched=Watched(observed(*(pool or ())), prepare))
    opened = _variants(ranks, pool, substrate or "auto") if metamorphic else _substrates(ranks, pool, against)
    with opened as chosen:
        found_here = environment.describe(chosen.world)
        console.print(chosen.what, highlight=False)
        console.print(drawn_with(number, seed), highlight=False)
        comparison = Comparison(chosen.sides, seeds_dir, environment=found_here)
        compared = comparison.agreement

        def show() -> None:
            terminal.agreement(console, compared, chosen.names, chosen.substrates)
            leftovers.show(console, *chosen.worlds)

        def write() -> None:
            left = leftovers.data(*chosen.worlds)
            outputs.write(console, {**data.agreement(compared, found_here, chosen.names), "left": left}, seed=number)

        with (
            at_the_end(show, write),
            terminal.progress(console, limit, "no disagreement", minutes, outputs.speed) as update,
        ):
            comparison.run(distinct(chosen.strategy, number), limit, minutes, update)
    if not compared.draws:
        raise UsageError("nothing was compared: the time was up before the first draw")
    raise typer.Exit(1 if compared.found else 0)


def _via(world: World) -> Via:
    return "mixed" if world.description.get("kernels", True) else "library"


@contextmanager
def _substrates(ranks: partial[World], pool: list[str] | None, against: str) -> Iterator[Compared]:
    """Two worlds, which run the same scenarios."""
    with ExitStack() as stack:
        other, simulation = (
            stack.enter_context(ranks(substrate=name, evidence=("digests",))) for name in (against, "sim")
        )
        strategy = common(other.size, pools=tuple(pool or POOLS), via=_via(other))
        what = f"sim against {against}: {other.platform.why}"
        sides = Worlds(simulation, other)
        yield Compared((simulation, other), sides, strategy, ("sim", "nccl"), ("sim", against), what)


@contextmanager
def _variants(ranks: partial[World], pool: list[str] | None, substrate: str) -> Iterator[Compared]:
    """One world, which runs scenarios as they are and rewritten."""
    with ranks(substrate=substrate) as only:
        strategy = subjects(only.size, pool, _via(only), only.platform.is_by_address)
        what = f"substrate {only.platform.name}: {only.platform.why}"
        yield Compared((only,), Variants(only), strategy, VARIANTS, (only.platform.name,), what)
