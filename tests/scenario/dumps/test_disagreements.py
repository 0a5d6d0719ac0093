"""Ranks that do not say the same of their groups."""

from __future__ import annotations

from harness.scenario.dumps.disagreements import Disagreement, disagreements
from harness.scenario.dumps.reading import Entry


def says(rank: int | None, *groups: tuple[int, ...], family: str = "tp", own: bool = True) -> list[Entry]:
    return [Entry(family, group, "dump", rank, own) for group in groups]


def test_two_ranks_that_show_the_same_groups_agree() -> None:
    assert disagreements([*says(0, (0, 1)), *says(1, (0, 1)), *says(2, (2, 3))]) == []


def test_a_rank_that_does_not_speak_contradicts_none() -> None:
    assert disagreements([*says(3, (2, 3)), *says(None, (2, 4))]) == []


def test_a_peer_that_shows_another_group_is_named_with_it() -> None:
    found = disagreements([*says(3, (2, 3)), *says(2, (2, 4))])
    assert found == [Disagreement("peer", "tp", 3, (2, 3), 2, ((2, 4),))]


def test_a_peer_that_shows_another_order_is_named() -> None:
    found = disagreements([*says(0, (0, 1)), *says(1, (1, 0))])
    assert [(each.rank, each.peer, each.theirs) for each in found] == [(0, 1, ((1, 0),))]


def test_a_peer_that_shows_no_group_of_the_family_is_named() -> None:
    found = disagreements([*says(0, (0, 1)), *says(1, (1, 3), family="dp")])
    assert found == [Disagreement("peer", "tp", 0, (0, 1), 1, ())]


def test_overlapping_groups_that_both_show_are_no_disagreement() -> None:
    ring = {rank: [(rank, (rank + 1) % 4), ((rank - 1) % 4, rank)] for rank in range(4)}
    assert disagreements([entry for rank, groups in ring.items() for entry in says(rank, *groups, family="next")]) == []


def test_a_rank_outside_of_the_group_that_it_calls_its_own_is_named() -> None:
    assert disagreements(says(3, (0, 1))) == [Disagreement("outside", "tp", 3, (0, 1))]


def test_a_rank_may_list_groups_of_others() -> None:
    assert disagreements(says(0, (0, 1), (2, 3), own=False)) == []


def test_a_process_group_has_the_same_ranks_wherever_it_is_shown() -> None:
    found = [Entry("dp", (0, 2), "a", 0, True, "dp", "3"), Entry("dp", (1, 3), "b", 1, True, "dp", "3")]
    assert disagreements(found) == [Disagreement("process group", "dp", 0, (0, 2), 1, ((1, 3),), "3")]
