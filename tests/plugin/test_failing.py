"""What a property test broke: when Hypothesis has drawn enough, and how long the rest may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.campaign.keeper import Keeper
from harness.campaign.limits import MORE
from harness.campaign.seeds import Reruns
from harness.errors import MachineError
from harness.oracle.findings import Finding, Hang, Leak
from harness.oracle.judge import judge
from harness.plugin.failing import LOOKING, REPEATS, Enough, Failing
from harness.scenario.scenario import Scenario
from harness.scenario.system import System
from harness.trace.draw import Draw, Fate
from harness.world.world import World
from tests.tools.campaigns import LEAKING, RIGHT, TWO, layers
from tests.tools.clock import FakeClock


class Slow:
    """A world in which every run of a simulation takes a second of a pretended clock. `passing` may be made to pass."""

    nccl = None
    deadline = 20.0

    def __init__(self, world: World, clock: FakeClock) -> None:
        self.world, self.clock, self.passing = world, clock, False
        self.ran: tuple[Scenario, ...] = ()

    def renew(self) -> None:
        self.world.renew()
        self.ran = ()

    def run(self, scenario: Scenario, *, hurried: bool = False) -> Draw:
        self.clock.advance(1.0)
        self.ran += (scenario,)
        system = RIGHT.system if self.passing else scenario.system
        draw = self.world.run(Scenario(scenario.topology, scenario.steps, system, scenario.seed))
        return Draw(scenario, draw.traces, draw.fates, draw.seconds, draw.deadline)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def slow(simulation: World, clock: FakeClock) -> Slow:
    return Slow(simulation, clock)


@pytest.fixture
def failing(slow: Any, clock: FakeClock, tmp_path: Path) -> Failing:
    return Failing(slow, Keeper(tmp_path, {}), clock.clock)


def drawn(failing: Failing, slow: Slow, scenario: Scenario = LEAKING, is_last: bool = False) -> None:
    """A draw of a property that handles nothing."""
    failing.go_on(scenario)
    draw = slow.run(scenario)
    findings = judge(draw)
    failing.tell(draw, findings)
    if findings:
        failing.escaped(findings[0], [], is_last)


def hung(failing: Failing, scenario: Scenario) -> None:
    """A draw that costs the ranks."""
    finding: Finding = Hang("all of them", step=0, ranks=(0, 1))
    failing.tell(Draw(scenario, (), (Fate(0, "hung"), Fate(1, "hung")), 1.0, 20.0), [finding])
    failing.escaped(finding, [], is_last=False)


def leaking(seed: int) -> Scenario:
    return Scenario(TWO, LEAKING.steps, LEAKING.system, seed)


def test_draws_without_findings_are_never_enough(failing: Failing, slow: Slow) -> None:
    for _ in range(MORE + 2):
        drawn(failing, slow, RIGHT)
    assert not failing.is_failing


def test_a_first_failure_leaves_time_for_others(failing: Failing, slow: Slow) -> None:
    drawn(failing, slow)
    drawn(failing, slow, RIGHT)
    failing.go_on()


def test_time_after_the_first_failure_ends_the_drawing(failing: Failing, slow: Slow, clock: FakeClock) -> None:
    drawn(failing, slow)
    clock.advance(LOOKING)
    with pytest.raises(Enough):
        failing.go_on()


def test_draws_after_the_first_failure_have_a_number(failing: Failing) -> None:
    finding = Leak("a segment", step=0, ranks=(0,))
    for seed in range(MORE + 1):
        failing.go_on(leaking(seed))
        failing.tell(Draw(leaking(seed), (), (Fate(0, "finished"),), 0.1, 20.0), [finding])
        failing.escaped(finding, [], is_last=False)
    with pytest.raises(Enough):
        failing.go_on(leaking(99))


def test_a_test_that_wants_one_failure_ends_with_it(failing: Failing, slow: Slow) -> None:
    drawn(failing, slow, is_last=True)
    with pytest.raises(Enough):
        failing.go_on()


def test_what_failed_already_is_drawn_again_a_few_times_only(failing: Failing, slow: Slow) -> None:
    for _ in range(1 + REPEATS):
        drawn(failing, slow)
    with pytest.raises(Enough):
        failing.go_on(LEAKING)


def test_what_costs_the_ranks_is_not_drawn_again(failing: Failing) -> None:
    hung(failing, LEAKING)
    with pytest.raises(Enough):
        failing.go_on(LEAKING)


def test_an_error_of_the_machine_ends_the_drawing(failing: Failing) -> None:
    failing.error = MachineError("no room")
    with pytest.raises(Enough):
        failing.go_on()
    assert failing.outcome() is failing.error


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_shrinking_takes_the_seconds_that_it_has(
    failing: Failing, slow: Slow, clock: FakeClock, seconds: float
) -> None:
    drawn(failing, slow, Scenario(TWO, layers(9), LEAKING.system, 5))
    began = clock.seconds
    failing.shrink(seconds)
    assert clock.seconds - began <= seconds + 1
    assert failing.found[0].shrunk == "time"


def test_rules_share_the_seconds(failing: Failing, slow: Slow, clock: FakeClock) -> None:
    drawn(failing, slow, Scenario(TWO, layers(9), LEAKING.system, 5))
    hung(failing, Scenario(TWO, layers(8), LEAKING.system, 6))
    began = clock.seconds
    failing.shrink(8.0)
    assert clock.seconds - began <= 8.0 + 2 + slow.deadline


def test_a_failure_that_never_comes_again_says_so(failing: Failing, slow: Slow) -> None:
    drawn(failing, slow, Scenario(TWO, LEAKING.steps[:1], LEAKING.system))
    slow.passing = True
    failing.shrink(10.0)
    said = [note for note in failing.outcome().__notes__ if note.startswith("it failed in 1 of ")]
    assert (len(said), failing.found[0].shrunk) == (1, "race")
    assert "not reproducible" in "".join(failing.outcome().__notes__)


def test_what_fails_on_used_ranks_alone_is_made_smaller_on_fresh_ones(failing: Failing, slow: Slow) -> None:
    system = System("tests.tools.planted.memory:LeaksFromThird")
    slow.renew()
    drawn(failing, slow, Scenario(TWO, layers(4), system))
    failing.shrink(60.0)
    (found,) = failing.found
    assert ([step.kind for step in found.scenario.steps], found.reruns) == (["allocate"] * 3, Reruns(1, 1))


def test_a_finding_that_the_test_handled_is_not_what_is_shown(failing: Failing, slow: Slow, tmp_path: Path) -> None:
    small = Scenario(TWO, LEAKING.steps[:1], LEAKING.system)
    drawn(failing, slow, LEAKING)
    draw = slow.run(small)
    failing.tell(draw, judge(draw))
    failing.keeper.keep(small, judge(draw)[0], judge(draw))
    failing.may_shrink = False
    failing.shrink(5.0)
    assert [found.scenario for found in failing.found] == [LEAKING]
    assert len([*tmp_path.iterdir()]) == 1


def test_the_outcome_is_a_finding_of_its_rule(failing: Failing, slow: Slow) -> None:
    drawn(failing, slow)
    failing.shrink(0.0)
    assert isinstance(failing.outcome(), Leak)
