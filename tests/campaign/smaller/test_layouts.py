"""Layouts of fewer ranks: every one that there is, in one order, and which ranks stand for all."""

from __future__ import annotations

from itertools import product

import pytest

from harness.campaign.smaller.layouts import layouts_like, on_nodes, parts_of, stand_ins
from harness.errors import UsageError
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.topology import Placement, Topology

MANY_FAMILIES = ("megatron-core", "torchtitan")
"""All their degrees up to 6, of which most are large worlds, take a minute."""


def test_layouts_are_enumerated_in_full_and_in_order() -> None:
    def layout(convention: str, widths: dict[str, int]) -> Topology | None:
        try:
            return Topology("any", convention, {name: width for name, width in widths.items() if width > 1})
        except UsageError:
            return None

    for convention, names in ((name, found.DEGREES) for name, found in CONVENTIONS.items()):
        for world in (2, 4) if convention in MANY_FAMILIES else (2, 4, 6):
            everything = product([width for width in range(1, world + 1) if world % width == 0], repeat=len(names))
            laid = [(values, layout(convention, dict(zip(names, values, strict=True)))) for values in everything]
            expected = [values for values, topology in laid if topology is not None and topology.world == world]
            candidates = map(dict, CONVENTIONS[convention].candidates(world))
            ours = [widths for widths in candidates if layout(convention, widths) is not None]
            assert [tuple(widths[name] for name in names) for widths in ours] == expected


def test_a_layout_like_another_keeps_its_convention_and_order() -> None:
    like = Topology("cyclic", "megatron", {"tp": 2, "dp": 2, "order": "dp-tp-cp-ep-pp"})
    found = [*layouts_like(like, 2, 1)]
    assert {(topology.convention, topology.degrees["order"]) for topology in found} == {("megatron", "dp-tp-cp-ep-pp")}


def test_a_layout_like_another_keeps_what_is_no_width() -> None:
    like = Topology("helix", "tensorrt-llm", {"cp": 4, "moe_tp": 4, "cp_type": "helix"})
    found = [topology.degrees for topology in layouts_like(like, 2, 1)]
    assert found[0] == {"pp": 2, "cp_type": "helix"}
    assert {"cp": 2, "moe_ep": 2, "cp_type": "helix"} in found


def test_every_layout_like_another_has_the_ranks_and_nodes_asked_for() -> None:
    found = [*layouts_like(Topology("eight", "sglang", {"tp": 8}), 4, 2)]
    assert {(topology.world, topology.node_of) for topology in found} == {(4, (0, 0, 1, 1))}


def test_explicit_families_have_no_layout_of_fewer_ranks() -> None:
    ring = Topology("ring", "explicit", families_given={"tp": ((0, 1, 2),)})
    assert [*layouts_like(ring, 2, 1)] == []


@pytest.mark.parametrize(("nodes", "placement"), [(1, None), (2, Placement(2, 3))])
def test_ranks_are_placed_in_order_and_on_one_node_not_at_all(nodes: int, placement: Placement | None) -> None:
    assert on_nodes(nodes, 5) == placement


def test_the_first_the_last_and_ranks_between_may_stand_for_all() -> None:
    assert stand_ins(8, 3) == [(0, 1, 2), (0, 2, 5), (5, 6, 7), (0, 1, 7)]


def test_the_same_choice_of_ranks_comes_once() -> None:
    assert stand_ins(3, 2) == [(0, 1), (1, 2), (0, 2)]


def test_a_family_that_shares_one_that_is_left_out_shares_with_the_next_that_is_kept() -> None:
    pairs = ((0, 1), (2, 3))
    like = Topology(
        "three", "explicit", families_given={"a": pairs, "b": pairs, "c": pairs}, shares={"b": "a", "c": "a"}
    )
    first, _ = next(parts_of(like, ("b", "c")))
    assert (first.families_given, first.shares) == ({"b": pairs, "c": pairs}, {"c": "b"})


def test_a_layout_of_a_convention_has_parts_of_fewer_ranks_that_keep_its_communicators() -> None:
    like = Topology("four", "torchtitan", {"dp_shard": 4, "ep": 2})
    alike = {name for name in like.families if like.families[name] == like.families["fsdp"]}
    used = (*alike, "ep")
    found = [*parts_of(like, used)]
    assert {topology.convention for topology, _ in found} == {"explicit"}
    assert {topology.world for topology, _ in found} == {2, 3}
    for topology, kept in found:
        assert len(kept) == topology.world
        assert {(a, b) for a in used for b in used if like.ids[a] == like.ids[b]} == {
            (a, b) for a in used for b in used if topology.ids[a] == topology.ids[b]
        }


def test_the_ranks_of_one_group_come_before_all_but_one() -> None:
    kept = [ranks for _, ranks in parts_of(Topology("four", "sglang", {"tp": 4, "attn_dp": 2}), ("attn_tp",))]
    assert kept == [(0, 1), (2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)]


def test_families_of_which_every_group_has_one_rank_have_no_parts() -> None:
    assert [*parts_of(Topology("pair", "vllm", {"tp": 2}), ("dp",))] == []
