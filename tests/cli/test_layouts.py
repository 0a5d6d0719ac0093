"""`symm show` on dumps, and `symm topologies --from-dump`: exit status, files and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.scenario.layouts.groups import Groups
from harness.scenario.topology import Topology, find, load, save
from tests.tools.commands import Run, forked
from tests.tools.folders import SIM, sentence

TP: Groups = ((0, 1), (2, 3))
DP: Groups = ((0, 2), (1, 3))
VIEWS = [{"rank": rank, "groups": {"tp": [rank & 2, rank | 1], "dp": [rank & 1, rank | 2]}} for rank in range(4)]


def write(folder: Path, name: str, *lines: Any) -> None:
    (folder / name).write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))


def degrees(folder: Path, name: str = "degrees.json", **widths: Any) -> None:
    save(Topology("degrees", "megatron-core", widths), folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dump of four ranks, and the degrees that it comes from."""
    write(tmp_path, "dump.jsonl", *VIEWS)
    degrees(tmp_path, tp=2, dp=2)
    return tmp_path


def test_a_dump_that_agrees_exits_with_0(folder: Path) -> None:
    run = forked(folder, "show", "dump.jsonl", "--against", "degrees.json")
    assert (run.status, run.err, "agrees with degrees in tp, dp" in run.out) == (0, "", True)


def test_a_dump_that_differs_exits_with_1_and_the_same_facts(folder: Path) -> None:
    degrees(folder, tp=2, dp=2, order="dp-tp-cp-ep-pp")
    run = forked(folder, "show", "dump.jsonl", "--against", "degrees.json", "--json", "-")
    assert (run.status, run.data["against"]["swapped"]) == (1, [["dp", "tp"]])


def test_axes_in_another_order_than_documented_are_swapped(tmp_path: Path) -> None:
    save(Topology("documented", "megatron", {"tp": 2, "cp": 2, "dp": 2, "pp": 2}), tmp_path / "documented.json")
    made = {**load(tmp_path / "documented.json").families}
    made["dp"], made["pp"] = made["pp"], made["dp"]
    save(Topology("real", "explicit", families_given=made), tmp_path / "real.json")
    run = forked(tmp_path, "show", "real.json", "--against", "documented.json")
    assert run.status == 1
    assert "dp and pp are swapped: dp has the groups of pp, and pp those of dp; first rank 0: dp [0, 8]" in run.out


def test_a_broken_law_exits_with_1_without_a_comparison(tmp_path: Path) -> None:
    save(Topology("wrong", "explicit", families_given={"tp": TP, "ulysses": TP}), tmp_path / "wrong.json")
    save(Topology("right", "explicit", families_given={"tp": TP, "ulysses": DP}), tmp_path / "right.json")
    runs = [forked(tmp_path, "show", name) for name in ("wrong.json", "right.json")]
    assert [run.status for run in runs] == [1, 0]
    assert "law one-rank-in-common: groups of tp and ulysses" in runs[0].out


def test_one_rank_is_compared_as_far_as_it_shows(folder: Path) -> None:
    write(folder, "one.jsonl", VIEWS[3])
    run = forked(folder, "show", "one.jsonl", "--against", "degrees.json", "--json", "-")
    assert (run.status, run.data["families"], run.data["shown_by"]) == (0, {"tp": [[2, 3]], "dp": [[1, 3]]}, [3])


def test_files_of_several_ranks_are_one_dump(folder: Path) -> None:
    for rank, view in enumerate(VIEWS):
        write(folder, f"rank{rank}.json", view)
    run = forked(folder, "show", *(f"rank{rank}.json" for rank in range(4)), "--json", "-")
    assert (run.status, run.data["families"]["tp"], run.data["shown_by"]) == (0, [[0, 1], [2, 3]], [0, 1, 2, 3])


def test_ranks_that_contradict_one_another_exit_with_1(tmp_path: Path) -> None:
    write(tmp_path, "dump", '[rank3]: {"tp": [2, 3]}', '[rank2]: {"tp": [2, 4]}')
    run = forked(tmp_path, "show", "dump")
    assert (run.status, "tp: rank 3 says [2, 3], and rank 2 says [2, 4]" in run.out) == (1, True)


def test_families_are_renamed_for_a_comparison(folder: Path) -> None:
    write(folder, "named", {"left": TP, "right": DP})
    run = forked(folder, "show", "named", "--against", "degrees.json", "--rename", "left=tp", "--rename", "right=dp")
    assert (run.status, "agrees with degrees in tp, dp" in run.out) == (0, True)


