"""`symm watch` and `symm judge` while a program runs, and when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.studies.watching.alive import started_under, writing
from tests.cli.test_watch import BOTH, symm
from tests.tools.fake_libnccl import fake_nccl, plain, wait_for
from tests.tools.observer_cache import anew, kept

__all__ = ["anew", "kept"]
EACH = """
import os, subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-c", "from tests.tools.nccl_program import *\\n" + sys.argv[1]],
         env=os.environ | {"RANK": str(rank)}) for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""
BEGUN = """
n = Nccl()
comm, memory = n.world(2), n.alloc()
n.register(comm, memory)
n.all_gather(comm, memory, memory)
"""
LATE = f"""
{BEGUN}
time.sleep(4 * RANK)
memory = n.alloc()
n.register(comm, memory)
n.all_gather(comm, memory, memory)
"""
WORKING = f"{BEGUN}\nwhile True: time.sleep(0.01); n.all_gather(comm, memory, memory)"


def command(*program: str) -> list[str]:
    watch = [sys.executable, "-m", "harness", "watch", "--out", "out", "--nccl", str(fake_nccl()), "--every", "1"]
    return [*watch, "--", sys.executable, "-c", *program]


def started(folder: Path, *program: str) -> subprocess.Popen[str]:
    variables = plain(folder) | {"WORLD_SIZE": "2", "COLUMNS": "160"}
    return subprocess.Popen(command(*program), cwd=folder, env=variables, stdout=subprocess.PIPE, text=True)


def test_a_rank_that_is_late_is_no_finding(tmp_path: Path) -> None:
    watch = started(tmp_path, EACH, LATE)
    said, _ = watch.communicate(timeout=90)
    assert watch.returncode == 0
    assert "hang" not in said
    assert "registration-skew" not in said


def test_a_deadlock_is_named_while_it_lasts(tmp_path: Path) -> None:
    watch = started(tmp_path, BOTH, "register-order-skew", "0")
    assert watch.stdout is not None
    line = next(line for line in watch.stdout if line.startswith("hang: "))
    assert "while rank" in line
    watch.terminate()
    watch.communicate(timeout=60)
    assert watch.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_written_is_judged_and_no_worker_is_left(tmp_path: Path, number: signal.Signals) -> None:
    watch, out = started(tmp_path, EACH, WORKING), tmp_path / "out"
    wait_for(lambda: out.is_dir() and len(writing(out)) == 2)
    wait_for(lambda: "its own window" in symm(tmp_path, "judge", "out").stdout)
    os.kill(watch.pid, number)
    said, _ = watch.communicate(timeout=60)
    assert watch.returncode == 128 + number
    assert "its own window" in said
    assert "not judged: What ranks 0, 1 had yet to do." in said
    assert "no finding" in said
    assert not [*started_under(str(out.resolve()))]
    assert not writing(out)
