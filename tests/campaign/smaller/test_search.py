"""The search for a smaller case: which ranks may stand for all, in which order it tries, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from harness.campaign.smaller.search import smallest_failing
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Deny, ReduceScatter, Release, Step, Straggle
from harness.scenario.topology import Placement, Topology
from tests.tools.clock import FakeClock

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

    smallest_failing(scenario, fails, 0)
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

    left = smallest_failing(Scenario(Topology("two", "sglang", {"tp": 2}), (step,), seed=7), fails, 0).scenario
    assert (left.steps, left.seed) == ((plain,), 0)


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
    left = smallest_failing(
        Scenario(wide, (Allocate("a", "tp", 8),)), lambda tried: 0 if fails(tried) else None, 0
    ).scenario
    assert (left.world, len(set(left.topology.node_of))) == size


def fails_alone(whole: Scenario, tried: Callable[[Scenario], None]) -> Callable[[Scenario], int | None]:
    """Nothing smaller than the whole fails."""
    return lambda scenario: 0 if scenario == whole else tried(scenario)  # type: ignore[func-returns-value]


def layers(count: int) -> Scenario:
    """Gathers, each of a buffer of its own, on two ranks."""
    steps: list[Step] = []
    for name in (f"b{number}" for number in range(count)):
        steps += [Allocate(name, "tp", 8), AllGather("tp", View(name), 1), Release(name)]
    return Scenario(Topology("two", "sglang", {"tp": 2}), tuple(steps))


def test_what_comes_after_the_step_that_fails_is_left_out_first() -> None:
    tried: list[Scenario] = []
    whole = layers(10)
    smallest_failing(whole, fails_alone(whole, tried.append), 4)
    assert tried[0].steps == whole.steps[:5]


def test_a_single_step_after_the_one_that_fails_is_left_out_first() -> None:
    tried: list[Scenario] = []
    whole = layers(4)
    smallest_failing(whole, fails_alone(whole, tried.append), len(whole.steps) - 2)
    assert tried[0].steps == whole.steps[:-1]


def test_a_failure_that_costs_ranks_is_small_after_few_of_them() -> None:
    failures: list[Scenario] = []

    def fails(scenario: Scenario) -> int | None:
        step = next((at for at, step in enumerate(scenario.steps) if step == Allocate("b12", "tp", 8)), None)
        failures.extend([scenario] * (step is not None))
        return step

    assert smallest_failing(layers(20), fails, 36).scenario.steps == (Allocate("b12", "tp", 8),)
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

    def watched(scenario: Scenario) -> int | None:
        tried.append(scenario)
        return fails(scenario)

    left = smallest_failing(Scenario(topology, mixed), watched, len(mixed)).scenario
    alone = next(index for index, scenario in enumerate(tried) if scenario.families == ("attn_tp",))
    assert alone < next(index for index, scenario in enumerate(tried) if len(scenario.steps) == len(mixed) // 2)
    assert {step.buffer for step in left.steps if isinstance(step, Allocate)} == {"a", "b", "c", "d"}


def test_each_failure_says_after_which_step_nothing_matters() -> None:
    tried: list[tuple[tuple[Step, ...], int | None]] = []

    def fails(scenario: Scenario) -> int | None:
        step = next((at for at, step in enumerate(scenario.steps) if step == Allocate("b5", "tp", 8)), None)
        tried.append((scenario.steps, step))
        return step

    smallest_failing(layers(10), fails, 30)
    failed = next(index for index, (_, step) in enumerate(tried) if step is not None)
    (steps, step), (next_steps, _) = tried[failed : failed + 2]
    assert step is not None
    assert next_steps == steps[: step + 1] != steps


def test_a_failure_that_comes_and_goes_is_tried_again() -> None:
    calls = count()

    def fails(scenario: Scenario) -> int | None:
        return len(scenario.steps) if next(calls) % 3 == 0 else None

    assert len(smallest_failing(layers(4), fails, 12).scenario.steps) == 1


def test_a_failure_that_never_comes_again_is_tried_as_often_as_asked() -> None:
    runs: list[Scenario] = []
    whole = layers(4)
    assert smallest_failing(whole, runs.append, 12, runs=500) == (whole, "race")  # type: ignore[arg-type, func-returns-value]
    assert len(runs) == 500


def test_a_failure_that_comes_and_goes_is_a_race_when_time_is_up() -> None:
    calls, time = count(), FakeClock()

    def fails(scenario: Scenario) -> int | None:
        time.advance(1)
        return 0 if len(scenario.steps) > 1 or next(calls) % 3 == 0 else None

    assert smallest_failing(layers(4), fails, 12, end=200, clock=time.clock).how == "race"


def test_a_case_that_passed_once_is_a_race_although_it_fails_again_and_again() -> None:
    smallest = smallest_failing(layers(1), lambda scenario: 0, 12).scenario
    fails_again = iter([None, 0, 0])  # once it passes, then it fails twice in a row
    found = smallest_failing(smallest, lambda scenario: next(fails_again) if scenario == smallest else None, 0)
    assert found.how == "race"


def test_a_case_that_fails_in_every_run_is_the_smallest() -> None:
    assert smallest_failing(layers(4), lambda scenario: 0, 12).how == "smallest"


def test_a_failure_that_stays_is_not_tried_for_as_long_as_may_be() -> None:
    runs = count()

    def fails(scenario: Scenario) -> int | None:
        next(runs)
        return 0

    smallest_failing(layers(4), fails, 0)
    assert next(runs) < 30


def test_time_ends_the_search() -> None:
    whole, time = layers(4), FakeClock()
    assert smallest_failing(whole, lambda scenario: 0, 0, end=0, clock=time.clock) == (whole, "time")


def test_nothing_is_tried_after_the_end() -> None:
    time, tried = FakeClock(), list[float]()

    def fails(scenario: Scenario) -> int | None:
        tried.append(time.seconds)
        time.advance(1)
        return 0

    smallest_failing(layers(4), fails, 12, end=3, clock=time.clock)
    assert tried == [0, 1, 2]


def test_streams_that_do_not_matter_are_made_plain_and_one_that_does_is_kept() -> None:
    """A buffer of one stream is used on another and released; the next one is allocated on the first again."""
    steps = (
        Allocate("a", "tp", 64, stream=1),
        AllGather("tp", View("a"), 32, stream=2),
        Release("a"),
        Allocate("b", "tp", 64, stream=1),
        ReduceScatter("tp", View("b"), 32, stream=2),
    )
    kept = []

    def fails(tried: Scenario) -> int | None:
        is_kept = any(isinstance(step, ReduceScatter) and step.stream == 2 for step in tried.steps)
        kept.extend([tried] * is_kept)
        return len(tried.steps) if is_kept else None

    smallest_failing(Scenario(Topology("pair", "sglang", {"tp": 2}), steps), fails, len(steps))
    assert {step.kind: step.stream for step in kept[-1].steps} == {"allocate": 0, "reduce_scatter": 2}


def falling(fails: Callable[[Scenario], bool]) -> Scenario:
    """What is left of a scenario with falling addresses on ranks 1, 3 and 5, while it fails."""
    left = [Scenario(SEVEN, (Allocate("a", "tp", 8),), falling=(1, 3, 5))]

    def found(tried: Scenario) -> int | None:
        if not fails(tried):
            return None
        left.append(tried)
        return 0

    smallest_failing(left[0], found, 0)
    return left[-1]


def test_falling_addresses_go_where_they_do_not_matter() -> None:
    assert falling(lambda scenario: True).falls_on == ()


def test_falling_addresses_stay_on_a_rank_where_they_matter() -> None:
    left = falling(lambda scenario: 0 < len(scenario.falls_on) < scenario.world)
    assert (left.world, len(left.falls_on)) == (2, 1)


def test_falling_addresses_go_rank_by_rank() -> None:
    left = falling(lambda scenario: scenario.world == 7 and 3 in scenario.falls_on)
    assert left.falls_on == (3,)
