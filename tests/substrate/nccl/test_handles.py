"""Which communicators a rank splits, keeps and gives up; NCCL is a log of calls."""

from __future__ import annotations

from itertools import islice, permutations

import pytest

pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.scenario.layouts.groups import Group, GroupId, GroupIds
from harness.substrate.nccl.handles import KEPT, Handles
from tests.tools.fake_nccl import Calls, FakeComm


def family(*groups: Group) -> GroupIds:
    return tuple(map(GroupId, groups))


PAIRS = family((0, 1), (2, 3))
MINE = GroupId((2, 3))
NODES = [0, 0, 0, 0]


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def handles(calls: Calls) -> Handles:
    """Of rank 2 of a world of four."""
    handles = Handles(2, 4, (2, 32, 3))
    handles.join(FakeComm(calls, size_of=lambda color: 2))
    return handles


def many(count: int) -> list[GroupIds]:
    """Families of four ranks that differ in the order of their ranks."""
    return [family(order) for order in islice(permutations(range(4)), count)]


def test_there_is_no_base_before_the_processes_have_joined() -> None:
    with pytest.raises(KeyError):
        _ = Handles(0, 1, (2, 32, 3)).base


def test_a_family_is_split_by_the_groups_place_and_the_ranks_place_in_it(handles: Handles, calls: Calls) -> None:
    handles.take(PAIRS, NODES, {PAIRS})
    assert calls == [("split", "base", 1, 0, "base.1")]


def test_a_family_is_split_once(handles: Handles, calls: Calls) -> None:
    first = handles.take(PAIRS, NODES, {PAIRS})
    assert (handles.take(PAIRS, NODES, {PAIRS}) is first, len(calls)) == (True, 1)


def test_a_world_is_split_once(handles: Handles, calls: Calls) -> None:
    handles.world(3)
    handles.world(3)
    assert calls == [("split", "base", 0, 2, "base.1")]


def test_a_rank_outside_a_smaller_world_takes_part_in_its_split_and_gets_none(handles: Handles, calls: Calls) -> None:
    handles.world(2)
    assert calls == [("split", "base", None, 2, "base.1")]


def test_a_family_of_a_smaller_world_is_split_from_that_world(handles: Handles, calls: Calls) -> None:
    handles.world(3)
    handles.take(family((0, 1, 2)), NODES[:3], set())
    assert calls[1][:2] == ("split", "base.1")


def destroyed(calls: Calls) -> list[str]:
    return [call[1] for call in calls if call[0] == "destroy"]


def test_the_least_recently_used_family_is_given_up_for_a_new_one(handles: Handles, calls: Calls) -> None:
    *kept, new = many(KEPT + 1)
    for each in (*kept, kept[0]):
        handles.take(each, NODES, set())
    handles.take(new, NODES, set())
    assert destroyed(calls) == ["base.2"]


def test_a_family_that_the_draw_needs_is_not_given_up(handles: Handles, calls: Calls) -> None:
    *kept, new = many(KEPT + 1)
    for each in (*kept, new):
        handles.take(each, NODES, {kept[0], kept[1]})
    assert destroyed(calls) == ["base.3"]


def test_families_of_each_world_size_are_kept_for_themselves(handles: Handles, calls: Calls) -> None:
    handles.world(3)
    for each in many(KEPT):
        handles.take(each, NODES, set())
    handles.take(family((0, 1, 2)), NODES[:3], set())
    assert destroyed(calls) == []


def test_a_replaced_communicator_is_destroyed_before_its_successor_is_split(handles: Handles, calls: Calls) -> None:
    handles.take(PAIRS, NODES, {PAIRS})
    new = handles.replace({MINE: PAIRS}, PAIRS, NODES)
    assert [call[0] for call in calls] == ["split", "destroy", "split"]
    assert handles.take(PAIRS, NODES, {PAIRS}) == new


def test_a_successor_is_kept_for_the_family_that_the_old_one_served(handles: Handles) -> None:
    """Two families may share a group, and one communicator serves both."""
    other = family((0,), (1,), (2, 3))
    handles.take(PAIRS, NODES, {PAIRS})
    new = handles.replace({MINE: PAIRS}, other, NODES)
    assert handles.take(PAIRS, NODES, {PAIRS}) == new


def test_a_group_on_one_node_has_windows_and_one_that_spans_nodes_has_none(handles: Handles) -> None:
    apart = family((0, 2), (1, 3))
    (on,) = handles.take(PAIRS, [0, 0, 1, 1], set()).values()
    (across,) = handles.take(apart, [0, 0, 1, 1], set()).values()
    assert (on.supports_windows, across.supports_windows) == (True, False)


def test_groups_that_overlap_take_a_split_for_each_part_of_which_no_two_do(handles: Handles, calls: Calls) -> None:
    ring = family((0, 1), (1, 2), (2, 3), (3, 0))
    found = handles.take(ring, NODES, {ring})
    assert [*found] == [GroupId((2, 3)), GroupId((1, 2))]
    assert calls == [("split", "base", 1, 0, "base.1"), ("split", "base", 0, 1, "base.2")]


def test_a_rank_that_a_family_leaves_out_takes_part_in_its_split_and_gets_none(handles: Handles, calls: Calls) -> None:
    assert handles.take(family((0, 3)), NODES, set()) == {}
    assert calls == [("split", "base", None, 0, "base.1")]
