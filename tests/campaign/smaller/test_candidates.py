"""Candidates: valid, no larger, and in an order that leaves out most first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from harness.campaign.smaller.candidates import fewer_ranks, fewer_steps, until
from harness.campaign.smaller.plainer import plainer
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    ReduceScatter,
    Release,
    Replay,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.strategies.batches import sample
from harness.strategies.programs import HAZARDS, scenarios

PAIR = Topology("pair", "sglang", {"tp": 2})
QUAD = Topology("quad", "sglang", {"tp": 4, "attn_dp": 2})
EIGHT = Topology("eight", "sglang", {"tp": 8, "attn_dp": 2})
A, GATHER = Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)


def programs(candidates: Iterator[Scenario]) -> list[tuple[Step, ...]]:
    return [scenario.steps for scenario in candidates]


def plain(step: Step, *before: Step, topology: Topology = PAIR) -> list[Step]:
    """What the last step of a program is made, where it is the one that changes."""
    candidates = plainer(Scenario(topology, (*before, step)))
    return [scenario.steps[-1] for scenario in candidates if scenario.steps[:-1] == before]


@pytest.mark.parametrize("candidates", [fewer_steps, fewer_ranks, plainer], ids=lambda each: each.__name__)
def test_no_candidate_is_larger_than_what_it_stands_for(candidates: Callable[[Scenario], Iterator[Scenario]]) -> None:
    drawn = sample(scenarios(4, hazards=HAZARDS), 24) + sample(scenarios(4, graphs=True, max_steps=24), 24)
    sizes = [((scenario.world, len(scenario.steps)), found) for scenario in drawn for found in candidates(scenario)]
    assert len(sizes) > 100
    assert all(found.world <= world and len(found.steps) <= steps for (world, steps), found in sizes)


@pytest.mark.parametrize("candidates", [fewer_steps, fewer_ranks, plainer], ids=lambda each: each.__name__)
def test_a_candidate_differs_and_keeps_the_system(candidates: Callable[[Scenario], Iterator[Scenario]]) -> None:
    system = System("per-group", sites="implicit")
    for scenario in sample(scenarios(4, system=system), 24):
        for found in candidates(scenario):
            assert (found != scenario, found.system) == (True, system)


# until


def test_nothing_stays_after_the_step_that_fails() -> None:
    assert programs(until(Scenario(PAIR, (A, GATHER, Trim())), 1)) == [(A, GATHER)]


def test_a_program_that_fails_at_its_last_step_stays() -> None:
    assert programs(until(Scenario(PAIR, (A, GATHER)), 1)) == []


# fewer steps


def test_steps_of_one_family_come_first() -> None:
    other = Allocate("b", "attn_tp", 8)
    assert programs(fewer_steps(Scenario(QUAD, (A, other, Trim()))))[:2] == [(A, Trim()), (other, Trim())]


def test_steps_of_one_kind_come_before_halves() -> None:
    steps = A, GATHER, Release("a"), Trim(), Allocate("b", "tp", 8), Trim()
    found = programs(fewer_steps(Scenario(PAIR, steps)))
    assert found.index(tuple(step for step in steps if step != Trim())) < found.index(steps[:3])


def test_the_end_of_a_program_goes_before_its_start() -> None:
    steps = tuple(Allocate(name, "tp", 8) for name in "abcd")
    found = programs(fewer_steps(Scenario(PAIR, steps)))
    assert found == [steps[:2], steps[2:], steps[:3], (*steps[:2], steps[3]), (steps[0], *steps[2:]), steps[1:]]


def test_what_cannot_be_without_a_step_goes_with_it() -> None:
    steps = A, GATHER, Prepare("g"), Capture("g"), EndCapture("g"), Replay("g"), Trim()
    assert (Trim(),) in programs(fewer_steps(Scenario(PAIR, (A, GATHER, Trim()))))
    assert (A, GATHER, Trim()) in programs(fewer_steps(Scenario(PAIR, steps)))


# fewer ranks


def test_ranks_come_onto_fewer_nodes_first() -> None:
    spread = Topology("spread", "sglang", {"tp": 4}, Placement(4, 1))
    nodes = [len(set(found.topology.node_of)) for found in fewer_ranks(Scenario(spread, (A,))) if found.world == 4]
    assert nodes == [1, 2]


def test_ranks_come_into_plainer_places_first() -> None:
    pairs = Topology("pairs", "sglang", {"tp": 4}, Placement(2, 2, nvlink_domain=1, peers_hidden=True))
    found = [found.topology for found in fewer_ranks(Scenario(pairs, (A,))) if found.world == 4]
    assert [topology.place for topology in found] == [
        ((0, 0, 1, 1), (0, 0, 1, 1), True),
        ((0, 0, 0, 0), (0, 0, 1, 1), False),
        ((0, 0, 1, 1), (0, 1, 2, 3), False),
    ]


@pytest.mark.parametrize(
    ("placement", "domains"),
    [(Placement(1, 4, nvlink_domain=2), {(0, 1), (0, 0, 1)}), (Placement(4, 1, nvlink_domain=4), {(0, 0), (0, 0, 0)})],
)
def test_fewer_ranks_keep_domains_that_are_no_nodes(placement: Placement, domains: set[tuple[int, ...]]) -> None:
    wide = Topology("wide", "sglang", {"tp": 4}, placement)
    found = [found.topology for found in fewer_ranks(Scenario(wide, (A,))) if found.world < 4]
    assert {topology.domain_of for topology in found} == domains
    assert all(topology.has_own_domains for topology in found)


def test_the_fewest_ranks_come_first() -> None:
    worlds = [found.world for found in fewer_ranks(Scenario(EIGHT, (A,)))]
    assert worlds == sorted(worlds)
    assert {*worlds} == {2, 3, 4, 5, 6, 7}


def test_nodes_change_rarely_from_one_candidate_to_the_next() -> None:
    wide = Topology("wide", "sglang", {"tp": 8, "attn_dp": 2}, Placement(2, 4))
    steps = A, Allocate("b", "attn_tp", tuple(range(1, 9)))
    placed = [found.topology.node_of for found in fewer_ranks(Scenario(wide, steps))]
    assert len(placed) > 100
    assert sum(one != other for one, other in pairwise(placed)) < 10


def test_layouts_that_are_the_same_to_the_program_come_once() -> None:
    found = [
        (scenario.world, scenario.topology.families["attn_tp"])
        for scenario in fewer_ranks(Scenario(EIGHT, (Allocate("a", "attn_tp", 8),)))
    ]
    assert len(found) == len(set(found)) > 5


def test_each_choice_of_ranks_keeps_their_sizes() -> None:
    sizes = Scenario(Topology("three", "sglang", {"tp": 3}), (Allocate("a", "tp", (5, 6, 7)),))
    kept = [found.steps[0] for found in fewer_ranks(sizes)]
    assert kept[:3] == [Allocate("a", "tp", elements) for elements in ((5, 6), (6, 7), (5, 7))]


def test_offsets_and_counts_are_those_of_the_ranks_kept() -> None:
    three = Topology("three", "sglang", {"tp": 3})
    parts = AllGather("tp", View("a"), (1, 1, 2), View("b", (3, 3, 4)))
    steps = Allocate("a", "tp", 8), Allocate("b", "tp", 8), parts
    last = [found.steps[-1] for found in fewer_ranks(Scenario(three, steps))]
    assert last[:2] == [
        AllGather("tp", View("a"), 1, View("b", 3)),
        AllGather("tp", View("a"), (1, 2), View("b", (3, 4))),
    ]


def test_a_rank_that_acts_alone_keeps_its_place_among_those_kept_and_wraps_around_elsewhere() -> None:
    three = Topology("three", "sglang", {"tp": 3})
    assert programs(fewer_ranks(Scenario(three, (Deny(2),)))) == [(Deny(0),), (Deny(1),)]


# plainer


@pytest.mark.parametrize(
    ("step", "made"),
    [
        (Deny(1), [Deny(0)]),
        (Straggle(0, 64), [Straggle(0, 32)]),
        (Ballast("b", "tp", 1, 8), [Ballast("b", "tp", 0, 8), Ballast("b", "tp", 1, 4)]),
        (Allocate("a", "tp", 8), [Allocate("a", "tp", 1), Allocate("a", "tp", 4)]),
        (Allocate("a", "tp", (8, 3)), [Allocate("a", "tp", n) for n in (1, (4, 3), (8, 1))]),
        (Allocate("a", "tp", 1, stream=2), [Allocate("a", "tp", 1), Allocate("a", "tp", 1)]),
    ],
    ids=["deny", "straggle", "ballast", "allocate", "sizes that differ", "stream"],
)
def test_one_thing_of_a_step_is_made_plain(step: Step, made: list[Step]) -> None:
    assert plain(step) == made


def test_everything_of_a_call_is_made_plain_in_turn() -> None:
    part = Allocate("p", "tp", 8, role="plain")
    call = ReduceScatter("tp", View("a", 2), 2, View("p", 1), "avg", "kernel", claim=True)
    changed = [
        {"output": View("p")},
        {"count": 1},
        {"via": "library"},
        {"output": None},
        {"source": View("a")},
        {"op": "sum"},
        {"claim": False},
        {"count": 1},
    ]
    fields = {"family": "tp", "source": View("a", 2), "count": 2, "output": View("p", 1), "op": "avg", "via": "kernel"}
    expected = [ReduceScatter(**{**fields, "claim": True, **change}) for change in changed]  # type: ignore[arg-type]
    assert plain(call, A, part) == [*expected, AllGather("tp", View("a"), 1)]


def test_a_buffer_becomes_no_smaller_than_its_calls_reach() -> None:
    steps = Allocate("a", "tp", 64), AllGather("tp", View("a", 3), 2)
    sizes = [found.steps[0] for found in plainer(Scenario(PAIR, steps)) if found.steps[1] == steps[1]]
    assert sizes == [Allocate("a", "tp", 7), Allocate("a", "tp", 32)]


def test_the_seed_of_values_goes_first() -> None:
    assert next(plainer(Scenario(PAIR, (A,), seed=7))).seed == 0


def test_all_steps_are_tried_in_float32_together() -> None:
    halves = (
        Allocate("a", "tp", 8, "float16"),
        Allocate("b", "tp", 8, "float16"),
        AllGather("tp", View("a"), 1, View("b")),
    )
    assert programs(plainer(Scenario(PAIR, halves)))[0] == (A, Allocate("b", "tp", 8), halves[2])


# groups that act, and families that are given

HALVES = Topology("halves", "explicit", families_given={"tp": ((0, 1), (2, 3)), "ends": ((0, 3),)})
B = Allocate("b", "tp", 8, groups=((2, 3),))


def test_a_step_of_some_groups_becomes_one_of_all_and_one_of_fewer() -> None:
    both = ((0, 1), (2, 3))
    made = plain(Allocate("b", "tp", 8, groups=both), topology=HALVES)
    assert [step.groups for step in made if isinstance(step, Allocate) and step.elements == 8][:3] == [
        None,
        ((2, 3),),
        ((0, 1),),
    ]


def test_groups_keep_their_place_in_a_layout_of_fewer_ranks_or_all_act() -> None:
    eight = Topology("eight", "sglang", {"tp": 8, "attn_dp": 4})
    third = Scenario(eight, (Allocate("b", "attn_tp", 8, groups=((4, 5),)),))
    found = [each for each in fewer_ranks(third) if each.topology.families["attn_tp"] == ((0, 1), (2, 3))]
    assert [each.steps[0].groups for each in found] == [((0, 1),), None]


def given(scenario: Scenario) -> list[object]:
    return [(found.topology.families, found.steps[0].groups) for found in fewer_ranks(scenario)]


def test_of_given_families_those_that_nothing_names_go_and_then_ranks_and_groups() -> None:
    found = given(Scenario(HALVES, (B,)))
    assert found[0] == ({"tp": ((0, 1), (2, 3))}, ((2, 3),))
    assert ({"tp": ((0,), (1, 2))}, ((1, 2),)) in found  # without rank 0
    assert ({"tp": ((2, 3),)}, ((2, 3),)) in found


def test_ranks_that_are_in_no_group_of_what_is_named_go_at_once() -> None:
    found = given(Scenario(HALVES, (Allocate("b", "ends", 8),)))
    assert ({"ends": ((0, 1),)}, None) in found


def test_a_step_whose_groups_are_gone_goes_with_what_rests_on_it() -> None:
    steps = B, AllGather("tp", View("b"), 4, groups=((2, 3),)), Allocate("c", "tp", 8)
    left = [
        found.steps for found in fewer_ranks(Scenario(HALVES, steps)) if found.topology.families == {"tp": ((0, 1),)}
    ]
    assert left[0] == (Allocate("c", "tp", 8),)


def test_families_that_share_communicators_go_on_to_share_them() -> None:
    shared = {"tp": ((0, 1, 2),), "ep": ((0, 1, 2),)}
    like = Topology("like", "explicit", families_given=shared, shares={"ep": "tp"})
    found = [*fewer_ranks(Scenario(like, (Allocate("b", "ep", 8), Allocate("c", "tp", 8))))]
    assert found
    assert all(each.topology.ids["ep"] == each.topology.ids["tp"] for each in found)


def test_what_is_registered_becomes_the_same_on_all_ranks_and_less() -> None:
    three = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),), "ep": ((0, 1, 2),)}, shares={})
    step = Allocate("b", "tp", 8, registered=(("tp",), ("tp", "ep"), ("tp",)), lead=(0, 4, 0))
    found = [each for each in plain(step, topology=three) if isinstance(each, Allocate)]
    assert {each.registered for each in found if each.lead == step.lead} >= {(("tp",),), (("tp", "ep"),)}
    assert any(each.lead == 0 for each in found)


def test_fewer_ranks_keep_what_each_of_them_registers() -> None:
    three = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),)})
    step = Allocate("b", "tp", 8, registered=(("tp",), (), ("tp",)))
    lists = [found.steps[0].registered for found in fewer_ranks(Scenario(three, (step,)))]  # type: ignore[union-attr]
    assert (((), ("tp",)) in lists, (("tp",),) in lists) == (True, True)


def test_a_schedule_stays_with_the_ranks_that_are_kept() -> None:
    steps = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 1))
    found = [*fewer_ranks(Scenario(EIGHT, steps, schedule=Schedule((7, 0, 6, 1, 5, 2, 4, 3), (9,))))]
    assert found
    assert {each.scheduled for each in found if each.world == 2} == {Schedule((0, 1), (9,)), Schedule((1, 0), (9,))}


def test_a_schedule_is_made_plainer() -> None:
    steps = (Allocate("a", "tp", 2), AllGather("tp", View("a"), 1))
    found = [each.scheduled for each in plainer(Scenario(PAIR, steps, schedule=Schedule((1, 0), (6, 9))))]
    plain = [Schedule((0, 1), (6, 9)), Schedule((1, 0)), Schedule((1, 0), (9,)), Schedule((1, 0), (3, 9))]
    assert not {*plain} - {*found}
