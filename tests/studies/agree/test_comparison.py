"""Two worlds compared: equal ones agree in every fact, and a difference planted in one of them is found and shrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from harness.campaign import seeds
from harness.oracle.judge import judge
from harness.scenario.scenario import Scenario
from harness.scenario.system import POOLS
from harness.strategies.batches import sample
from harness.strategies.common import common
from harness.studies.agree.comparison import Agreement, Comparison, Disagreement, Worlds
from harness.studies.agree.facts import FACTS, NOTHING
from harness.trace.events import Awaited, Began, Called, Deregistered, Event, Exhausted, Ran, Registered
from harness.world.world import World
from tests.tools.elsewhere import Elsewhere

DRAWS = 30
SEED = 1
"""With it every planted difference is met, on layouts that shrink to two ranks."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    """Four ranks; smaller scenarios take the first ones."""
    with World(4, "sim", evidence=("digests",)) as world:
        yield world


def drawn(pool: str, count: int = DRAWS) -> list[Scenario]:
    return sample(common(4, pools=(pool,), via="library"), count, seed=SEED)


# equal worlds


@pytest.fixture(scope="module")
def equal(ranks: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Agreement, Path]:
    """Every design on two worlds that do not differ."""
    folder = tmp_path_factory.mktemp("equal")
    with World(4, "sim", evidence=("digests",)) as second:
        return Comparison(Worlds(ranks, second), folder).run(sample(common(4, pools=POOLS), 25, seed=3)), folder


def test_two_equal_worlds_agree(equal: tuple[Agreement, Path]) -> None:
    assert (equal[0].draws, equal[0].found) == (25, {})


def test_every_fact_is_compared(equal: tuple[Agreement, Path]) -> None:
    assert equal[0].compared.keys() == FACTS.keys()
    assert min(equal[0].compared.values()) > 0


def test_agreement_needs_no_reason(equal: tuple[Agreement, Path]) -> None:
    assert set(equal[0].accounted.values()) == {0}


def test_agreement_leaves_no_file(equal: tuple[Agreement, Path]) -> None:
    assert list(equal[1].iterdir()) == []


# planted differences


def other_path(event: Event) -> list[Event]:
    named = isinstance(event, Ran) and event.path == "symmetric"
    return [msgspec.structs.replace(event, path="legacy") if named else event]


def other_bytes(event: Event) -> list[Event]:
    has_digest = isinstance(event, Awaited | Ran) and event.digest is not None
    return [msgspec.structs.replace(event, digest=event.digest ^ 1) if has_digest else event]  # type: ignore[union-attr]


def shifted(event: Event) -> list[Event]:
    """Operands four bytes on from where they lie."""
    if not isinstance(event, Called):
        return [event]
    source, output = (
        msgspec.structs.replace(operand, address=operand.address + 4) for operand in (event.source, event.output)
    )
    return [msgspec.structs.replace(event, source=source, output=output)]


def without_registrations(event: Event) -> list[Event]:
    return [] if isinstance(event, Registered | Deregistered) else [event]


def refused_once(event: Event) -> list[Event]:
    return [event, Exhausted("b0", 1)] if event == Began(0) else [event]


class Plant(NamedTuple):
    """The pool that scenarios are drawn with, and how the second world differs."""

    pool: str
    elsewhere: Callable[[World], Elsewhere]


PLANTS = {
    "ownership": Plant("shared-at-alloc", lambda world: Elsewhere(world, pool="per-group")),
    "place": Plant("per-group", lambda world: Elsewhere(world, shifted)),
    "registrations": Plant("deferred", lambda world: Elsewhere(world, without_registrations)),
    "path": Plant("per-group", lambda world: Elsewhere(world, other_path)),
    "data": Plant("deferred", lambda world: Elsewhere(world, other_bytes)),
    "findings": Plant("snapshot-once", lambda world: Elsewhere(world, pool="deferred", sites="explicit")),
    "exhausted": Plant("deferred", lambda world: Elsewhere(world, refused_once)),
}


class Compared(NamedTuple):
    agreement: Agreement
    found: Disagreement
    second: Any


@pytest.fixture(scope="module", params=PLANTS)
def compared(request: pytest.FixtureRequest, ranks: World, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A comparison in one fact, with a difference in it planted."""
    fact, folder = request.param, tmp_path_factory.mktemp("planted")
    second: Any = PLANTS[fact].elsewhere(ranks)
    agreement = Comparison(Worlds(ranks, second), folder, facts=(fact,)).run(drawn(PLANTS[fact].pool))
    return Compared(agreement, agreement.found[fact], second)


def test_there_is_a_plant_for_every_fact() -> None:
    assert PLANTS.keys() == FACTS.keys()


def test_a_planted_difference_shows_both_sides(compared: Compared) -> None:
    assert compared.found.differences
    assert all(each.first != each.second for each in compared.found.differences)


def test_a_disagreement_is_shrunk_to_two_ranks_and_few_steps(compared: Compared) -> None:
    scenario = compared.found.scenario
    assert (scenario.world, len(scenario.steps) <= 4) == (2, True)


def test_a_disagreement_is_kept_under_the_name_of_its_fact(compared: Compared) -> None:
    assert Path(compared.found.seed_file).name.startswith(f"disagree-{compared.found.fact}-")


def test_a_seed_file_holds_what_disagrees_and_what_the_second_world_found(compared: Compared) -> None:
    kept = seeds.load(compared.found.seed_file)
    found = judge(compared.second.run(kept.scenario))
    assert (kept.scenario, kept.findings) == (compared.found.scenario, tuple(each.record() for each in found))


def test_a_fact_is_settled_once_it_was_found(compared: Compared) -> None:
    assert compared.agreement.draws == DRAWS
    assert len(list(Path(compared.found.seed_file).parent.iterdir())) == 1


def test_a_value_that_one_side_lacks_is_nothing_there(ranks: World, tmp_path: Path) -> None:
    second: Any = Elsewhere(ranks, refused_once)
    found = Comparison(Worlds(ranks, second), tmp_path).run(drawn("deferred", 1)).found
    assert [(str(each.where), each.first, each.second) for each in found["exhausted"].differences] == [
        ("step 0, rank 0, b0", NOTHING, "refused")
    ]


def test_only_what_is_planted_disagrees(ranks: World, tmp_path: Path) -> None:
    second: Any = Elsewhere(ranks, other_bytes)
    assert Comparison(Worlds(ranks, second), tmp_path).run(drawn("deferred")).found.keys() == {"data"}


def test_what_disagrees_is_on_disk_before_it_is_shrunk(ranks: World, tmp_path: Path) -> None:
    def press_ctrl_c(*_: object, **how: object) -> Any:
        raise KeyboardInterrupt

    second: Any = Elsewhere(ranks, other_bytes)
    comparison = Comparison(Worlds(ranks, second), tmp_path, search=press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        comparison.run(drawn("deferred"))
    assert [str(path) for path in tmp_path.iterdir()] == [comparison.agreement.found["data"].seed_file]


def test_comparing_ends_with_its_time(ranks: World, tmp_path: Path) -> None:
    assert Comparison(Worlds(ranks, ranks), tmp_path).run(drawn("deferred"), minutes=0).draws == 0


def test_progress_follows_every_draw(ranks: World, tmp_path: Path) -> None:
    draws: list[int] = []
    Comparison(Worlds(ranks, ranks), tmp_path).run(
        drawn("deferred"), 3, progress=lambda so_far: draws.append(so_far.draws)
    )
    assert draws == [1, 2, 3]
