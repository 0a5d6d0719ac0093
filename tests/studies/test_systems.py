"""One scenario on several systems: which of them break a rule, and where they first go another way."""

from __future__ import annotations

from harness.campaign import seeds
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import POOLS, System
from harness.studies import systems
from harness.world.world import World
from tests.tools.draws import PAIR

GATHER = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4, via="kernel"))


def test_every_other_pool_is_a_variant_and_so_are_library_and_sites() -> None:
    found = dict(systems.variants(Scenario(PAIR, GATHER, System("deferred", sites="implicit"))))
    pools = [f"pool {pool}" for pool in POOLS if pool != "deferred"]
    assert [*found] == [*pools, "collectives by the library", "sites that name their group"]
    assert found["collectives by the library"].steps[1] == AllGather("tp", View("a"), 4)
    assert found["sites that name their group"].system.sites == "explicit"


def test_a_pool_for_each_group_first_differs_where_the_second_group_gets_its_buffer(simulation: World) -> None:
    scenario = seeds.find("wrong-owner-found-on-sim").scenario
    own = simulation.run(scenario)
    tried = {each.system: each for each in systems.compare(simulation, own, systems.variants(scenario))}
    assert tried["pool per-group"].findings == ()
    first = tried["pool per-group"].first
    assert first is not None
    assert (first.where.step, first.where.rank) == (1, 0)
    assert [each.rule for each in tried["pool snapshot-once"].findings] == ["wrong-owner"]


def test_the_same_system_differs_nowhere(simulation: World) -> None:
    scenario = Scenario(PAIR, GATHER)
    (again,) = systems.compare(simulation, simulation.run(scenario), [("again", scenario)])
    assert (again.first, again.findings) == (None, ())


def test_a_system_that_cannot_run_says_why(simulation: World) -> None:
    scenario = Scenario(PAIR, GATHER)
    wrong = Scenario(PAIR, GATHER, System("harness.system.planted.pools:NoSuchPool"))
    (refused,) = systems.compare(simulation, simulation.run(scenario), [("wrong", wrong)])
    assert refused.draw is None
    assert "NoSuchPool" in refused.refused
