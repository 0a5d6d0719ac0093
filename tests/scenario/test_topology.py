"""Topologies: every shipped file holds together, and everything that does not is refused by name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.scenario.placement import MOST
from harness.scenario.topology import LARGEST, Placement, Topology, TopologyError, find, load, named, save

PAIR: dict[str, Any] = {"schema": 1, "name": "pair", "convention": "sglang", "degrees": {"tp": 2}}
QUAD: dict[str, Any] = {**PAIR, "name": "quad", "degrees": {"tp": 4}}
RING: dict[str, Any] = {"schema": 1, "name": "ring", "convention": "explicit"}
SHIPPED = sorted(named())


def written(folder: Path, data: object) -> Path:
    """A topology file with this content; text is written as it stands, anything else as JSON."""
    path = folder / "offered.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def refusal(path: Path) -> str:
    """The sentence with which `load` refuses a file, less the name of the file that must open it."""
    with pytest.raises(UsageError) as error:
        load(path)
    opening = f"topology file {path}: "
    assert str(error.value).startswith(opening)
    return str(error.value).removeprefix(opening)


def quad_on(nodes: int, gpus_per_node: int, ranks: list[list[int]]) -> dict[str, Any]:
    return {**QUAD, "placement": {"nodes": nodes, "gpus_per_node": gpus_per_node, "ranks": ranks}}


# the files that ship


def test_at_least_fourteen_topologies_ship() -> None:
    assert len(SHIPPED) >= 14


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_topology_bears_the_name_of_its_file(stem: str) -> None:
    assert load(named()[stem]).name == stem


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_topology_survives_save_and_load(stem: str, tmp_path: Path) -> None:
    topology = find(stem)
    save(topology, tmp_path / "again.json")
    assert load(tmp_path / "again.json") == topology


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_topology_states_every_part_of_the_schema(stem: str) -> None:
    keys = {"schema", "name", "convention", "degrees", "placement", "note"}
    assert set(json.loads(named()[stem].read_text())) == keys


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_topology_is_explained_in_one_or_two_sentences(stem: str) -> None:
    assert len(re.findall(r"\w\.(?: |$)", find(stem).note)) in (1, 2)


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_topology_has_a_group_that_could_own_a_window(stem: str) -> None:
    topology = find(stem)
    groups = [group for partition in topology.families.values() for group in partition]
    assert any(len(group) > 1 and topology.has_windows(group) for group in groups)


def test_no_two_shipped_topologies_are_the_same_layout_in_the_same_place() -> None:
    assert len({find(stem).key for stem in SHIPPED}) == len(SHIPPED)


@pytest.mark.parametrize("convention", ["sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan"])
def test_every_convention_ships_a_topology_for_a_small_machine(convention: str) -> None:
    assert any(find(stem).world in (4, 8) for stem in SHIPPED if find(stem).convention == convention)


def test_shipped_mixture_of_experts_over_two_nodes_has_dense_replicas_of_all_ranks() -> None:
    topology = find("megatron-moe-two-nodes-tp2-ep2-dp2")
    assert (topology.families["dp"], topology.families["expert_dp"]) == (
        ((0, 2, 4, 6), (1, 3, 5, 7)),
        ((0, 4), (1, 5), (2, 6), (3, 7)),
    )
    assert topology.families["ep"] == ((0, 2), (1, 3), (4, 6), (5, 7))


def test_shipped_vllm_context_parallel_topology_keeps_its_group_out_of_rank_order() -> None:
    assert find("deepseek-v32-vllm-pcp2-tp2-dcp4").families["dcp"] == ((0, 2, 1, 3),)


# what a valid topology answers


def test_topology_without_placement_is_on_one_node() -> None:
    assert Topology(name="quad", convention="sglang", degrees={"tp": 4}).node_of == (0, 0, 0, 0)


def test_placement_without_ranks_fills_one_node_after_the_other() -> None:
    topology = Topology(name="quad", convention="sglang", degrees={"tp": 4}, placement=Placement(2, 2))
    assert topology.node_of == (0, 0, 1, 1)


def test_placement_with_ranks_puts_each_where_it_says(tmp_path: Path) -> None:
    assert load(written(tmp_path, quad_on(2, 2, [[0, 3], [2, 1]]))).node_of == (0, 1, 1, 0)


def test_group_of_a_rank_is_the_one_it_is_in() -> None:
    assert Topology(name="eight", convention="sglang", degrees={"tp": 8, "attn_dp": 4}).group("attn_tp", 5) == (4, 5)


@pytest.mark.parametrize(("family", "has_windows"), [("tp", False), ("attn_tp", True)])
def test_only_a_group_on_one_node_has_windows(family: str, has_windows: bool) -> None:
    topology = find("qwen3-235b-two-nodes-tp8-dpa2")
    assert {topology.has_windows(group) for group in topology.families[family]} == {has_windows}


def test_explicit_families_are_kept_as_given(tmp_path: Path) -> None:
    ring = {**RING, "families": {"whole": [[2, 0, 1]], "split": [[1], [0, 2]]}}
    assert load(written(tmp_path, ring)).families == {"whole": ((2, 0, 1),), "split": ((1,), (0, 2))}


def test_what_shares_communicators_survives_save_and_load_and_makes_another_layout(tmp_path: Path) -> None:
    families = {"tp": ((0, 1),), "ep": ((0, 1),)}
    made = [Topology("t", "explicit", families_given=families, shares=shares) for shares in ({}, {"ep": "tp"}, None)]
    for topology in made:
        save(topology, tmp_path / "t.json")
        assert load(tmp_path / "t.json") == topology
    assert [topology.ids["ep"] == topology.ids["tp"] for topology in made] == [False, True, True]
    assert made[0].key != made[1].key == made[2].key


def test_only_explicit_families_say_what_they_share(tmp_path: Path) -> None:
    path = written(tmp_path, {"schema": 1, "name": "t", "convention": "vllm", "degrees": {"tp": 2}, "shares": {}})
    assert refusal(path) == "topology 't': 'shares' goes with convention 'explicit' and no other"


def test_explicit_topology_survives_save_and_load(tmp_path: Path) -> None:
    ring = Topology(name="ring", convention="explicit", families_given={"ring": ((1, 0), (2, 3))})
    save(ring, tmp_path / "ring.json")
    assert load(tmp_path / "ring.json") == ring


def test_topologies_that_differ_only_in_name_have_one_key() -> None:
    one, other = (Topology(name=name, convention="vllm", degrees={"tp": 2}) for name in ("one", "other"))
    assert one.key == other.key


def test_topologies_placed_differently_have_different_keys() -> None:
    near, far = (
        Topology(name="x", convention="vllm", degrees={"tp": 2}, placement=Placement(n, 2 // n)) for n in (1, 2)
    )
    assert near.key != far.key


def test_equal_topologies_have_equal_hashes() -> None:
    one, other = (Topology(name="x", convention="vllm", degrees={"tp": 2}) for _ in range(2))
    assert (one, hash(one)) == (other, hash(other))


# refusals: every one names the file and the offender


@pytest.mark.parametrize(
    ("data", "offender"),
    [
        ({**PAIR, "colour": "red"}, "unknown field `colour`"),
        ({**PAIR, "placement": {"hosts": 2}}, "unknown field `hosts`"),
        ({**PAIR, "families_given": {"tp": [[0, 1]]}}, "unknown field `families_given`"),
    ],
)
def test_unknown_key_is_refused(data: object, offender: str, tmp_path: Path) -> None:
    assert offender in refusal(written(tmp_path, data))


@pytest.mark.parametrize("key", ["name", "convention", "schema"])
def test_missing_key_is_refused(key: str, tmp_path: Path) -> None:
    data = {name: value for name, value in PAIR.items() if name != key}
    assert re.search(f"[`']{key}[`']", refusal(written(tmp_path, data)))


@pytest.mark.parametrize("text", ['{"schema": 1, "name": "a", "name": "a"}', '{"degrees": {"name": 2, "name": 4}}'])
def test_repeated_key_is_refused_at_any_depth(text: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, text)) == "key 'name' is there twice"


@pytest.mark.parametrize("schema", [0, 2, "1", None, [1]])
def test_other_schema_is_refused(schema: object, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, {**PAIR, "schema": schema})) == "'schema' must be 1"


@pytest.mark.parametrize("data", [[], [PAIR], 1, None, '"pair"'])
def test_file_that_is_no_object_is_refused(data: object, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, data)) == "it holds no object"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("convention", ["sglang"]),
        ("degrees", [8]),
        ("degrees", None),
        ("placement", "one node"),
        ("placement", {"nodes": "2"}),
        ("placement", {"ranks": [0, 1]}),
        ("note", 1),
        ("families", [[0, 1]]),
    ],
)
def test_value_of_the_wrong_type_is_refused(key: str, value: object, tmp_path: Path) -> None:
    assert f"at `$.{key}" in refusal(written(tmp_path, {**PAIR, key: value}))


@pytest.mark.parametrize("width", [2.0, True, [2]])
def test_degree_that_is_no_integer_is_refused_by_its_name(width: object, tmp_path: Path) -> None:
    sentence = refusal(written(tmp_path, {**PAIR, "degrees": {"tp": width}}))
    assert f"degree tp={width!r} is not a positive integer" in sentence


@pytest.mark.parametrize(
    ("placement", "offender"),
    [
        (quad_on(2, 2, [[0, 1], [1, 2]]), "topology 'quad': rank 1 is placed twice"),
        (quad_on(1, 4, [[0, 0, 1, 2]]), "topology 'quad': rank 0 is placed twice"),
        (quad_on(2, 2, [[0, 1], [2]]), "topology 'quad': rank 3 is not placed"),
        (quad_on(2, 4, [[0, 1], [2, 3, 4]]), "topology 'quad': rank 4 is not in the world"),
        (quad_on(2, 2, [[0, 1, 2], [3]]), "topology 'quad': node 0 holds 3 ranks on 2 GPUs"),
        (quad_on(3, 2, [[0, 1], [2, 3]]), "topology 'quad': placement lists 2 nodes, not 3"),
    ],
)
def test_placement_that_is_not_one_place_for_each_rank_is_refused(
    placement: object, offender: str, tmp_path: Path
) -> None:
    assert refusal(written(tmp_path, placement)) == offender


def test_ranks_that_do_not_fit_are_refused_with_the_arithmetic(tmp_path: Path) -> None:
    path = written(tmp_path, {**QUAD, "placement": {"nodes": 3, "gpus_per_node": 1}})
    assert refusal(path) == "topology 'quad': 4 ranks do not fit 3 nodes · 1 GPUs = 3"


@pytest.mark.parametrize("placement", [{"nodes": 0}, {"nodes": -1}, {"gpus_per_node": 0}])
def test_placement_without_a_gpu_is_refused(placement: dict[str, int], tmp_path: Path) -> None:
    path = written(tmp_path, {**PAIR, "placement": placement})
    assert refusal(path) == "topology 'pair': placement needs at least one node and one GPU on it"


@pytest.mark.parametrize(
    ("families", "offence"),
    [
        ({"whole": [[0, 1]], "twice": [[1, 1]]}, "family 'twice': rank 1 is 2 times in group [1, 1]"),
        ({"whole": [[0, 1]], "none": []}, "family 'none' has no group"),
        ({"below": [[0, -1]]}, "family 'below' has rank -1; ranks are numbered from 0"),
    ],
)
def test_groups_that_are_no_explicit_family_are_refused(families: object, offence: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, {**RING, "families": families})) == offence


@pytest.mark.parametrize("data", [RING, {**PAIR, "families": {"tp": [[0, 1]]}}])
def test_families_without_explicit_and_explicit_without_families_are_refused(data: object, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, data)).endswith("'families' goes with convention 'explicit' and no other")


@pytest.mark.parametrize("beside", [{"families": {}}, {"families": {"ring": [[0, 1]]}, "degrees": {"tp": 2}}])
def test_explicit_with_degrees_or_with_no_family_is_refused(beside: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, {**RING, **beside})
    assert refusal(path) == "topology 'ring': convention 'explicit' takes 'families' and no 'degrees'"


def test_degrees_no_world_can_have_are_refused_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, {**PAIR, "degrees": {"tp": 8, "ep": 3}})
    assert refusal(path) == "sglang: tp 8 is not divisible by ep 3·moe_dp 1 = 3"


@pytest.mark.parametrize("text", ["", "{", json.dumps(PAIR)[:-1], json.dumps(PAIR) + "}", "{'schema': 1}"])
def test_damaged_json_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    assert re.search(r"line 1 column \d+", refusal(written(tmp_path, text)))


@pytest.mark.parametrize("data", [{**PAIR, "name": "\ud800"}, {**PAIR, "note": "a\udfff"}])
def test_half_a_character_is_refused(data: object, tmp_path: Path) -> None:
    """It could be neither shown nor written."""
    assert "surrogates not allowed" in refusal(written(tmp_path, json.dumps(data)))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "offered.json").write_bytes(b'{"schema": 1, "name": "\xff"}')
    assert "can't decode byte 0xff" in refusal(tmp_path / "offered.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.json") == "No such file or directory"


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "Is a directory"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert refusal(tmp_path / "pipe.json") == "it is no regular file"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * (LARGEST + 1))
    assert refusal(tmp_path / "large.json") == "it is larger than 8 MiB"


@pytest.mark.parametrize("placement", [Placement(nodes=MOST + 1), Placement(gpus_per_node=MOST + 1)])
def test_a_placement_has_bounds(placement: Placement) -> None:
    with pytest.raises(TopologyError, match="at most 65536 nodes"):
        Topology("wide", "sglang", {"tp": 2}, placement)


# find


def test_topology_is_found_by_the_path_of_its_file(tmp_path: Path) -> None:
    assert find(str(written(tmp_path, PAIR))).name == "pair"


def test_unknown_name_is_refused_with_the_names_that_ship() -> None:
    with pytest.raises(UsageError, match=r"'deepseek-r9' is neither a file nor one of .*qwen3-32b-tp4"):
        find("deepseek-r9")
