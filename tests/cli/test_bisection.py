"""`symm bisect`: between which versions of a package a seed begins or ceases to fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.campaign import seeds
from harness.oracle.findings import Record
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.commands import ALONE, Run, forked, forked_code
from tests.tools.folders import SIM, facts, sentence
from tests.tools.processes import left, new_mark
from tests.tools.wheels import DOES_NOT_IMPORT, LEAKS, NEVER_REGISTERS, SOUND, pools

POOL = "brokenpool:Pool"
STEPS = (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4))
OVER = ("bisect", "seed.json", "--over", "brokenpool", "--wheels", "wheels", *SIM)


def with_versions(folder: Path, *sources: str, **environment: str) -> None:
    """Wheels 1.0, 1.1 and so on, and a seed of their pool that breaks `unregistered`."""
    pools(folder / "wheels", {f"1.{minor}": source for minor, source in enumerate(sources)})
    pair = Scenario(Topology("pair", "sglang", {"tp": 2}), STEPS, System(POOL))
    record = Record("unregistered", "it is so", 1, (0, 1))
    seeds.save(seeds.Seed(seeds.SCHEMA, pair, (record,), dict(environment)), folder / "seed.json")


@pytest.fixture(scope="module")
def begun(place: Callable[[str], Path]) -> Run:
    """A fault that began in 1.3, where 1.2 does not import and 1.1 breaks another rule."""
    folder = place("begun")
    with_versions(folder, SOUND, LEAKS, DOES_NOT_IMPORT, NEVER_REGISTERS)
    return forked(folder, *OVER, "--allow-plugins", "--runs", "2", "--json", "found.json")


def test_a_change_that_is_found_exits_with_0(begun: Run) -> None:
    assert begun.status == 0, begun.err


def test_each_version_is_a_line_in_the_order_of_trying(begun: Run) -> None:
    assert begun.out.splitlines()[1:4] == [
        "1.0: clean in 2 runs",
        "1.3: fails, unregistered in 2 of 2 runs",
        "1.1: other, only leak in 2 of 2 runs",
    ]


def test_a_version_that_does_not_import_is_skipped_with_the_reason(begun: Run) -> None:
    (line,) = [line for line in begun.out.splitlines() if line.startswith("1.2: ")]
    assert line.startswith(f"1.2: skipped, pool {POOL!r} does not import: ModuleNotFoundError")


def test_the_change_is_named_with_what_makes_it_less_sharp(begun: Run) -> None:
    assert begun.out.splitlines()[5:] == [
        "first bad 1.3, last good 1.1",
        "  not sharp: 1.2 between them could not run",
        "  1.1 is not clean: it breaks leak instead",
    ]


def test_the_json_has_the_same_facts(begun: Run) -> None:
    found = facts(begun)
    verdicts = [(each["version"], each["verdict"]) for each in found["versions"]]
    assert verdicts == [("1.0", "clean"), ("1.1", "other"), ("1.2", "skipped"), ("1.3", "fails")]
    assert found["changes"] == [{"kind": "begins", "last_good": "1.1", "first_bad": "1.3", "skipped": ["1.2"]}]
    assert (found["package"], found["substrate"], found["runs"]) == ("brokenpool", "sim", 2)
    assert (found["schema"], found["rules"]) == (1, ["unregistered"])


def test_nothing_is_left(begun: Run) -> None:
    assert begun.processes == []
    assert {path.name for path in begun.folder.iterdir()} == {"wheels", "seed.json", "found.json"}


def test_a_seed_that_ceases_to_fail_is_found_by_the_pool_of_the_options(tmp_path: Path) -> None:
    with_versions(tmp_path, NEVER_REGISTERS, SOUND)
    run = forked(tmp_path, *OVER, "--pool", POOL, "--json", "-")
    assert run.status == 0, run.err
    assert run.data["changes"] == [{"kind": "ceases", "first_good": "1.1", "last_bad": "1.0", "skipped": []}]
    assert run.err.splitlines()[-1] == "first good 1.1, last bad 1.0"


# the same, where verdicts are given

GIVEN = """
import sys
from harness.cli import main as cli
from harness.studies.bisect.search import Tried
from harness.studies.bisect.trials import Trials

def attempt(self, version):
    verdict = {verdicts!r}[int(version.split(".")[1])]
    if verdict == "fails":
        return Tried(version, verdict, 1, 1, ("unregistered",))
    return Tried(version, verdict, 0, 1, (), "it is too old" if verdict == "skipped" else "")

