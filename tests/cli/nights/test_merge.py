"""`symm merge`: what it shows and writes of a night's shards, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nights.test_merge import leave
from tests.tools.commands import Run, forked
from tests.tools.folders import content, sentence


@pytest.fixture(scope="module")
def merged(place: Callable[[str], Path]) -> Run:
    """Three of four shards, two of which found the same."""
    folder = place("merged")
    leave(folder / "night/1", 1, 4, [("leak", 2)])
    leave(folder / "night/2", 2, 4, [("leak", 0), ("hang", 1)], interrupted=True)
    leave(folder / "night/4", 4, 4)
    return forked(folder, "merge", "night", "--into", "joined", "--json", "joined.json")


def test_a_night_with_a_shard_missing_exits_with_2_and_names_the_command_that_draws_it(merged: Run) -> None:
    line = "Missing: shard 3 of 4 left nothing. The same command with --shard 3/4 --seed 5 draws it."
    assert (merged.status, line in merged.out, merged.err) == (2, True, "")


def test_each_finding_is_shown_once_with_its_replay(merged: Run) -> None:
    shown = [line.partition("symm replay ")[2] for line in merged.out.splitlines() if "symm replay " in line]
    found = json.loads((merged.folder / "joined/run.json").read_text())["findings"]
    assert shown == [each["seed_file"] for each in found]
    assert [each["rule"] for each in found] == ["hang", "leak"]
    assert "found by shard 1, 2" in merged.out


def test_a_seed_file_of_the_joined_folder_replays(merged: Run) -> None:
    seed = json.loads((merged.folder / "joined/run.json").read_text())["findings"][1]["seed_file"]
    assert forked(merged.folder, "replay", seed, "--substrate", "sim").status == 0  # the pool is right


def test_a_shard_that_was_interrupted_is_seen(merged: Run) -> None:
    assert [line.split("│")[6].strip() for line in merged.out.splitlines() if " of 4 │" in line] == [
        "by itself",
        "interrupted",
        "by itself",
    ]


def test_json_is_what_the_folder_holds(merged: Run) -> None:
    files = content(merged.folder)
    assert json.loads(files["joined.json"]) == json.loads(files["joined/run.json"])


def test_a_whole_night_exits_with_1_if_something_was_found_and_else_with_0(tmp_path: Path) -> None:
    leave(tmp_path / "night/1", 1, 2)
    leave(tmp_path / "night/2", 2, 2)
    assert forked(tmp_path, "merge", "night", "--into", "clean").status == 0
    leave(tmp_path / "night/2", 2, 2, [("leak", 0)])
    assert forked(tmp_path, "merge", "night", "--into", "found").status == 1


def test_a_damaged_file_is_named_and_the_status_is_2(tmp_path: Path) -> None:
    leave(tmp_path / "1", 1, 1, [("leak", 0)])
    (tmp_path / "1/seeds/torn.json").write_text("{")
    run = forked(tmp_path, "merge", "1", "--into", "joined")
    assert run.status == 2
    assert "Left out: seed file 1/seeds/torn.json: " in run.out
    assert "symm replay joined/seeds/leak-" in run.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gone", "--into", "joined"), "nothing to merge: gone: no such folder"),
        (("1", "--into", "file"), "--into file: file is not a directory"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    leave(tmp_path / "1", 1, 1)
    (tmp_path / "file").touch()
    run = forked(tmp_path, "merge", *arguments)
    assert (run.status, sentence(run)) == (2, says)
