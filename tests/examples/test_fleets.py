"""The ready files of `examples/fleets`: each runs a night of two shards on a stand-in of its engine, and joins it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.examples.engines import ENGINES, FLEETS, TWO, Command, filled
from tests.tools.commands import Run, fork, symm_main

SHORT = ("--minutes", "0.02", "--world", "2", "--substrate", "sim")
"""In place of an hour."""
SOURCES = {
    "slurm": "SLURM_ARRAY_TASK_ID",
    "kubernetes": "JOB_COMPLETION_INDEX",
    "github": "SYMM_SHARD",
    "gitlab": "CI_NODE_INDEX",
}


class Night(NamedTuple):
    shards: list[Run]
    merge: Run
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Night]:
    """What comes of an engine's commands, each run once, on the simulation."""

    @cache
    def run(engine: str) -> Night:
        folder = tmp_path_factory.mktemp(engine)
        *shards, merge = ENGINES[engine](folder)
        assert len(shards) == TWO
        ran, joined = [start(folder, shortened(each)) for each in shards], start(folder, merge)
        into = folder / merge.arguments[merge.arguments.index("--into") + 1]
        return Night(ran, joined, json.loads((into / "run.json").read_text()))

    return run


def start(folder: Path, command: Command) -> Run:
    return fork(symm_main, folder, command.arguments, command.environment)


def shortened(command: Command) -> Command:
    text = "\0".join(command.arguments)
    assert text.count("--minutes\x0060") == 1
    return command._replace(arguments=tuple(text.replace("--minutes\x0060", "\0".join(SHORT)).split("\0")))


def test_every_engine_that_has_files_has_a_stand_in() -> None:
    assert {path.name for path in FLEETS.iterdir() if path.is_dir()} == ENGINES.keys()


@pytest.mark.parametrize("engine", ENGINES)
def test_each_task_draws_a_shard_of_its_own(night: Callable[[str], Night], engine: str) -> None:
    found = [each["shard"] for each in night(engine).facts["shards"]]
    assert found == [{"index": index, "of": TWO, "source": SOURCES[engine]} for index in range(1, TWO + 1)]
    assert [run.status for run in night(engine).shards] == [0] * TWO


@pytest.mark.parametrize("engine", ENGINES)
def test_the_shards_of_a_night_have_one_seed_that_their_engine_gives(
    night: Callable[[str], Night], engine: str
) -> None:
    lines = {line for run in night(engine).shards for line in run.out.splitlines() if line.startswith("seed ")}
    (line,) = lines
    assert "the date" not in line
    assert night(engine).facts["seed"] == int(line.split(",")[0].removeprefix("seed "))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_shards_left_is_joined(night: Callable[[str], Night], engine: str) -> None:
    found = night(engine)
    assert (found.merge.status, found.facts["missing"]) == (0, [])
    assert found.facts["draws"] == sum(each["draws"] for each in found.facts["shards"]) > 0


@pytest.mark.parametrize("script", sorted(FLEETS.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_sound_to_its_shell(script: Path) -> None:
    checks = [["bash", "-n"], ["shellcheck"]]
    for check in (each for each in checks if shutil.which(each[0])):
        checked = subprocess.run([*check, str(script)], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stdout) == (0, "")


# grace


def test_a_task_of_slurm_gets_its_signal_before_its_time_is_up() -> None:
    """To the shell of the batch, whose place the command takes."""
    script = (FLEETS / "slurm" / "shard.sh").read_text()
    assert re.search(r"^#SBATCH --signal=B:TERM@\d\d+$", script, re.M)
    assert re.search(r"^exec symm fuzz ", script, re.M)


def test_a_job_of_github_has_the_command_in_the_place_of_its_shell() -> None:
    jobs = yaml.safe_load((FLEETS / "github" / "night.yml").read_text())["jobs"]
    (line,) = (each["run"] for each in jobs["shard"]["steps"] if "fuzz" in each.get("run", ""))
    assert line.startswith("exec symm ")


# Kubernetes


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load((FLEETS / "kubernetes" / "night.yaml").read_text())


def test_the_job_counts_its_shards_as_its_completions(job: Any) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    count = next(each["value"] for each in container["env"] if each["name"] == "SYMM_SHARDS")
    assert (int(count), job["spec"]["completionMode"]) == (job["spec"]["completions"], "Indexed")
    assert job["spec"]["parallelism"] <= job["spec"]["completions"]


def test_the_names_of_a_night_s_jobs_are_names_of_kubernetes() -> None:
    for name in ("night.yaml", "merge.yaml"):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", filled(name)["metadata"]["name"])


def test_the_job_waits_for_kueue(job: Any) -> None:
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]


def test_the_job_gives_ranks_shared_memory_gpus_and_time_to_end(job: Any) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (shm,) = (each["name"] for each in container["volumeMounts"] if each["mountPath"] == "/dev/shm")
    assert next(each["emptyDir"]["medium"] for each in pod["volumes"] if each["name"] == shm) == "Memory"
    assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1
    assert pod["terminationGracePeriodSeconds"] >= 30


def test_a_shard_with_findings_is_not_started_again_and_one_that_was_evicted_is(job: Any) -> None:
    evicted, ended = job["spec"]["podFailurePolicy"]["rules"]
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (ended["action"], ended["onExitCodes"]["values"]) == ("FailIndex", [1, 2])
    assert job["spec"]["backoffLimitPerIndex"] > 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # which both need
