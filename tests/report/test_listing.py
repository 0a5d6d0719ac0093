"""A scenario as people read it."""

from __future__ import annotations

from harness.report.listing import layout, listing, owners, whereabouts
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, InFlight, Step
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology

TWO = Topology("two", "sglang", {"tp": 2})
STEPS = (Allocate("a", "tp", 8), AllGather("tp", View("a", 2), 1))


def head(topology: Topology = TWO, system: System | None = None) -> str:
    return next(iter(listing(Scenario(topology, STEPS, system or System(), 7))))


def test_the_first_line_holds_layout_ranks_pool_and_seed() -> None:
    assert head() == "sglang tp=2 · 2 ranks · pool deferred · seed 7"


def test_one_rank_is_singular() -> None:
    assert "· 1 rank ·" in head(Topology("one", "sglang", {"tp": 1}))


def test_nodes_are_named_where_there_are_several() -> None:
    assert "· 2 ranks on 2 nodes ·" in head(Topology("two", "sglang", {"tp": 2}, Placement(2, 1)))


def test_domains_are_named_where_they_are_no_nodes() -> None:
    pairs = Topology("two", "sglang", {"tp": 2}, Placement(1, 2, nvlink_domain=1))
    assert "· 2 ranks on 1 node, 2 NVLink domains ·" in head(pairs)


def test_a_topology_in_one_place_has_nothing_to_say_of_it() -> None:
    assert list(whereabouts(TWO)) == []


def test_nodes_domains_and_groups_without_windows_are_listed() -> None:
    placement = Placement(2, 2, nvlink_domain=1, peers_hidden=True)
    families = {"tp": ((0, 1), (2, 3)), "pp": ((0,), (1,), (2,), (3,)), "all": ((3, 1, 0, 2),)}
    assert list(whereabouts(Topology("four", "explicit", {}, placement, families_given=families))) == [
        "nodes: [0, 1] [2, 3]",
        "NVLink domains: [0] [1] [2] [3]",
        "a process sees its own GPU alone",
        "without windows: tp all, LSA teams of 1",
        "without windows: all all, LSA teams of 1",
    ]


def test_of_a_family_only_the_groups_without_windows_are_listed() -> None:
    families = {"tp": ((0, 1), (2, 3))}
    unequal = Placement(1, 4, nvlink_domains=((0, 1, 2), (3,)))
    assert "without windows: tp [2, 3], LSA teams of 1" in whereabouts(
        Topology("four", "explicit", {}, unequal, families_given=families)
    )


def test_collectives_and_sites_are_named_where_they_are_not_the_default() -> None:
    assert "· collectives mine:Kernel · sites implicit ·" in head(system=System("deferred", "mine:Kernel", "implicit"))


def test_every_step_is_a_line_and_an_arrow_marks_one() -> None:
    _, first, second = listing(Scenario(TWO, STEPS), marked=1)
    assert (first[:4], second[:4]) == ("   0", "→  1")


def test_a_view_is_its_buffer_and_offset() -> None:
    *_, last = listing(Scenario(TWO, STEPS))
    assert "output=a+2 " in last


def steps(*shown: Step) -> list[str]:
    return [line[5:] for line in [*listing(Scenario(TWO, shown))][1:]]


def test_fields_that_are_as_usual_are_left_out() -> None:
    call = AllReduce("tp", View("a"), 4, via="kernel", op="max")
    assert steps(Allocate("a", "tp", 8), call) == [
        "allocate buffer=a family=tp elements=8",
        "all_reduce family=tp output=a count=4 op=max via=kernel",
    ]


def test_the_end_of_a_flight_is_no_begin_of_one() -> None:
    assert steps(InFlight(), InFlight(False)) == ["in_flight", "in_flight begins=False"]


def test_one_number_for_each_rank_has_no_spaces_and_equal_ones_are_counted() -> None:
    eight = Topology("eight", "sglang", {"tp": 8})
    *_, last = listing(Scenario(eight, (Allocate("a", "tp", (64,) * 6 + (5, 5)),)))
    assert last.endswith("elements=64×6,5,5")


def test_a_layout_without_degrees_says_so() -> None:
    assert layout(Topology("one", "sglang", {})) == "sglang all degrees 1"


PAIRS = ((0, 1), (2, 3))
FAMILIES = {"tp": PAIRS, "twin": PAIRS, "swapped": PAIRS[::-1], "edge": PAIRS[:1], "ends": ((0, 1), (0, 3))}


def test_families_that_are_given_are_listed_in_place_of_degrees() -> None:
    shown = layout(Topology("pairs", "explicit", families_given={"tp": PAIRS, "twin": PAIRS, "edge": PAIRS[:1]}))
    assert shown == "explicit tp=[0, 1],[2, 3] twin=tp edge=[0, 1]"


def test_a_family_has_its_own_communicators_those_of_another_or_some_of_each() -> None:
    shared = Topology("pairs", "explicit", families_given=FAMILIES)
    own = Topology("pairs", "explicit", families_given=FAMILIES, shares={})
    assert [owners(shared, name) for name in FAMILIES] == [
        "its own",
        "those of tp",
        "those of tp",
        "those of tp",
        "its own, and those of tp",
    ]
    assert {owners(own, name) for name in FAMILIES} == {"its own"}


def test_ranks_on_which_addresses_fall_are_named() -> None:
    assert next(iter(listing(Scenario(TWO, STEPS, seed=7, falling=(1,))))).endswith("· seed 7 · falling on rank 1")
