"""Files as one dump, and a dump as a topology."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.scenario.dumps.dump import Dump, Layout, read
from harness.scenario.topology import LARGEST, Topology, load, save


def written(folder: Path, *lines: Any, name: str = "dump.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def dump_of(folder: Path, *lines: Any, **renamed: str) -> Dump:
    found = read([written(folder, *lines)], renamed)
    assert isinstance(found, Dump)
    return found


TP = {"tp": ((0, 1), (2, 3))}


def test_groups_that_several_ranks_show_are_there_once(tmp_path: Path) -> None:
    views = ({"rank": rank, "groups": {"tp": [rank // 2 * 2, rank // 2 * 2 + 1]}} for rank in range(4))
    found = dump_of(tmp_path, *views)
    assert (found.families, found.world, found.layout.speakers) == (TP, 4, {0, 1, 2, 3})


def test_files_are_one_dump(tmp_path: Path) -> None:
    first = written(tmp_path, {"tp": [0, 1]}, name="a")
    second = written(tmp_path, {"tp": [2, 3]}, name="b")
    found = read([first, second])
    assert isinstance(found, Dump)
    assert (found.families, found.name) == (TP, f"{first} and 1 more")


def test_a_topology_is_read_as_one_and_joins_a_dump(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    save(Topology("t", "explicit", families_given={"tp": ((0, 1),)}), file)
    joined = read([str(file), written(tmp_path, {"tp": [2, 3]})])
    assert read([str(file)]) == load(file)
    assert isinstance(joined, Dump)
    assert joined.families == TP


def test_a_second_communicator_over_the_same_ranks_is_a_family_of_its_own(tmp_path: Path) -> None:
    groups = [{"pg_name": name, "pg_desc": "tp", "ranks": [0, 1]} for name in ("1", "5", "1")]
    found = dump_of(tmp_path, groups)
    assert found.families == {"tp": ((0, 1),), "tp_2": ((0, 1),)}
    made = found.topology("made")
    assert made.shares == {}
    assert {name: [group.number for group in ids] for name, ids in made.ids.items()} == {"tp": [0], "tp_2": [1]}


def test_groups_without_communicators_share_them_in_the_topology(tmp_path: Path) -> None:
    made = dump_of(tmp_path, {"tp": [0, 1], "ep": [0, 1]}).topology("made")
    assert (made.shares, made.ids["tp"]) == (None, made.ids["ep"])


def test_a_topology_of_a_dump_survives_save_and_load(tmp_path: Path) -> None:
    made = dump_of(tmp_path, {"tp": [[0, 1], [2, 3]], "ring": [[0, 1], [1, 2]]}).topology("made")
    save(made, tmp_path / "made.json")
    assert load(tmp_path / "made.json") == made


# names


def test_a_group_is_renamed_by_its_description_its_name_or_its_family(tmp_path: Path) -> None:
    groups = [
        {"pg_name": "1", "pg_desc": "undefined", "ranks": [0, 1]},
        {"pg_name": "2", "pg_desc": "Mixer", "ranks": [0, 1]},
        {"pg_name": "3", "pg_desc": "mesh_tp", "ranks": [0, 1]},
    ]
    found = dump_of(tmp_path, groups, **{"1": "dp", "Mixer": "ep", "tp": "etp"})
    assert [*found.families] == ["dp", "ep", "etp"]


def test_the_narrowest_name_counts(tmp_path: Path) -> None:
    groups = [{"pg_name": name, "pg_desc": "undefined", "ranks": [0, 1]} for name in ("1", "2")]
    assert [*dump_of(tmp_path, groups, **{"undefined": "dp", "2": "ep"}).families] == ["dp", "ep"]


def test_families_of_a_topology_are_renamed(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    save(Topology("t", "vllm", {"tp": 2}), file)
    found = read([str(file)], {"tp": "attn_tp"})
    assert isinstance(found, Topology)
    assert found.families["attn_tp"] == ((0, 1),)


@pytest.mark.parametrize("renamed", [{"nothing": "x"}, {"tp": "dp"}], ids=["no such name", "two of one name"])
def test_a_name_that_cannot_be_given_is_refused(tmp_path: Path, renamed: dict[str, str]) -> None:
    file = tmp_path / "t.json"
    save(Topology("t", "vllm", {"tp": 2}), file)
    with pytest.raises(UsageError, match=r"nothing=x.*there are dcp, dp, ep|two families"):
        read([str(file)], renamed)


# what is refused


def test_a_dump_without_a_group_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("nothing here\n")
    with pytest.raises(UsageError, match="log: it shows no group"):
        read([str(tmp_path / "log")])


def test_a_file_that_is_too_large_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b" " * (LARGEST + 1))
    for path, why in ((tmp_path / "huge", "larger than 8 MiB"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=why):
            read([str(path)])


def test_a_damaged_topology_is_refused_as_one(tmp_path: Path) -> None:
    path = written(tmp_path, {"schema": 1, "name": "x", "convention": "explicit", "families": {"tp": [[-1]]}})
    with pytest.raises(UsageError, match=r"topology file .*rank -1"):
        read([path])


def test_a_topology_shows_all_ranks() -> None:
    assert Layout.of(Topology("t", "vllm", {"tp": 2})).speakers == {0, 1}
