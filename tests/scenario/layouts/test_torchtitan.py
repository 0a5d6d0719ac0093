"""torchtitan: groups written out by hand, drawn degrees, and degrees that no world can have."""

from __future__ import annotations

import re
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.layouts.conventions import CONVENTIONS, build_families, shared_families
from harness.scenario.layouts.groups import GroupIds, Groups, LayoutError, number_groups

ALONE_8 = tuple((rank,) for rank in range(8))
PAIRS_8 = ((0, 1), (2, 3), (4, 5), (6, 7))
STRIDED_PAIRS_8 = ((0, 2), (1, 3), (4, 6), (5, 7))
HALVES_8 = ((0, 4), (1, 5), (2, 6), (3, 7))
QUADS_8 = ((0, 1, 2, 3), (4, 5, 6, 7))
EVENS_AND_ODDS_8 = ((0, 2, 4, 6), (1, 3, 5, 7))


def titan(**degrees: int) -> dict[str, Groups]:
    return build_families("torchtitan", degrees)


def communicators(**degrees: int) -> dict[str, GroupIds]:
    return number_groups(titan(**degrees), shared_families("torchtitan", degrees))


def test_a_dense_and_a_sparse_mesh_divide_the_same_ranks() -> None:
    assert titan(dp_shard=2, cp=2, tp=2, ep=4) == {
        "pp": ALONE_8,
        "batch": HALVES_8,
        "loss": EVENS_AND_ODDS_8,
        "dp_replicate": ALONE_8,
        "fsdp": EVENS_AND_ODDS_8,
        "cp": STRIDED_PAIRS_8,
        "tp": PAIRS_8,
        "dp": HALVES_8,
        "dp_shard": HALVES_8,
        "ep": QUADS_8,
        "efsdp": HALVES_8,
    }


def test_replicas_are_outside_shards_and_stages_outside_replicas() -> None:
    families = titan(pp=2, dp_replicate=2, dp_shard=2)
    assert (families["pp"], families["dp_replicate"]) == (HALVES_8, STRIDED_PAIRS_8)
    assert (families["dp_shard"], families["batch"]) == (PAIRS_8, QUADS_8)


def test_the_expert_shards_of_a_replica_stay_in_it() -> None:
    families = titan(dp_replicate=2, dp_shard=4, ep=2)
    assert (families["ep"], families["efsdp"]) == (PAIRS_8, STRIDED_PAIRS_8)


def test_without_expert_parallelism_there_are_no_expert_shards() -> None:
    families = titan(dp_shard=4, tp=2)
    assert ("efsdp" in families, families["ep"]) == (False, ALONE_8)


def test_expert_tensor_parallelism_has_the_families_of_the_release_that_has_it() -> None:
    families = titan(dp_shard=4, tp=2, ep=2, etp=2)
    assert (families["etp"], families["ep"], families["efsdp"]) == (PAIRS_8, STRIDED_PAIRS_8, HALVES_8)
    assert not {"dp", "dp_shard"} & {*families}


# communicators


def test_axes_over_equal_ranks_have_communicators_of_their_own() -> None:
    ids = communicators(pp=2, dp_shard=4)
    assert [ids[name][0].number for name in ("batch", "loss", "fsdp", "dp", "dp_shard")] == [0, 1, 3, 2, 3]


def test_fsdp_over_shards_and_context_has_communicators_of_its_own() -> None:
    ids = communicators(pp=2, dp_shard=2, cp=2)
    assert not {*ids["fsdp"]} & {*ids["loss"], *ids["dp_shard"], *ids["cp"]}


def test_axes_as_wide_as_the_world_share_its_communicator() -> None:
    ids = communicators(dp_shard=8, ep=8)
    assert {ids[name] for name in ("batch", "loss", "fsdp", "dp", "dp_shard", "ep")} == {ids["loss"]}


# drawn


@given(st.integers(1, 32), st.tuples(*[st.integers(0, 119)] * 6))
def test_drawn_degrees_make_a_layout_of_just_these_ranks(world: int, picks: tuple[int, ...]) -> None:
    families = build_families("torchtitan", CONVENTIONS["torchtitan"].drawn(world, picks))
    assert all(sorted(chain.from_iterable(groups)) == [*range(world)] for groups in families.values())


def test_the_smallest_picks_are_tensor_parallelism_alone() -> None:
    degrees = CONVENTIONS["torchtitan"].drawn(8, (0,) * 6)
    assert {name: value for name, value in degrees.items() if value != 1} == {"tp": 8}


# refusals


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"dp_shard": 2, "tp": 2, "ep": 3}, "dp_shard 2 · cp 1 · tp 2 = 4 is not divisible by ep 3·etp 1 = 3"),
        (
            {"dp_replicate": 4, "dp_shard": 2, "ep": 4},
            "dp_shard 2 · cp 1 · tp 1 = 2 is not divisible by ep 4·etp 1 = 4",
        ),
        ({"tp": 4, "dp_shard": 2, "ep": 4, "etp": 2}, "etp 2 is neither 1 nor tp 4"),
    ],
)
def test_degrees_that_do_not_divide_are_refused_with_the_division(degrees: dict[str, int], message: str) -> None:
    with pytest.raises(LayoutError, match=f"^torchtitan: {re.escape(message)}$"):
        titan(**degrees)


def test_a_world_beyond_the_limit_is_refused_with_the_product() -> None:
    with pytest.raises(LayoutError, match=r"dp_shard 129 · cp 1 · tp 8 = 1032 is larger than 1024"):
        titan(dp_shard=129, tp=8)
