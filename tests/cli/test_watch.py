"""`symm watch` and `symm judge`: a program's findings as printed, statuses, JSON, seeds, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.campaign import seeds
from tests.tools.fake_libnccl import ROOT, fake_cudart, fake_nccl, plain
from tests.tools.observer_cache import anew, kept
from tests.tools.tasks import free_port, variables

__all__ = ["anew", "kept"]
JOBS = ROOT / "tests" / "tools" / "plain_jobs.py"
BOTH = f"""
import os, subprocess, sys
ranks = [subprocess.Popen([sys.executable, {str(JOBS)!r}, sys.argv[1]], env=os.environ | {{"RANK": str(rank)}})
         for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks) or int(sys.argv[2]))
"""


def symm(
    folder: Path, *arguments: str, seconds: float = 90, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in `folder`, whose programs find the stand-in for NCCL, and `more` variables."""
    environment = plain(folder, {"WORLD_SIZE": "2", "COLUMNS": "160", **(more or {})})
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def watch(folder: Path, job: str, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    fake_cudart()
    launcher = [sys.executable, "-c", BOTH, job, str(status)]
    return symm(folder, "watch", "--out", "out", "--nccl", str(fake_nccl()), *options, "--", *launcher)


def test_a_wrong_program_is_named_and_judged_again(tmp_path: Path) -> None:
    done = watch(tmp_path, "wrong-site-group")
    assert done.returncode == 1, done.stderr
    assert "watching into out; symm judge out judges it again" in done.stdout
    for text in ("wrong-owner", "windows of comm[0,1]", "2 legacy", "2 ranks, 2 communicators, 2 calls; NCCL 2.32.3."):
        assert text in done.stdout
    again = symm(tmp_path, "judge", "out")
    assert again.returncode == 1
    assert again.stdout.strip() in done.stdout


def test_a_command_of_the_harness_in_a_watched_task_of_torchrun_runs_alone(tmp_path: Path) -> None:
    """Its peers start none: taken for a task, it would wait for them."""
    inner = [sys.executable, "-m", "harness", "fuzz", "--substrate", "sim", "--world", "2", "--draws", "2"]
    task = variables(0, 2, 1, free_port())
    done = symm(tmp_path, "watch", "--nccl", str(fake_nccl()), "--", *inner, more=task)
    assert "2 draws in " in done.stdout
    assert "hosts: " not in done.stdout


@pytest.mark.parametrize(("job", "own", "status"), [("right-reuse", 0, 0), ("right-reuse", 7, 7), ("leak", 7, 1)])
def test_a_program_keeps_its_status_where_nothing_is_found(tmp_path: Path, job: str, own: int, status: int) -> None:
    assert watch(tmp_path, job, status=own).returncode == status


def test_a_program_without_window_memory_tested_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tests.tools.nccl_program import *; Nccl().world(1)"]
    done = symm(tmp_path, "watch", "--nccl", str(fake_nccl()), "--", *command)
    assert done.returncode == 2
    assert "nothing was tested" in done.stdout
    assert len(list((tmp_path / "symm-watch").glob("*/*.symm"))) == 1


def test_the_verdict_is_there_as_json(tmp_path: Path) -> None:
    watch(tmp_path, "cross-group-reuse")
    found = json.loads(symm(tmp_path, "judge", "out", "--json", "-").stdout)
    assert [each["rule"] for each in found["findings"]] == ["wrong-owner"]
    assert [(row["calls"], row["owners"]) for row in found["calls"]] == [
        (6, ["its own window"]),
        (2, ["windows of comm[0,1]"]),
    ]
    assert [each["name"] for each in found["communicators"]] == ["comm[0,1]", "comm-2[0,1]"]


@pytest.mark.parametrize(
    ("job", "rule"),
    [
        ("wrong-site-group", "wrong-owner"),
        ("offset-skew", "offset-mismatch"),
        ("stale-window", "stale-window"),
        ("lazy-communicator", "unregistered"),
        ("double-registration", "double-registration"),
        ("free-before-deregister", "freed-while-registered"),
        ("summed-elsewhere", "wrong-owner"),
        ("summed-in-place-elsewhere", "wrong-owner"),
    ],
)
def test_a_finding_becomes_a_seed_that_replays(tmp_path: Path, job: str, rule: str) -> None:
    watch(tmp_path, job)
    done = symm(tmp_path, "judge", "out", "--seed-file", "kept/seed.json")
    assert done.returncode == 1, done.stderr
    seed = seeds.load(tmp_path / "kept" / "seed.json")
    assert seed.findings[0].rule == rule
    assert seed.scenario.world <= 2
    assert len(seed.scenario.steps) <= 3
    assert symm(tmp_path, "replay", "kept/seed.json", "--substrate", "sim").returncode == 1
    assert os.listdir(tmp_path / "kept") == ["seed.json"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("judge", "."), ". holds no recording (*.symm): no process called NCCL under symm watch"),
        (("judge", "/etc/passwd"), "is a file; name the folder that it is in"),
        (("watch", "--", "true"), "holds no recording (*.symm): no process called NCCL"),
        (("watch", "--", "no-such-program"), "no-such-program cannot be run: No such file or directory"),
        (("watch", "--stacks", "some", "--", "true"), "--stacks 'some' is not one of first, all"),
        (("watch", "--nccl", "/no/such/file", "--", "true"), "/no/such/file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    if arguments[0] == "watch" and "/no/such/file" not in arguments:
        arguments = ("watch", "--nccl", str(fake_nccl()), *arguments[1:])
    done = symm(tmp_path, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    watch(tmp_path, "right-reuse")
    assert "out holds what another run wrote" in watch(tmp_path, "right-reuse").stderr


def test_captured_calls_are_shown_and_a_registration_in_a_capture_has_no_seed(tmp_path: Path) -> None:
    done = watch(tmp_path, "register-in-capture")
    assert done.returncode == 1, done.stderr
    assert "registered-in-capture" in done.stdout
    assert "2 captured" in done.stdout
    found = json.loads(symm(tmp_path, "judge", "out", "--json", "-").stdout)
    assert [(row["calls"], row["captured"]) for row in found["calls"]] == [(8, 2)]
    kept = symm(tmp_path, "judge", "out", "--seed-file", "seed.json")
    assert (kept.returncode, "no program can be made of registered-in-capture" in kept.stderr) == (2, True)