Trials.attempt = attempt
sys.argv = ["symm", *{arguments!r}]
cli.main()
"""
LETTERS = {"g": "clean", "b": "fails", "s": "skipped"}


def given(folder: Path, verdicts: str, *options: str, **environment: str) -> Run:
    """A bisection over as many versions as there are letters, whose verdicts they are."""
    with_versions(folder, *verdicts, **environment)
    arguments = [*OVER, "--allow-plugins", *options]
    return forked_code(folder, GIVEN.format(verdicts=[LETTERS[letter] for letter in verdicts], arguments=arguments))


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ("ggg", "no change: the seed fails with neither brokenpool 1.0 nor 1.2"),
        ("bbb", "no change: the seed fails with both brokenpool 1.0 and 1.2"),
        ("ssb", "no change: brokenpool 1.2 alone could run, and the seed fails with it"),
    ],
)
def test_without_a_change_it_exits_with_1_and_says_so(tmp_path: Path, verdicts: str, words: str) -> None:
    run = given(tmp_path, verdicts)
    assert (run.status, run.out.splitlines()[-1]) == (1, words)


def test_verdicts_that_no_single_change_explains_are_all_shown(tmp_path: Path) -> None:
    run = given(tmp_path, "gbgb", "--every")
    assert run.status == 0
    assert run.out.splitlines()[-4:] == [
        "first bad 1.1, last good 1.0",
        "first good 1.2, last bad 1.1",
        "first bad 1.3, last good 1.2",
        "not one change but 3: versions that were not tried may differ from both sides",
    ]


def test_between_equal_ends_the_version_of_the_seed_is_tried(tmp_path: Path) -> None:
    run = given(tmp_path, "ggbbgg", "--json", "-", brokenpool="1.3+of.mine")
    assert [(each["kind"], each["skipped"]) for each in run.data["changes"]] == [("begins", []), ("ceases", [])]


def test_where_no_version_runs_the_request_is_refused_with_a_reason(tmp_path: Path) -> None:
    run = given(tmp_path, "sss")
    assert (run.status, sentence(run)) == (2, "no version of brokenpool could run; 1.2: skipped, it is too old")


def test_limits_choose_the_ends(tmp_path: Path) -> None:
    run = given(tmp_path, "bgggbb", "--from", "1.1", "--to", "1.4")
    assert run.out.splitlines()[-1] == "first bad 1.4, last good 1.3"


# wrong requests


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--over", "nowhere", "--allow-plugins"), "wheels has no wheel of 'nowhere' that fits this Python: pip: "),
        (("--from", "new", "--allow-plugins"), "--from 'new': it is not a version"),
        (("--from", "1.9", "--allow-plugins"), "a change takes two versions, and --from 1.9 leaves none of 1.0, 1.1"),
        (("--wheels", "gone", "--allow-plugins"), "--wheels gone: it is not a directory"),
        (("--over", "nccl4py", "--allow-plugins"), "--over nccl4py: the simulation does not use it"),
        (("--with", "a b", "--allow-plugins"), "--with 'a b': it is not the name of a package"),
        ((), f"seed seed.json names pool {POOL!r}, and a seed runs no code by itself"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with_versions(tmp_path, SOUND, SOUND)
    run = forked(tmp_path, *OVER, *options)
    assert (run.status, sentence(run).startswith(words), run.out) == (2, True, "")


def test_a_package_is_needed(tmp_path: Path) -> None:
    with_versions(tmp_path, SOUND, SOUND)
    assert forked(tmp_path, "bisect", "seed.json").status == 2


# interrupted


def replays(pid: int) -> bool:
    """Whether a command has got as far as a replay."""
    with suppress(psutil.Error):  # a child may end meanwhile
        return any("replay" in child.cmdline() for child in psutil.Process(pid).children())
    return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_no_folder_and_no_process(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with_versions(tmp_path, SOUND, NEVER_REGISTERS)
    (tmp_path / "scratch").mkdir()
    mark = new_mark()
    own = {**os.environ, **ALONE, **mark, "TMPDIR": str(tmp_path / "scratch")}
    command = ["symm", *OVER, "--allow-plugins"]
    process = subprocess.Popen(command, cwd=tmp_path, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process:
        while not replays(process.pid):
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (status, b"symm: interrupted\n")
    assert left(mark, 10) == []
    assert [*(tmp_path / "scratch").iterdir()] == []
