"""What is shown against what degrees say: every planted error is found at its first rank, and no other."""

from __future__ import annotations

import random

import pytest

from harness.scenario.dumps.differences import Comparison, compare
from harness.scenario.dumps.dump import Layout
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.layouts.groups import Groups
from harness.scenario.topology import Topology
from tests.tools.layouts import exchanged, random_layouts, shifted, sorted_groups, with_family

TP: Groups = ((0, 1), (2, 3))
DP: Groups = ((0, 2), (1, 3))


def shown(speakers: int = 0, **families: Groups) -> Layout:
    """A layout of four ranks, of which the first ones show all their groups."""
    return Layout(families, 4, frozenset(range(speakers)))


def facts(found: Comparison) -> list[tuple[object, ...]]:
    return [tuple(each) for each in found.differences]


def test_equal_families_agree_whatever_the_order_of_their_groups() -> None:
    found = compare(shown(4, tp=TP[::-1]), shown(4, tp=TP))
    assert (found.differences, found.compared) == ((), ("tp",))


def test_another_group_is_named_with_the_one_that_is_expected() -> None:
    assert facts(compare(shown(tp=((0, 2), (1, 3))), shown(4, tp=TP))) == [
        ("tp", "groups", 0, (0, 2), (0, 1), 4, ""),
    ]


def test_a_difference_is_that_of_the_first_rank() -> None:
    expected = ((0, 1), (2, 3), (4, 5), (6, 7))
    found = compare(
        Layout({"tp": ((0, 1), (2, 3), (4, 7), (5, 6))}, 8, frozenset()), Layout({"tp": expected}, 8, frozenset())
    )
    assert facts(found) == [("tp", "groups", 4, (4, 7), (4, 5), 4, "")]


def test_the_same_ranks_in_another_order_differ_in_order_alone() -> None:
    found = compare(shown(tp=((3, 1, 0, 2),)), shown(4, tp=((0, 1, 2, 3),)))
    assert facts(found) == [("tp", "order", 0, (3, 1, 0, 2), (0, 1, 2, 3), 3, "")]


def test_the_first_rank_of_an_order_is_one_with_another_place() -> None:
    found = compare(shown(tp=((0, 2, 1, 3),)), shown(4, tp=((0, 1, 2, 3),)))
    assert [(each.kind, each.rank) for each in found.differences] == [("order", 1)]


def test_other_groups_count_before_another_order() -> None:
    expected = ((0, 1, 2), (3, 4), (5,))
    found = compare(Layout({"tp": ((1, 0, 2), (3, 5), (4,))}, 6, frozenset()), Layout({"tp": expected}, 6, frozenset()))
    assert [(each.kind, each.rank) for each in found.differences] == [("groups", 3)]


def test_families_of_each_other_are_swapped() -> None:
    found = compare(shown(tp=DP, dp=TP), shown(4, tp=TP, dp=DP))
    assert [(one.family, other.family, one.rank) for one, other in found.swapped] == [("dp", "tp", 0)]


def test_groups_of_a_third_family_are_no_swap() -> None:
    found = compare(shown(tp=DP, dp=DP), shown(4, tp=TP, dp=DP))
    assert [(each.family, each.like) for each in found.differences] == [("tp", "dp")]
    assert found.swapped == []


def test_what_is_not_shown_is_no_difference() -> None:
    found = compare(shown(tp=TP[:1]), shown(4, tp=TP, dp=DP))
    assert (found.differences, found.only_expected) == ((), ("dp",))


def test_a_rank_that_shows_its_groups_lacks_one() -> None:
    found = compare(shown(4, tp=TP[:1]), shown(4, tp=TP))
    assert facts(found) == [("tp", "missing", 2, None, (2, 3), 2, "")]


def test_a_rank_may_lack_one_of_several_groups() -> None:
    ring: Groups = ((0, 1), (1, 2), (2, 3))
    found = compare(shown(4, next=ring[:2]), shown(4, next=ring))
    assert [(each.kind, each.rank) for each in found.differences] == [("missing", 2)]


def test_families_that_one_side_has_are_listed_with_what_they_look_like() -> None:
    found = compare(shown(undefined=DP, one=((0,), (1,))), shown(4, dp=DP))
    assert dict(found.only_shown) == {"undefined": "dp", "one": ""}


def test_another_number_of_ranks_is_a_difference_where_it_is_known() -> None:
    larger = Layout({"tp": (*TP, (4, 5))}, 6, frozenset(range(6)))
    assert [each.kind for each in compare(shown(4, tp=TP), larger).differences] == ["world"]
    assert [each.kind for each in compare(shown(world=((0, 1, 2, 3),), tp=TP), larger).differences] == ["world"]
    assert [each.kind for each in compare(shown(tp=TP), larger).differences] == []


def test_a_rank_beyond_the_world_is_a_difference() -> None:
    found = compare(Layout({"tp": (*TP, (4, 5))}, 6, frozenset()), shown(4, tp=TP))
    assert [(each.kind, each.rank, each.expected) for each in found.differences] == [
        ("world", 4, (0, 1, 2, 3)),
        ("groups", 4, None),
    ]


# random layouts


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_layout_agrees_with_itself_and_so_does_any_part_of_it(convention: str) -> None:
    drawn = random.Random(convention)
    for layout in random_layouts(convention, 40):
        part = {name: tuple(g for g in groups if drawn.random() < 0.6) for name, groups in layout.families.items()}
        part = {name: groups for name, groups in part.items() if groups}
        whole = Layout.of(layout)
        assert compare(whole, whole).differences == ()
        assert compare(Layout(part, layout.world, frozenset()), whole).differences == ()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("is_sorted", [False, True], ids=["in order", "as torch sorts"])
def test_two_exchanged_ranks_and_a_shift_are_always_found(convention: str, is_sorted: bool) -> None:
    drawn, planted = random.Random(f"{convention} {is_sorted}"), 0
    for layout in random_layouts(convention, 40):
        wide = [name for name, groups in layout.families.items() if 1 < len(groups[0]) < layout.world]
        if not wide:
            continue
        family = drawn.choice(wide)
        groups = layout.families[family]
        one, other = drawn.sample(range(layout.world), 2)
        for wrong in (exchanged(groups, one, other), shifted(groups, layout.world, 1)):
            spoiled = sorted_groups(wrong) if is_sorted else wrong
            if set(spoiled) == set(groups) or (is_sorted and sorted_groups(groups) == spoiled):
                continue  # both ranks are in one group, or alone
            families = with_family(layout, family, spoiled)
            found = compare(Layout(families, layout.world, frozenset()), Layout.of(layout))
            planted += 1
            assert [each.family for each in found.differences] == [family]
    assert planted >= 15


def test_what_is_compared_is_a_topology_or_a_dump() -> None:
    two = Layout.of(Topology("two", "vllm", {"tp": 2}))
    assert compare(two, two).compared == ("tp", "pcp", "pp", "dp", "ep", "dcp")
