"""Making a scenario smaller: which ranks may stand for all, and what the system under test refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from itertools import count, pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from rich.console import Console

from harness.campaign.campaign import Campaign, Limits, _Stop
from harness.campaign.candidates import widths_of
from harness.campaign.keeper import Found, Keeper, Shrunk
from harness.campaign.search import Reduced, reduce
from harness.errors import UsageError
from harness.oracle.findings import Finding, Hang, Leak
from harness.report import terminal
from harness.scenario.layout import DEGREES
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Deny, Release, Step, Straggle
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.strategies.flows import flows
from harness.strategies.topologies import topologies
from harness.world.world import World

SEVEN = Topology("seven", "sglang", {"tp": 7})


def needs(*sizes: int) -> Scenario:
    return Scenario(SEVEN, (Allocate("a", "tp", sizes),))


def differs(scenario: Scenario) -> bool:
    return any(len({*each.elements}) > 1 for each in scenario.steps if isinstance(each.elements, tuple))


def smallest(scenario: Scenario) -> Scenario:
    """What is left of a scenario that fails while a buffer has sizes that differ."""
    left = [scenario]

    def fails(tried: Scenario) -> int | None:
        if not differs(tried):
            return None
        left.append(tried)
        return 0

    reduce(scenario, fails, 0)
    return left[-1]


@pytest.mark.parametrize("odd", [0, 3, 6])
def test_a_rank_that_matters_is_kept_wherever_it_is(odd: int) -> None:
    sizes = [8] * 7
    sizes[odd] = 64
    assert smallest(needs(*sizes)).world == 2


def spans_nodes(scenario: Scenario) -> bool:
    return len(set(scenario.topology.node_of)) > 1


def step_of(scenario: Scenario, kind: type[Step]) -> Step | None:
    return next((step for step in scenario.steps if isinstance(step, kind)), None)


PLAIN = {
    "seed": (Deny(0), Deny(0)),
    "rank of a refusal": (Deny(1), Deny(0)),
    "rank and size of a ballast": (Ballast("b", "tp", 1, 8), Ballast("b", "tp", 0, 1)),
    "delay": (Straggle(1, 64), Straggle(0, 0)),
    "sizes that differ": (Allocate("a", "tp", (64, 3)), Allocate("a", "tp", (1, 3))),
}


@pytest.mark.parametrize("what", PLAIN)
def test_what_is_left_is_plain(what: str) -> None:
    step, plain = PLAIN[what]

    def fails(scenario: Scenario) -> int | None:
        left = step_of(scenario, type(step))
        return None if left is None or (isinstance(left, Allocate) and not differs(scenario)) else 0

    left = reduce(Scenario(Topology("two", "sglang", {"tp": 2}), (step,), seed=7), fails, 0).scenario
    assert (left.steps, left.seed) == ((plain,), 0)


def test_layouts_are_enumerated_in_full_and_in_order() -> None:
    def layout(convention: str, widths: dict[str, int]) -> Topology | None:
        try:
            return Topology("any", convention, {name: width for name, width in widths.items() if width > 1})
        except UsageError:
            return None

    for convention, names in DEGREES.items():
        for world in (2, 4, 6):
            everything = product([width for width in range(1, world + 1) if world % width == 0], repeat=len(names))
            laid = [(values, layout(convention, dict(zip(names, values, strict=True)))) for values in everything]
            expected = [values for values, topology in laid if topology is not None and topology.world == world]
            ours = [widths for widths in widths_of(convention, world) if layout(convention, widths) is not None]
            assert [tuple(widths[name] for name in names) for widths in ours] == expected


MATTERS = {
    "nothing": (lambda scenario: True, (2, 1)),
    "nodes": (spans_nodes, (2, 2)),
    "three ranks and nodes": (lambda scenario: scenario.world > 2 and spans_nodes(scenario), (3, 2)),
    "ranks": (lambda scenario: scenario.world == 8, (8, 1)),
    "ranks and nodes": (lambda scenario: scenario.world == 8 and spans_nodes(scenario), (8, 2)),
}


@pytest.mark.parametrize("what", MATTERS)
def test_nodes_and_ranks_are_kept_where_they_matter(what: str) -> None:
    fails, size = MATTERS[what]
    wide = Topology("wide", "sglang", {"tp": 8}, Placement(4, 2))
    left = reduce(Scenario(wide, (Allocate("a", "tp", 8),)), lambda tried: 0 if fails(tried) else None, 0).scenario
    assert (left.world, len(set(left.topology.node_of))) == size


def fails_alone(whole: Scenario, tried: Callable[[Scenario], None]) -> Callable[[Scenario], int | None]:
    """Nothing smaller than the whole fails."""
    return lambda scenario: 0 if scenario == whole else tried(scenario)  # type: ignore[func-returns-value]


def test_nodes_change_rarely_between_candidates() -> None:
    """Ranks on nccl start anew wherever they do."""
    placed: list[tuple[int, ...]] = []
    wide = Topology("wide", "sglang", {"tp": 8, "attn_dp": 2}, Placement(2, 4))
    steps = Allocate("a", "tp", 8), Allocate("b", "attn_tp", tuple(range(1, 9)))
    reduce(
        Scenario(wide, steps),
        fails_alone(Scenario(wide, steps), lambda tried: placed.append(tried.topology.node_of)),
        1,
    )
    assert len(placed) > 100
    assert sum(one != other for one, other in pairwise(placed)) < 8


def test_layouts_that_are_the_same_to_the_program_are_tried_once() -> None:
    tried: list[Scenario] = []
    wide = Scenario(Topology("wide", "sglang", {"tp": 8, "attn_dp": 2}), (Allocate("a", "attn_tp", 8),))
    reduce(wide, fails_alone(wide, tried.append), 0)
    smaller = [(scenario.world, scenario.topology.families["attn_tp"]) for scenario in tried if scenario.world < 8]
    assert len(smaller) == len(set(smaller)) > 5


def layers(count: int) -> Scenario:
    """Gathers of ever new buffers, on two ranks."""
    steps: list[Step] = []
    for name in (f"b{number}" for number in range(count)):
        steps += [Allocate(name, "tp", 8), AllGather("tp", View(name), 1), Release(name)]
    return Scenario(Topology("two", "sglang", {"tp": 2}), tuple(steps))


def test_what_comes_after_the_step_that_fails_is_left_out_first() -> None:
    tried: list[Scenario] = []
    whole = layers(10)
    reduce(whole, fails_alone(whole, tried.append), 4)
    assert tried[0].steps == whole.steps[:5]


def test_a_single_step_after_the_one_that_fails_is_left_out_first() -> None:
    tried: list[Scenario] = []
    whole = layers(4)
    reduce(whole, fails_alone(whole, tried.append), len(whole.steps) - 2)
    assert tried[0].steps == whole.steps[:-1]


def test_a_dear_failure_is_small_after_few_of_them() -> None:
    failures: list[Scenario] = []

    def fails(scenario: Scenario) -> int | None:
        step = next((at for at, step in enumerate(scenario.steps) if step == Allocate("b12", "tp", 8)), None)
        failures.extend([scenario] * (step is not None))
        return step

    assert reduce(layers(20), fails, 36).scenario.steps == (Allocate("b12", "tp", 8),)
    assert len(failures) <= 10


def test_one_family_alone_is_tried_before_halves() -> None:
    def fails(scenario: Scenario) -> int | None:
        is_whole = {"a", "b", "c", "d"} <= {step.buffer for step in scenario.steps if isinstance(step, Allocate)}
        return len(scenario.steps) if is_whole else None

    topology = Topology("four", "sglang", {"tp": 4, "attn_dp": 2})
    steps = [Allocate(f"{name}{family}", family, 8) for name in "ab" for family in ("tp", "attn_tp")]
    kept = [Allocate(name, "attn_tp", 8) for name in "abcd"]
    mixed = tuple(step for pair in zip(steps, kept, strict=True) for step in pair)
    tried: list[Scenario] = []

    def counted(scenario: Scenario) -> int | None:
        tried.append(scenario)
        return fails(scenario)

    left = reduce(Scenario(topology, mixed), counted, len(mixed)).scenario
    alone = next(index for index, scenario in enumerate(tried) if scenario.families == ("attn_tp",))
    assert alone < next(index for index, scenario in enumerate(tried) if len(scenario.steps) == len(mixed) // 2)
    assert {step.buffer for step in left.steps if isinstance(step, Allocate)} == {"a", "b", "c", "d"}


def test_steps_of_one_kind_are_left_out_before_halves() -> None:
    tried: list[Scenario] = []
    whole = layers(4)
    reduce(whole, fails_alone(whole, tried.append), len(whole.steps))
    kept = tuple(step for step in whole.steps if not isinstance(step, Release))
    assert [len(scenario.steps) for scenario in tried].index(6) > [scenario.steps for scenario in tried].index(kept)


def test_each_failure_says_anew_after_which_step_nothing_matters() -> None:
    tried: list[tuple[tuple[Step, ...], int | None]] = []

    def fails(scenario: Scenario) -> int | None:
        step = next((at for at, step in enumerate(scenario.steps) if step == Allocate("b5", "tp", 8)), None)
        tried.append((scenario.steps, step))
        return step

    reduce(layers(10), fails, 30)
    failed = next(index for index, (_, step) in enumerate(tried) if step is not None)
    (steps, step), (next_steps, _) = tried[failed : failed + 2]
    assert step is not None
    assert next_steps == steps[: step + 1] != steps


def test_a_failure_that_comes_and_goes_is_tried_again() -> None:
    calls = count()

    def fails(scenario: Scenario) -> int | None:
        return len(scenario.steps) if next(calls) % 3 == 0 else None

    assert len(reduce(layers(4), fails, 12).scenario.steps) == 1


def test_a_failure_that_never_comes_again_is_tried_as_often_as_asked() -> None:
    runs: list[Scenario] = []
    whole = layers(4)
    assert reduce(whole, runs.append, 12, runs=500) == (whole, "race")  # type: ignore[arg-type, func-returns-value]
    assert len(runs) == 500


def test_a_failure_that_comes_and_goes_is_told_from_one_that_time_ended() -> None:
    calls = count()
    end = time.monotonic() + 0.2

    def fails(scenario: Scenario) -> int | None:
        return 0 if len(scenario.steps) > 1 or next(calls) % 3 == 0 else None

    assert reduce(layers(4), fails, 12, end).how == "race"
    smallest = reduce(layers(1), lambda scenario: 0, 12).scenario
    fails_again = iter([None, 0, 0])  # once it passes, then it fails twice in a row
    assert reduce(smallest, lambda scenario: next(fails_again) if scenario == smallest else None, 0).how == "race"
    assert reduce(layers(4), lambda scenario: 0, 12).how == "smallest"


def test_a_failure_that_stays_is_not_tried_for_as_long_as_may_be() -> None:
    runs = count()

    def fails(scenario: Scenario) -> int | None:
        next(runs)
        return 0

    reduce(layers(4), fails, 0)
    assert next(runs) < 30


def test_time_ends_the_search() -> None:
    whole = layers(4)
    assert reduce(whole, lambda scenario: 0, 0, end=time.monotonic() - 1) == (whole, "time")


TWO = Topology("two", "sglang", {"tp": 2})
STUCK = Scenario(TWO, (Deny(1), *layers(2).steps), System("per-group"))
"""Costs the ranks: one is refused memory, and the other waits for it."""
LEAKING = Scenario(TWO, layers(2).steps, System("tests.tools.planted:KeepsATensor"))
"""Costs nothing."""


def campaign_of(world: World, folder: Path, scenario: Scenario = LEAKING, **times: float) -> Campaign:
    return Campaign(world, st.just(scenario), folder, limits=Limits(more=1, **times))  # type: ignore[arg-type]


def test_what_costs_new_ranks_is_made_smaller_without_hypothesis(
    simulation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[tuple[Scenario, int]] = []

    def taken(scenario: Scenario, *_: object) -> Reduced:
        handed.append((scenario, simulation.restarts))
        return Reduced(scenario, "time")

    monkeypatch.setattr("harness.campaign.shrinking.reduce", taken)
    before = simulation.restarts
    campaign_of(simulation, tmp_path, STUCK).run(1)
    assert handed == [(STUCK, before + 1)]


def test_hypothesis_goes_on_where_only_a_later_failure_costs_the_ranks(simulation: World, tmp_path: Path) -> None:
    campaign = campaign_of(simulation, tmp_path)
    restarts = simulation.restarts
    for scenario in (LEAKING, STUCK, LEAKING):
        with pytest.raises(Finding):
            campaign._one(scenario)
    assert simulation.restarts == restarts + 1


A, GATHERED = Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)
TWO_RULES = st.sampled_from(
    [
        Scenario(TWO, (A,), System("tests.tools.planted:KeepsATensor")),
        Scenario(TWO, (A, GATHERED), System("tests.tools.planted:NeverRegisters")),
    ]
)


@pytest.mark.parametrize("runs", range(8))
def test_hypothesis_may_be_left_while_it_shows_several_failures(simulation: World, tmp_path: Path, runs: int) -> None:
    limits = Limits(more=5, shrinks=runs).within(5)
    tally = Campaign(simulation, TWO_RULES, tmp_path, limits=limits).run(20)
    assert tally.found.keys() == {"leak", "unregistered"}


@pytest.mark.parametrize("error", [None, UsageError("no such pool")])
def test_a_campaign_that_ends_there_ends_as_elsewhere(
    simulation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: UsageError | None
) -> None:
    def raises(*args: object, **options: object) -> None:
        raise BaseExceptionGroup("2 distinct failures", [Leak("shown", step=0, ranks=(0,)), _Stop(error)])

    monkeypatch.setattr("harness.campaign.campaign.batch", raises)
    with nullcontext() if error is None else pytest.raises(UsageError, match="no such pool"):
        campaign_of(simulation, tmp_path).run(20)


@pytest.mark.parametrize(
    ("scenario", "shrinking", "minutes", "least", "most"),
    [(STUCK, 50, None, 50, 57), (LEAKING, 0, None, 6, 7), (LEAKING, 50, 0.1, 0, 6)],
    ids=["what-is-left", "its-own", "of-the-campaign"],
)
def test_the_reducer_has_its_own_time_and_what_hypothesis_left(
    simulation: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Scenario,
    shrinking: int,
    minutes: float | None,
    least: int,
    most: int,
) -> None:
    left: list[float] = []

    def timed(scenario: Scenario, *given: Any) -> Reduced:
        left.append(given[-1] - time.monotonic())
        return Reduced(scenario, "time")

    monkeypatch.setattr("harness.campaign.shrinking.reduce", timed)
    campaign_of(simulation, tmp_path, scenario, shrink_seconds=shrinking, reduce_seconds=7).run(1, minutes)
    assert len(left) == 1
    assert least < left[0] <= most


def test_a_rule_that_came_first_is_not_replaced_by_one_that_follows_from_another(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, {})
    leak, hang = (rule("shown", step=0, ranks=(0,)) for rule in (Leak, Hang))
    keeper.keep(layers(1), leak, [hang, leak])
    keeper.keep(layers(3), leak, [leak])
    keeper.keep(layers(2), leak, [hang, leak])
    assert keeper.found["leak"].scenario == layers(3)
    keeper.keep(layers(2), leak, [leak, hang])
    assert keeper.found["leak"].scenario == layers(2)


class NeedsFour:
    """A faulty pool (one window for all groups) that takes no world of fewer than four ranks."""

    def __new__(cls, context):
        from harness.system.pools.shared_at_alloc import SharedAtAlloc

        if context.world < 4:
            raise RuntimeError("needs 4 ranks")
        return SharedAtAlloc(context)


def test_a_finding_outlives_a_system_that_refuses_smaller_scenarios(simulation: World, tmp_path: Path) -> None:
    four = Topology("four", "sglang", {"tp": 4, "attn_dp": 2})
    strategy = flows(
        4, tokens="padded", topologies=topologies(4, [four]), system=System("tests.campaign.test_search:NeedsFour")
    )
    tally = Campaign(simulation, strategy, tmp_path, limits=Limits(more=1).within(3)).run(10)
    assert {found.scenario.world for found in tally.found.values()} == {4}


def test_once_a_rule_leads_a_scenario_where_it_does_not_is_no_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak, hang = (rule("shown", step=0, ranks=(0,)) for rule in (Leak, Hang))
    broken = {layers(4): [hang, leak], layers(3): [leak], layers(2): [hang, leak], layers(1): [leak]}
    monkeypatch.setattr(
        "harness.campaign.campaign.examine", lambda draw: SimpleNamespace(findings=broken[draw.scenario])
    )
    verdicts: list[int | None] = []

    def tries(whole: Scenario, fails: Callable[[Scenario], int | None], *_: object) -> Reduced:
        verdicts.extend(map(fails, broken))
        return Reduced(whole, "smallest")

    monkeypatch.setattr("harness.campaign.shrinking.reduce", tries)
    world = SimpleNamespace(run=lambda scenario, **how: SimpleNamespace(scenario=scenario, is_presumed=False))
    campaign = campaign_of(world, tmp_path)  # type: ignore[arg-type]
    campaign._keeper.keep(layers(4), leak, [hang, leak])
    campaign._reduce("leak")
    assert verdicts == [0, 0, None, 0]


FROM = (8, 20)
"""Ranks and steps of the draw in which a rule was found."""


@pytest.mark.parametrize(
    ("shrunk", "said"),
    [
        ("smallest", ", shrunk to 2 ranks and 3 steps"),
        ("race", ", shrunk to 2 ranks and 3 steps; it fails in some runs only, so a smaller case may have been missed"),
        ("time", ", shrunk to 2 ranks and 3 steps; the time for making it smaller was up"),
        ("unfinished", ", shrunk to 2 ranks and 3 steps; making it smaller was not finished"),
    ],
)
def test_a_finding_tells_how_it_was_made_smaller(shrunk: Shrunk, said: str) -> None:
    found = Found(Leak("shown", step=0, ranks=(0,)).record(), layers(1), "seed.json", 5, FROM, shrunk=shrunk)
    assert found.story == f"found after 5 draws on 8 ranks in 20 steps{said}"


def test_a_finding_that_was_not_made_smaller_does_not_say_so(simulation: World, tmp_path: Path) -> None:
    tally = campaign_of(simulation, tmp_path, shrink_seconds=0, reduce_seconds=0).run(1)
    steps = len(LEAKING.steps)
    words = f"found after 1 draw on 2 ranks in {steps} steps; the time for making it smaller was up"
    assert tally.found["leak"].story == words


def test_a_campaign_says_that_a_finding_ended_it(simulation: World, tmp_path: Path) -> None:
    text = StringIO()
    for scenario in (LEAKING, Scenario(TWO, layers(2).steps)):
        terminal.summary(Console(file=text), campaign_of(simulation, tmp_path, scenario).run(20))
    assert text.getvalue().count("It ended 1 draws after the first finding.") == 1
