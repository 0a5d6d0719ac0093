"""The real MPS daemon: private, and gone with whoever started it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.machine import daemon, mps

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
HOLD = "from harness.machine import mps; print(mps.start().environment[mps.PIPES], flush=True); input()"


@pytest.fixture
def alone(monkeypatch) -> None:
    if not daemon.is_installed():
        pytest.skip(f"{mps.CONTROL} is not on the PATH")
    monkeypatch.delenv(mps.PIPES, raising=False)
    if mps.serves_already():
        pytest.skip("an MPS daemon runs already")


def serving(folder: Path) -> set[int]:
    """Daemons and servers of this folder. Others may start and end beside this test."""
    return {pid for pid in daemon.running() if daemon.serves(pid, folder)}


def test_a_private_daemon_answers_and_ends(alone):
    served = mps.start()
    folder = Path(served.environment[mps.PIPES]).parent
    started = serving(folder)
    served.close()
    assert (served.how, len(started) > 0, serving(folder)) == ("a private MPS daemon", True, set())


def test_a_private_daemon_ends_with_a_killed_process(alone):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = Path(holder.stdout.readline().strip()).parent
    assert serving(folder)
    holder.kill()
    holder.wait()
    end = time.monotonic() + 30
    while serving(folder) and time.monotonic() < end:
        time.sleep(0.2)
    assert serving(folder) == set()