# from a dump to a topology


def test_a_dump_becomes_a_topology_that_is_drawn(folder: Path) -> None:
    made = forked(folder, "topologies", "--from-dump", "dump.jsonl", "--name", "mine", "-o", "mine.json")
    assert (made.status, find(str(folder / "mine.json")).families) == (0, {"tp": TP, "dp": DP})
    shown = forked(folder, "show", "mine.json", "--against", "degrees.json")
    drawn = forked(folder, "fuzz", *SIM, "--topology", "mine.json", "--draws", "3", "--world", "4")
    assert (shown.status, drawn.status) == (0, 0)


def test_a_topology_is_written_to_stdout_without_a_file(folder: Path) -> None:
    run = forked(folder, "topologies", "--from-dump", "dump.jsonl")
    assert (run.status, run.data["name"], run.data["families"]["tp"]) == (0, "dump", [[0, 1], [2, 3]])
    assert "shares" not in run.data


def test_process_groups_have_communicators_of_their_own(tmp_path: Path) -> None:
    groups = [{"pg_name": str(name), "pg_desc": name, "ranks": [0, 1]} for name in ("tp", "ep")]
    write(tmp_path, "dump.json", groups)
    run = forked(tmp_path, "topologies", "--from-dump", "dump.json", "-o", "made.json", "--json", "-")
    assert run.data["communicators"] == {"tp": [0], "ep": [1]}
    assert json.loads((tmp_path / "made.json").read_text())["shares"] == {}


# what is wrong

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such file": (("show", "nowhere.json"), "nowhere.json"),
    "a damaged line": (("show", "torn"), "torn line 2"),
    "a negative rank": (("show", "negative"), "rank -1"),
    "a file without groups": (("show", "empty"), "empty: it shows no group"),
    "nothing in common": (("show", "other", "--against", "degrees.json"), "--rename FROM=TO"),
    "a topology to compare with that is a dump": (("show", "dump.jsonl", "--against", "dump.jsonl"), "dump.jsonl"),
    "a name that is none": (("show", "dump.jsonl", "--rename", "tp"), "'tp'"),
    "a name twice": (("show", "dump.jsonl", "--rename", "tp=a", "--rename", "tp=b"), "'tp' twice"),
    "a name that no group has": (("show", "dump.jsonl", "--rename", "ring=cp"), "there are dp, tp"),
    "JSON onto the dump": (("show", "dump.jsonl", "--json", "dump.jsonl"), "dump.jsonl"),
    "JSON onto what it is compared with": (
        ("show", "dump.jsonl", "--against", "degrees.json", "--json", "degrees.json"),
        "degrees.json",
    ),
    "a topology of degrees for a dump": (("topologies", "--from-dump", "degrees.json"), "'megatron-core'"),
    "ranks that disagree for a topology": (("topologies", "--from-dump", "dis"), "rank 3 says [2, 3]"),
    "a topology onto its dump": (("topologies", "--from-dump", "dump.jsonl", "-o", "dump.jsonl"), "dump.jsonl"),
    "a topology and JSON on stdout": (("topologies", "--from-dump", "dump.jsonl", "--json", "-"), "stdout"),
    "a topology and JSON in one file": (
        ("topologies", "--from-dump", "dump.jsonl", "--json", "x.json", "-o", "x.json"),
        "x.json",
    ),
    "an output without a dump": (("topologies", "-o", "x.json"), "--output"),
    "an empty name": (("topologies", "--from-dump", "dump.jsonl", "--name", ""), "a topology needs a name"),
}


def refused(folder: Path, *arguments: str) -> Run:
    write(folder, "torn", VIEWS[0], '{"tp": [0, ')
    write(folder, "negative", {"tp": [-1, 0]})
    write(folder, "empty", "ready to serve")
    write(folder, "other", {"mixer": [0, 1]})
    write(folder, "dis", {"rank": 3, "groups": {"tp": [2, 3]}}, {"rank": 2, "groups": {"tp": [2, 4]}})
    return forked(folder, *arguments)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_answered_by_one_sentence_that_names_it(name: str, folder: Path) -> None:
    arguments, named = WRONG[name]
    run = refused(folder, *arguments)
    assert (run.status, run.out) == (2, "")
    assert named in sentence(run)
    assert not (folder / "x.json").exists()
