"""The real MPS daemon: private, and gone with whoever started it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from harness.machine import daemon, mps

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
HOLD = "from harness.machine import mps; print(mps.start().how, flush=True); import time; time.sleep(60)"


@pytest.fixture
def alone(monkeypatch) -> None:
    if not daemon.is_installed():
        pytest.skip(f"{mps.CONTROL} is not on the PATH")
    monkeypatch.delenv(mps.PIPES, raising=False)
    if mps.serves_already():
        pytest.skip("an MPS daemon runs already")


def test_a_private_daemon_answers_and_ends(alone):
    before = daemon.running()
    served = mps.start()
    started = daemon.running() - before
    served.close()
    assert (served.how, len(started) > 0, daemon.running() - before) == ("a private MPS daemon", True, set())


def test_a_private_daemon_ends_with_a_killed_process(alone):
    before = daemon.running()
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "a private MPS daemon"
    assert daemon.running() - before
    holder.kill()
    holder.wait()
    end = time.monotonic() + 30
    while daemon.running() - before and time.monotonic() < end:
        time.sleep(0.2)
    assert daemon.running() - before == set()
