"""The catalogue: planted faults are found, by the rule that they must break, and what is right stays silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness.campaign.campaign import Campaign
from harness.campaign.limits import Limits
from harness.campaign.tally import Tally
from harness.oracle.judge import judge
from harness.scenario.steps import Steady
from harness.scenario.system import System
from harness.strategies.batches import sample
from harness.strategies.flows import flows
from harness.strategies.programs import scenarios
from harness.strategies.schedules import scheduled
from harness.studies.faults import proof
from harness.studies.faults.catalogue import FAULTS, Fault, select
from harness.studies.faults.proof import Hunt, Outcome, expected, hunt, sound
from harness.world.world import World
from tests.tools.commands import forked

SEEDS = {
    "F01": 2,
    "F02": 2,
    "F06": 5,
    "F07": 3,
    "F08": 1,
    "F11": 2,
    "F12": 2,
    "F13": 1,
    "F23": 3,
    "F25": 2,
    "F26": 1,
    "F27": 1,
    "F28": 1,
    "F37": 1,
}
SEEDS |= {"K05": 1, "K06": 1, "K07": 4, "K08": 5, "K20": 1}
"""With these seeds the first draws show the fault; with the others, whose seed is 0, too."""
WIDE = {"F05": (8, 40), "F11": (8, 40), "F12": (8, 40), "F35": (4, 300)}
WIDE |= dict.fromkeys(("F27", "F37", "K26"), (4, 120))
"""Largest world and draws of those that need more than four ranks or 40 draws."""
LITTLE = Limits(more=1, shrinks=3, known_seconds=5).within(0.4)


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(8, "sim") as world:  # with the usual deadline: on a busy machine a draw of interpreted kernels is slow
        yield world


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_planted_fault_is_found(ranks: World, tmp_path: Path, fault: Fault) -> None:
    size, draws = WIDE.get(fault.id, (4, 40))
    found = hunt(ranks, fault, SEEDS.get(fault.id, 0), draws, size, tmp_path, LITTLE)
    assert found.rule in fault.rules


ORDERED = ["K03", "K04", "K09", "K10", "K11", "K16"]
"""Faults that only an order of ranks shows."""


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", select(ORDERED), ids=lambda fault: fault.id)
def test_a_fault_of_order_shows_in_the_first_draws_of_every_seed(ranks: World, fault: Fault, seed: int) -> None:
    verdicts = (judge(ranks.run(drawn)) for drawn in sample(fault.draws(4), 8, seed=seed))
    assert next(filter(None, verdicts))[0].rule in fault.rules


def test_what_is_right_is_silent_by_schedules(ranks: World, tmp_path: Path) -> None:
    drawn = scheduled(sound(4)) | scheduled(scenarios(4, via="kernel", falling=False))
    tally = Campaign(ranks, drawn, tmp_path, expected=expected).run(60)
    assert (tally.draws, tally.found) == (60, {})


def test_what_is_right_is_not_found(ranks: World, tmp_path: Path) -> None:
    tally = Campaign(ranks, sound(4), tmp_path, expected=expected).run(30)
    assert (tally.draws, tally.found) == (30, {})


UNEVEN = flows(4, tokens="uneven", system=System("per-group"))


def test_unequal_sizes_without_agreement_are_drawn_and_marked(ranks: World, tmp_path: Path) -> None:
    assert any(expected(scenario) for scenario in sample(sound(4), 60))
    tally = Campaign(ranks, UNEVEN, tmp_path, expected=expected).run(20)
    assert (tally.found, tally.expected.keys()) == ({}, {"registration-skew"})
    assert not list(tmp_path.iterdir())


def test_what_a_right_pool_breaks_by_mixed_orders_of_address_is_expected_there_alone() -> None:
    (drawn,) = sample(scenarios(4, system=System("per-group")).filter(lambda drawn: drawn.world > 1), 1)
    falls = [(), (0,), tuple(range(drawn.world))]
    marked = ["segment-mismatch" in expected(msgspec.structs.replace(drawn, falling=ranks)) for ranks in falls]
    assert marked == [False, True, False]


def rules_of(tally: Tally) -> set[str]:
    return {found.finding.rule for found in tally.found.values()}


def test_only_what_is_marked_is_expected(ranks: World, tmp_path: Path) -> None:
    agreeing = flows(4, tokens="uneven", system=System("deferred"))
    padded = flows(4, tokens="padded", system=System("per-group"))
    assert not any(map(expected, (*sample(agreeing, 20), *sample(padded, 20))))
    overruns = flows(
        4, tokens="uneven", system=System("per-group", "harness.system.planted.kernels:Overruns"), via="kernel"
    )
    tally = Campaign(ranks, overruns, tmp_path, limits=LITTLE, expected=expected).run(20)
    assert rules_of(tally) == {"out-of-bounds"}


@pytest.mark.parametrize(
    ("pool", "kernel", "rules", "also"),
    [
        # a rank in two groups that overlap keeps a tensor for one of them, where a rank in one group has it for that
        ("KeepsATensor", "LosesLastPeer", {"leak", "wrong-data"}, {"offset-mismatch"}),
        ("ShortWindow", "LosesLastPeer", {"unregistered", "wrong-data"}, {"partly-registered"}),
    ],
)
def test_two_faults_at_once_are_found_apart(
    ranks: World, tmp_path: Path, pool: str, kernel: str, rules: set[str], also: set[str]
) -> None:
    both = System(f"harness.system.planted.pools:{pool}", f"harness.system.planted.kernels:{kernel}")
    strategy = scenarios(4, system=both, via="kernel", falling=False)
    tally = Campaign(ranks, strategy, tmp_path, limits=Limits(more=40, shrinks=5).within(0.5)).run(50)
    assert rules <= rules_of(tally) <= rules | also


def test_a_fault_that_broke_another_rule_first_is_not_found() -> None:
    fault = select(["F03"])[0]
    hunts = [Hunt(rule, (rule,), 3, 0.1, 2, 2, "") for rule in ("offset-mismatch", "leak")]
    outcome = Outcome(fault, tuple(hunts))
    assert (outcome.is_found, len(outcome.found), outcome.as_data()["found"]) == (False, 1, 1)


def test_hunts_before_an_interrupted_one_are_told(
    ranks: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hunted(world: World, fault: Fault, seed: int, *_: object) -> Hunt:
        if seed == 2:
            raise KeyboardInterrupt
        return Hunt(fault.rules[0], (), 3, 0.1, 2, 2, "")

    monkeypatch.setattr(proof, "hunt", hunted)
    outcomes = proof.prove(ranks, select(["F03"]), 5, 10, 4, tmp_path)
    assert len(next(outcomes).hunts) == 2
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)


def test_over_an_allocator_that_chooses_by_address_less_is_right() -> None:
    drawn = list(sample(sound(4, by_address=True), 40, seed=0))
    assert {scenario.system.pool for scenario in drawn} == {"deferred"}
    assert not any(isinstance(step, Steady) for scenario in drawn for step in scenario.steps)


def test_the_command_says_what_is_promised(tmp_path: Path) -> None:
    run = forked(tmp_path, "faults", "--only", "F17", "--seeds", "2", "--clean", "5", "--world", "2", "--json", "-")
    assert run.status == 0, run.err
    (fault,) = run.data["faults"]
    assert (fault["id"], fault["found"], fault["of"], fault["rules"]) == ("F17", 2, 2, ["leak"])
    assert {"median_draws", "median_seconds", "world", "steps"} <= fault.keys()
    assert [(hunt["seed"], hunt["rule"]) for hunt in fault["hunts"]] == [(0, "leak"), (1, "leak")]
    assert run.data["clean"] == {"draws": 5, "findings": []}
    assert run.processes == []


def test_a_fault_that_is_missed_exits_with_1(tmp_path: Path) -> None:
    """No draw of two ranks has groups that differ, which this fault needs."""
    run = forked(tmp_path, "faults", "--only", "F02", "--seeds", "1", "--draws", "3", "--clean", "1", "--world", "2")
    assert run.status == 1
    assert "F02 cross-group-reuse: missed" in run.out
