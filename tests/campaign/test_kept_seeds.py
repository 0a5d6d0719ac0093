"""Seeds that are kept for ever: each still fails on the system it was found on, and on no right one."""

from pathlib import Path

import pytest

from harness import World, judge
from harness.campaign import seeds
from harness.campaign.replay import with_system

FOLDER = Path(__file__).parents[2] / "topologies" / "seeds"
KEPT = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def world():
    with World(8, "sim") as running:
        yield running


def test_there_are_kept_seeds():
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_seed_breaks_the_rules_it_was_kept_for(world, path):
    seed = seeds.load(path)
    found = {finding.rule for finding in judge(world.run(seed.scenario))}
    assert found == {record.rule for record in seed.findings}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_seed_is_clean_with_explicit_sites_and_the_deferred_pool(world, path):
    scenario = with_system(seeds.load(path).scenario, pool="deferred", sites="explicit")
    assert judge(world.run(scenario)) == []
