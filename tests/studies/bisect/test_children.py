"""Commands that a bisection runs end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.studies.bisect import children
from harness.studies.bisect.children import run

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
ORDERLY = """
import pathlib, signal, sys, time
def leave(number, frame):
    pathlib.Path("left").touch()
    sys.exit()
signal.signal(signal.SIGTERM, leave)
pathlib.Path("ready").touch()
time.sleep(600)
"""


def test_a_command_gives_its_status_and_all_that_it_wrote(tmp_path: Path) -> None:
    says = "print(os.environ['MINE'], os.getcwd()); print(repr(sys.stdin.read()), file=sys.stderr); exit(3)"
    ended = run([sys.executable, "-c", f"import os, sys; {says}"], {**os.environ, "MINE": "here"}, tmp_path)
    assert ended == (3, f"here {tmp_path}\n", "''\n")


def test_a_command_may_write_more_than_a_pipe_holds() -> None:
    ended = run([sys.executable, "-c", "print('x' * 1_000_000)"], {**os.environ})
    assert len(ended.out) == 1_000_001


def interrupted(monkeypatch: pytest.MonkeyPatch, code: str, until: Path | None = None) -> psutil.Process:
    """A command that is interrupted, once a file is there, while its caller waits for it."""
    found: list[psutil.Process] = []
    wait = subprocess.Popen.wait

    def press(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if found:
            return wait(self, timeout)
        found.append(psutil.Process(self.pid))
        while until and not until.exists():
            assert self.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", press)
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", code], {**os.environ}, until.parent if until else None)
    return found[0]


def test_an_interrupted_command_ends_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not interrupted(monkeypatch, ORDERLY, tmp_path / "ready").is_running()
    assert (tmp_path / "left").exists()


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PATIENCE", 0.2)
    assert not interrupted(monkeypatch, STUBBORN).is_running()
