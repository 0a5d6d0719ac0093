"""A seed on one version: what the verdict is, and how often it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.campaign.seeds import SCHEMA, Reruns, Seed
from harness.errors import UsageError
from harness.oracle.findings import Record
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.studies.bisect import trials
from harness.studies.bisect.children import Ended
from harness.studies.bisect.trials import MOST_RUNS, Request, Trials, judged, known_version, runs_of, why_ended
from harness.studies.bisect.versions import Source
from tests.tools.wheels import SOUND, pools

PAIR = Scenario(Topology("pair", "sglang", {"tp": 2}), (Allocate("a", "tp", 8),), System("brokenpool:Pool"))
HANG = Record("hang", "they wait", 1, (0, 1))


def seed(*findings: Record, reruns: Reruns | None = None, **environment: Any) -> Seed:
    return Seed(SCHEMA, PAIR, findings, environment, reruns)


# the verdict


@pytest.mark.parametrize(
    ("runs", "verdict", "failed", "rules"),
    [
        ([["hang"], ["hang"]], "fails", 2, ("hang",)),
        ([[], ["hang"]], "fails", 1, ("hang",)),
        ([["leak"], ["leak", "hang"]], "fails", 1, ("hang", "leak")),
        ([["leak"], []], "other", 1, ("leak",)),
        ([[], []], "clean", 0, ()),
    ],
)
def test_a_version_fails_where_a_run_breaks_a_rule_of_the_seed(
    runs: list[list[str]], verdict: str, failed: int, rules: tuple[str, ...]
) -> None:
    tried = judged("1.0", runs, ("hang", "wrong-data"))
    assert (tried.verdict, tried.failed, tried.runs, tried.rules) == (verdict, failed, 2, rules)


def test_where_the_seed_holds_no_finding_any_rule_is_the_fault() -> None:
    assert judged("1.0", [["leak"]], ()).verdict == "fails"


# how often


@pytest.mark.parametrize(
    ("reruns", "runs"),
    [
        (None, 1),
        (Reruns(3, 3), 1),
        (Reruns(0, 10, 2), 1),
        (Reruns(5, 10), 7),
        (Reruns(1, 10), 44),
        (Reruns(9, 10), 2),
        (Reruns(0, 10), MOST_RUNS),
    ],
)
def test_a_race_runs_until_it_would_have_shown(reruns: Reruns | None, runs: int) -> None:
    assert runs_of(seed(HANG, reruns=reruns)) == runs


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("nvidia-nccl-cu12", "2.28.9"),
        ("nvidia-nccl-cu13", "2.28.9"),
        ("torch", "2.13.0"),
        ("sglang", None),
        ("triton", None),
    ],
)
def test_the_version_that_a_seed_was_found_with_is_read_from_it(package: str, version: str | None) -> None:
    assert known_version(seed(HANG, nccl="2.28.9", torch="2.13.0", triton=None), package) == version


# what is asked of a version


def request(tmp_path: Path, package: str = "brokenpool", **other: Any) -> Request:
    pools(tmp_path / "wheels", {"1.0": SOUND})
    return Request(seed(HANG), package, Source(tmp_path / "wheels"), "sim", 1, **other)


@pytest.mark.parametrize("package", ["nvidia-nccl-cu12", "nvidia-nccl-cu13", "nccl4py"])
def test_a_package_that_the_simulation_does_not_use_is_refused_there(package: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--over {package}: the simulation does not use it"):
        request(tmp_path, package)


def test_a_version_that_does_not_install_is_skipped(tmp_path: Path) -> None:
    tried = Trials(request(tmp_path)).attempt("9.9")
    assert (tried.verdict, tried.why.startswith("pip: No matching distribution")) == ("skipped", True)


def answering(monkeypatch: pytest.MonkeyPatch, status: int, facts: Any = None, err: str = "") -> list[list[str]]:
    """Replays that end so, and the commands that were run."""
    commands: list[list[str]] = []

    def replayed(command: list[str], environment: dict[str, str]) -> Ended:
        commands.append(command)
        if facts is not None:
            Path(command[command.index("--json") + 1]).write_bytes(msgspec.json.encode(facts))
        return Ended(status, "", err)

    monkeypatch.setattr(trials, "run", replayed)
    return commands


def test_a_replay_gets_the_options_and_the_seed_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = answering(monkeypatch, 0, {"runs": [[], [], []], "environment": {}})
    asked = msgspec.structs.replace(request(tmp_path, options=("--pool", "brokenpool:Pool")), runs=3)
    assert Trials(asked).attempt("1.0").verdict == "clean"
    (command,) = commands
    assert command[command.index("--times") + 1] == "3"
    assert command[command.index("--substrate") + 1] == "sim"
    assert command[-2:] == ["--pool", "brokenpool:Pool"]


def test_a_replay_that_finds_something_is_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, 1, {"runs": [[{"rule": "hang"}]], "environment": {}})
    assert Trials(request(tmp_path)).attempt("1.0").is_bad


@pytest.mark.parametrize("status", [2, -11, 0, 137])
def test_a_replay_that_says_nothing_is_a_version_skipped(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, status, err="line\nsymm: pool 'brokenpool:Pool' does not import\n")
    assert Trials(request(tmp_path)).attempt("1.0").verdict == "skipped"


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (Ended(2, "", "a\nsymm: there is no GPU\nb\n"), "there is no GPU"),
        (Ended(1, "", "Traceback\n  File\nImportError: libc\n"), "ImportError: libc"),
        (Ended(-11, "", "noise"), "ended by a signal: Segmentation fault"),
        (Ended(7, "", ""), "ended with status 7"),
    ],
)
def test_why_a_version_was_skipped(ended: Ended, why: str) -> None:
    assert why_ended(ended) == why


@pytest.mark.parametrize(
    ("version", "loaded", "verdict"),
    [("2.28.9", "2.28.9", "clean"), ("2.28.9.post1", "2.28.9", "clean"), ("2.28.9", "2.32.3", "skipped")],
)
def test_ranks_that_ran_another_nccl_give_no_verdict(
    version: str, loaded: str, verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pools(tmp_path / "wheels", {version: ""}, "nvidia_nccl_cu13")
    answering(monkeypatch, 0, {"runs": [[]], "environment": {"nccl": "2.30.7", "nccl_loaded": loaded}})
    asked = msgspec.structs.replace(request(tmp_path), package="nvidia-nccl-cu13", substrate="nccl")
    tried = Trials(asked).attempt(version)
    assert (tried.verdict, tried.why) == (verdict, "" if verdict == "clean" else "ranks loaded NCCL 2.32.3")


@pytest.mark.parametrize("hides", ["brokenpool.py", "brokenpool/__init__.py"])
def test_a_module_of_the_working_directory_that_hides_the_versions_is_named(
    hides: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = request(tmp_path, has_plug_ins=True)
    (tmp_path / hides).parent.mkdir(exist_ok=True)
    (tmp_path / hides).write_text(SOUND)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"{hides} hides every version of brokenpool"):
        Trials(asked).attempt("1.0")


def test_a_folder_that_is_no_package_hides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, 0, {"runs": [[]], "environment": {}})
    (tmp_path / "brokenpool").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Trials(request(tmp_path, has_plug_ins=True)).attempt("1.0").verdict == "clean"


def test_without_plug_ins_nothing_is_looked_for_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, 0, {"runs": [[]], "environment": {}})
    (tmp_path / "brokenpool.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert Trials(request(tmp_path)).attempt("1.0").verdict == "clean"
