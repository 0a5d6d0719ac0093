"""Renumbered ranks: everything that belongs to a rank goes along, and groups keep the order of their ranks."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.operands import View
from harness.scenario.placement import Placement
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Collective, Step, Straggle
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.placements import on_nodes
from harness.strategies.programs import HAZARDS, scenarios
from harness.studies.agree.transformations.renumbering import renumber_ranks
from harness.studies.agree.transformations.variant import Variant

FOUR = Topology("four", "explicit", families_given={"tp": ((1, 0), (2, 3)), "dp": ((0, 2),)})
STEPS: tuple[Step, ...] = (
    Allocate("a", "tp", (10, 11, 12, 13), registered=(("tp",), ("dp",), ("dp", "tp"), ()), lead=(1, 2, 3, 4)),
    Ballast("x", "dp", 2, 64),
    Straggle(3, 1),
    Allocate("b", "tp", 64, role="plain"),
    AllGather("tp", View("b", (0, 0, 3, 3)), (1, 2, 3, 4), groups=((2, 3),)),
)


def renumbered(scenario: Scenario) -> tuple[Variant, list[int]]:
    """The variant, and the new number of each rank."""
    variant = renumber_ranks(scenario)
    assert variant is not None
    return variant, [variant.ranks.index(rank) for rank in range(scenario.world)]


@pytest.fixture(params=range(6))
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return Scenario(FOUR, STEPS, seed=request.param, falling=(0, 3))


def test_some_rank_has_another_number(scenario: Scenario) -> None:
    assert renumbered(scenario)[1] != [0, 1, 2, 3]


def test_groups_keep_the_order_of_their_ranks(scenario: Scenario) -> None:
    variant, new = renumbered(scenario)
    families = variant.scenario.topology.families
    assert families == {
        name: tuple(tuple(new[rank] for rank in group) for group in groups) for name, groups in FOUR.families.items()
    }


def test_each_rank_keeps_its_counts_offsets_and_registrations(scenario: Scenario) -> None:
    variant, new = renumbered(scenario)
    allocate, *_, gather = variant.scenario.steps
    assert isinstance(allocate, Allocate)
    assert isinstance(gather, AllGather)
    for rank in range(4):
        assert msgspec.structs.astuple(allocate)[2][new[rank]] == 10 + rank
        assert allocate.registered_on(new[rank]) == STEPS[0].registered_on(rank)  # type: ignore[union-attr]
        assert (allocate.lead[new[rank]], gather.count[new[rank]]) == (1 + rank, 1 + rank)  # type: ignore[index]
        assert gather.output.offset[new[rank]] == (0, 0, 3, 3)[rank]  # type: ignore[index]


def test_local_steps_named_groups_and_falling_addresses_go_along(scenario: Scenario) -> None:
    variant, new = renumbered(scenario)
    steps = variant.scenario.steps
    assert [steps[1].rank, steps[2].rank] == [new[2], new[3]]
    assert steps[4].groups == ((new[2], new[3]),)
    assert variant.scenario.falls_on == tuple(sorted((new[0], new[3])))


def test_ranks_in_no_group_keep_their_numbers() -> None:
    topology = Topology("gap", "explicit", families_given={"tp": ((0, 2, 4),)})
    for seed in range(8):
        variant, new = renumbered(Scenario(topology, (Allocate("a", "tp", 8),), seed=seed))
        assert (new[1], new[3], variant.scenario.world) == (1, 3, 5)


def test_one_rank_has_no_other_number() -> None:
    alone = Topology("alone", "explicit", families_given={"tp": ((0,),)})
    assert renumber_ranks(Scenario(alone, (Allocate("a", "tp", 8),))) is None


@pytest.mark.parametrize(
    "placement",
    [
        Placement(2, 2),
        Placement(2, 3, nvlink_domain=1),
        Placement(2, 2, nvlink_domain=4),
        Placement(3, 4, ranks=((3, 0), (), (2, 1)), nvlink_domain=2),
        Placement(2, 2, nvlink_domains=((0, 3), (1, 2)), mnnvl=False),
    ],
)
def test_each_rank_stays_on_its_node_and_in_its_domain(placement: Placement) -> None:
    before = msgspec.structs.replace(FOUR, placement=placement)
    for seed in range(4):
        variant, new = renumbered(Scenario(before, STEPS[2:], seed=seed))
        after = variant.scenario.topology
        assert [after.node_of[new[rank]] for rank in range(4)] == [*before.node_of]
        together = [(a, b) for a in range(4) for b in range(4) if before.domain_of[a] == before.domain_of[b]]
        assert all(after.domain_of[new[a]] == after.domain_of[new[b]] for a, b in together)
        assert len({*after.domain_of}) == len({*before.domain_of})


def test_drawn_layouts_keep_communicators_and_windows() -> None:
    drawn = sample(scenarios(8, hazards=HAZARDS), 30) + sample(on_nodes(scenarios(8), 8, 2), 10)
    for scenario in drawn:
        if scenario.world < 2:
            continue
        variant, new = renumbered(scenario)
        before, after = scenario.topology, variant.scenario.topology
        for name, ids in before.ids.items():
            moved = [(tuple(new[rank] for rank in group.ranks), group.number) for group in ids]
            assert [(group.ranks, group.number) for group in after.ids[name]] == moved
            assert [after.lsa_team_size(group) for group, _ in moved] == [before.lsa_team_size(each[0]) for each in ids]


def test_calls_keep_what_each_rank_reads_and_writes() -> None:
    for scenario in sample(scenarios(6, hazards=HAZARDS), 30):
        if scenario.world < 2:
            continue
        variant, new = renumbered(scenario)
        for before, after in zip(scenario.steps, variant.scenario.steps, strict=True):
            if isinstance(before, Collective) and isinstance(after, Collective):
                for old, moved in zip(scenario.acting(before), variant.scenario.acting(after), strict=True):
                    lengths = [before.lengths(old.ranks, rank) for rank in old.ranks]
                    assert lengths == [after.lengths(moved.ranks, new[rank]) for rank in old.ranks]
