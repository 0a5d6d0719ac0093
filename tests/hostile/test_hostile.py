"""The tool itself: it sees what is wrong, and is silent where nothing is."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.hostile import lines, runs, warmth
from tests.hostile.__main__ import KINDS, parser, plan
from tests.hostile.kills import COMMANDS, NOTED, PROPERTIES, Kill, _problems, _rule
from tests.hostile.mutations import MUTATIONS, mutate
from tests.tools.mps_daemon import until

SEED = (Path(__file__).parents[2] / "topologies" / "seeds" / "wrong-owner-found-on-sim.json").read_bytes()


def ended(status: int | None, out: str = "", err: str = "", left: Sequence[str] = ()) -> runs.Ended:
    return runs.Ended(status, out, err, 1.0, tuple(left), Path())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_acts(kind: str) -> None:
    given = parser().parse_args(["--kind", kind, "--share", "0.02"])
    first, second = [[(name, case.name) for name, _, case in plan(given)[0]] for _ in range(2)]
    assert first == second
    assert first


def test_an_act_is_the_same_alone_as_among_others() -> None:
    share = ["--share", "0.05"]
    among = plan(parser().parse_args(["--kind", "lines", *share]))[0][7]
    (alone,) = plan(parser().parse_args(["--case", "lines:7", *share]))[0]
    assert (alone[1], alone[2].name) == (among[1], among[2].name)


@pytest.mark.parametrize("way", dict.fromkeys(MUTATIONS), ids=lambda way: way.__name__)
def test_every_mutation_changes_some_file(way: object) -> None:
    assert callable(way)
    assert any(way(Random(seed), SEED) != SEED for seed in range(5))


def test_a_mutation_takes_what_another_has_left() -> None:
    assert [mutate(Random(seed), mutate(Random(seed), SEED)[0]) for seed in range(100)]


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (ended(None), "no answer"),
        (ended(3), "status 3"),
        (ended(-11), "status -11"),
        (ended(2), "without a sentence"),
        (ended(2, err="symm: one\nsymm: two\n"), "2 lines"),
        (ended(2, err=f"symm: {'x' * 5000}\n"), "5006 characters"),
        (ended(0, out="\x1b[31m"), r"\x1b on stdout"),
        (ended(2, err="Traceback (most recent call last):\nsymm: so\n"), "unexpected error"),
        (ended(0, left=["process 7"]), "left behind: process 7"),
        (ended(1, out="  replay: symm replay nowhere.json\n"), "announced and not there"),
    ],
)
def test_what_is_wrong_with_an_end_is_said(end: runs.Ended, word: str) -> None:
    assert word in "; ".join(runs.problems(end))


@pytest.mark.parametrize("end", [ended(0, out="no finding\n"), ended(1), ended(2, err="symm: no such file\n")])
def test_nothing_is_wrong_with_an_end_as_it_should_be(end: runs.Ended) -> None:
    assert runs.problems(end) == []


def test_a_process_that_is_left_is_seen_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GONE", 0.2)
    running = runs.Running(tmp_path, "-c", "sleep 600 & exit 0", program="sh", is_real=True)
    assert [word.split()[0] for word in running.end().left] == ["process"]
    until(lambda: not running.processes())  # what was killed takes a moment to go
    assert running.processes() == []


def test_a_file_that_is_left_is_seen(tmp_path: Path) -> None:
    assert runs.run(tmp_path, "-c", "touch $TMPDIR/litter", program="sh", is_real=True).left == ("file litter",)


def test_a_command_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    assert runs.run(tmp_path, "600", program="sleep", is_real=True, bound=0.2).status is None


@pytest.mark.parametrize(("status", "problem"), [(-9, []), (0, ["status 0"])])
def test_a_kill_has_to_end_with_its_own_status(tmp_path: Path, status: int, problem: list[str]) -> None:
    kill = Kill("clean", "SIGKILL", "parent", "ranks", 0.0)
    assert _problems(kill, runs.Ended(status, "", "", 1.0, (), tmp_path), was_hit=True) == problem


def test_a_rule_that_was_found_and_is_in_no_seed_file_is_lost(tmp_path: Path) -> None:
    kill = Kill("fuzz", "SIGKILL", "parent", "kept", 0.0)
    (tmp_path / NOTED).write_text("hang\nwrong-owner\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "wrong-owner-0123456789.json").write_bytes(SEED)
    (tmp_path / "kept" / "leak-0123456789.json").write_bytes(SEED[:100])
    said = ["a torn seed file: leak-0123456789.json", "found and lost: hang"]
    assert _problems(kill, runs.Ended(-9, "", "", 1.0, (), tmp_path), was_hit=True) == said


def test_lines_are_drawn_from_every_command_there_is() -> None:
    there = lines.commands()
    drawn = [lines.line(Random(seed), there) for seed in range(400)]
    assert {name.split()[0] for name in there} == {line[0] for line in drawn}
    assert {"--draws", "--topology", "--evidence"} <= {word.split("=")[0] for line in drawn for word in line}


def test_nothing_is_written_outside_the_folder_of_a_line() -> None:
    values = [value for name in lines.WRITTEN for value in (*lines.HARMLESS, *lines.RIGHT[name])]
    assert {value for value in values if value.startswith("/")} == {"/dev/full", "/dev/null", "/proc/x"}


def test_the_rule_of_a_seed_file_is_in_its_name() -> None:
    assert _rule(Path("kept/wrong-owner-0123456789.json")) == "wrong-owner"


def test_pytest_under_a_kill_keeps_a_rule_soon(tmp_path: Path) -> None:
    (tmp_path / "test_properties.py").write_text(PROPERTIES)
    command = [sys.executable, "-m", "pytest", "-pno:cacheprovider", *COMMANDS["pytest"], "-k", "test_one"]
    run = subprocess.run([*command, "--symm-shrink-seconds=0"], cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 1
    kept = {_rule(path) for path in (tmp_path / "kept").iterdir()}
    assert {"stale-window"} <= kept <= {"stale-window", "wrong-owner"}  # how far it came is a matter of time


def test_to_warm_leaves_random_numbers_and_the_folder_of_hypothesis_as_they_were() -> None:
    from hypothesis.configuration import set_hypothesis_home_dir, storage_directory

    set_hypothesis_home_dir(None)
    before = random.getstate(), storage_directory("examples").path
    warmth.read_constants()
    assert (random.getstate(), storage_directory("examples").path) == before


def test_a_command_that_tells_of_no_imports_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run", lambda *_, **__: ended(2, err="symm: so\n"))
    with pytest.raises(RuntimeError, match=r"ended with 2: symm: so$"):
        warmth.imported_late()


def test_records_of_it_can_be_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, as it starts anew; the smallest share there is."""
    root, target = Path(__file__).parents[2], tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.hostile", "--kind", "lines", "--share", "0", "--json", str(target)]
    run = subprocess.run([*command, "--keep", str(tmp_path / "kept")], cwd=root, env={**os.environ}, check=False)
    assert (run.returncode, capfd.readouterr().err) == (0, "")
    found = json.loads(target.read_text())
    assert (found["schema"], found["hostile"][0]["number"]) == (1, 1)
    assert found["environment"]["torch"]
