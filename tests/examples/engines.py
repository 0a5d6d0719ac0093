"""Stand-ins of engines that run the ready files of `examples/fleets`, without a cluster or a hosted CI.

Each reads a file as its engine does, runs its commands with the variables that the engine sets, and gives every `symm`
command line that came of it with its environment, in order. The shell is real; `symm` is recorded and not run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.tools.commands import ALONE

FLEETS = Path(__file__).parents[2] / "examples" / "fleets"
TWO = 2
"""Shards of a night here; the files have more."""
RECORDING = f"""#!{sys.executable}
import json, os, sys, time
with open(os.path.join(os.environ["RECORDS"], str(time.monotonic_ns())), "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""
SBATCH = f"""#!{sys.executable}
# Takes the options that a script on the command line has, and runs it at once, as many times as its array has tasks.
import os, subprocess, sys
given = sys.argv[1:]
options = dict(each.lstrip("-").partition("=")[::2] for each in given if each.startswith("--"))
script, *arguments = [each for each in given if not each.startswith("--")]
job = str(4711 + len(os.listdir(os.environ["RECORDS"])))
first, last = map(int, options.get("array", "0-0").split("-"))
for task in range(first, last + 1):
    tasks = {{"ID": task, "MIN": first, "MAX": last, "COUNT": last - first + 1, "STEP": 1}}
    tasks = tasks if "array" in options else {{}}
    array = {{f"SLURM_ARRAY_TASK_{{name}}": str(value) for name, value in tasks.items()}}
    array |= {{"SLURM_ARRAY_JOB_ID": job}} if tasks else {{}}
    subprocess.run(["bash", script, *arguments], env=os.environ | array | {{"SLURM_JOB_ID": job}}, check=True)
print(job if "parsable" in options else f"Submitted batch job {{job}}")
"""


class Command(NamedTuple):
    """A `symm` command line, without `symm`, and its environment."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


class Shell:
    """Runs lines as an engine's shell does, in a folder where `symm` and others are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self._records, self._bin, self._folder = folder / "records", folder / "bin", folder
        for made in (self._records, self._bin):
            made.mkdir()
        for name, text in (("symm", RECORDING), ("pip", "#!/bin/sh\n"), ("sbatch", SBATCH)):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)

    def run(self, *command: str, variables: dict[str, str]) -> None:
        """A command with what an engine sets."""
        path = f"{self._bin}:{ALONE['PATH']}"
        environment = {**os.environ, **ALONE, "PATH": path, "RECORDS": str(self._records), **variables}
        subprocess.run(command, cwd=self._folder, env=environment, check=True, capture_output=True, timeout=60)

    @property
    def commands(self) -> list[Command]:
        """What was recorded, in order."""
        found = [
            json.loads(path.read_text()) for path in sorted(self._records.iterdir(), key=lambda each: int(each.name))
        ]
        return [Command(tuple(arguments), environment) for arguments, environment in found]


def slurm(folder: Path) -> list[Command]:
    """The array of `submit.sh`, and the job that depends on it."""
    shell = Shell(folder)
    shell.run("bash", str(FLEETS / "slurm" / "submit.sh"), str(TWO), variables={})
    return shell.commands


def kubernetes(folder: Path) -> list[Command]:
    """The pods of both Jobs; a volume is a folder here."""
    night, merge = (filled(name) for name in ("night.yaml", "merge.yaml"))
    pods = [_pod(night, folder, {"JOB_COMPLETION_INDEX": str(index), "SYMM_SHARDS": str(TWO)}) for index in range(TWO)]
    return [*pods, _pod(merge, folder, {})]


def filled(name: str) -> dict[str, Any]:
    """A Job as the command at the head of its file gives it to `kubectl`."""
    (command,) = re.findall(r"^# +(sed .*) \| kubectl create -f -$", (FLEETS / "kubernetes" / name).read_text(), re.M)
    shown = subprocess.run(["bash", "-c", command], cwd=FLEETS.parents[1], check=True, capture_output=True, text=True)
    assert "TONIGHT" not in shown.stdout
    found: dict[str, Any] = yaml.safe_load(shown.stdout)
    return found


def _pod(job: dict[str, Any], folder: Path, variables: dict[str, str]) -> Command:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    set_there = {each["name"]: each["value"] for each in container.get("env", ())} | variables
    (nights,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "nights")
    symm, *arguments = (_expanded(each, set_there) for each in container["command"])
    assert symm == "symm"
    at_mount = (re.sub(rf"^{nights}(?=/)", str(folder / "volume"), each) for each in arguments)
    return Command(tuple(at_mount), {**os.environ, **ALONE, **set_there})


def _expanded(argument: str, variables: dict[str, str]) -> str:
    """`$(NAME)` as Kubernetes has it: one that is not set stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), argument)


def github(folder: Path) -> list[Command]:
    """The jobs of a matrix, then the one that needs them."""
    jobs = yaml.safe_load((FLEETS / "github" / "night.yml").read_text())["jobs"]
    shell = Shell(folder)
    for shard in jobs["shard"]["strategy"]["matrix"]["shard"][:TWO]:
        _github(shell, jobs["shard"], {"matrix.shard": str(shard), "strategy.job-total": str(TWO)})
    _github(shell, jobs["merge"], {})
    return shell.commands


def _github(shell: Shell, job: dict[str, Any], contexts: dict[str, str]) -> None:
    def in_context(text: str) -> str:
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda match: contexts[match[1]], text)

    variables = {name: in_context(value) for name, value in job.get("env", {}).items()} | {"GITHUB_RUN_ID": "4711"}
    for step in job["steps"]:
        if "run" in step:
            shell.run("bash", "-e", "-c", in_context(step["run"]), variables=variables)


def gitlab(folder: Path) -> list[Command]:
    """The parallel jobs, then the one that needs them. Lines of a script are of one shell."""
    jobs = yaml.safe_load((FLEETS / "gitlab" / "night.yml").read_text())
    shell = Shell(folder)
    for index in range(1, TWO + 1):
        place = {"CI_NODE_INDEX": str(index), "CI_NODE_TOTAL": str(TWO), "CI_PIPELINE_ID": "4711"}
        shell.run("bash", "-eo", "pipefail", "-c", "\n".join(jobs["symm-shard"]["script"]), variables=place)
    merge = "\n".join(jobs["symm-merge"]["script"])
    shell.run("bash", "-eo", "pipefail", "-c", merge, variables={"CI_NODE_TOTAL": "1", "CI_PIPELINE_ID": "4711"})
    return shell.commands


ENGINES: dict[str, Callable[[Path], list[Command]]] = {
    "slurm": slurm,
    "kubernetes": kubernetes,
    "github": github,
    "gitlab": gitlab,
}
