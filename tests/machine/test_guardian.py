"""The guardian: a private daemon ends with the process that started it, also if that process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.machine import mps
from tests.tools.mps_daemon import leftovers, pid_of, runs, until

HOLD = """
import time
from harness.machine import mps
print(mps.start().environment[mps.PIPES], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_private_daemon_ends_with_a_process_that_is_killed(machine: Path, death: signal.Signals) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert holder.stdout is not None
    pid = pid_of(holder.stdout.readline().strip())
    holder.send_signal(death)
    holder.wait()
    holder.stdout.close()
    assert until(lambda: not runs(pid) and not leftovers(machine))


def test_a_guardian_starts_in_a_folder_that_has_a_module_of_a_name_it_imports(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "psutil.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    served = mps.start()
    served.close()
    assert served.how == "a private MPS daemon"


def test_a_guardian_ends_at_sigterm_while_its_parent_lives(machine: Path) -> None:
    served = mps.start()
    pipes = Path(served.environment[mps.PIPES])
    pid = pid_of(pipes)
    os.kill(guardian_of(pipes.parent), signal.SIGTERM)
    assert until(lambda: not runs(pid) and not leftovers(machine))
    served.close()


def guardian_of(folder: Path) -> int:
    """The process that has this folder to guard."""
    children = psutil.Process().children()
    return next(child.pid for child in children if child.cmdline()[-1] == str(folder))
