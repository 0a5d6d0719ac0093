"""A machine on which NVIDIA's MPS daemon could be started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.machine import daemon, mps
from tests.tools.mps_daemon import CONTROL


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the daemon's program on the PATH, and no daemon. Temporary folders go to `tmp`."""
    for name in ("bin", "tmp", "default"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / daemon.CONTROL
    program.write_text(CONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(mps, "DEFAULT_PIPES", str(tmp_path / "default"))
    monkeypatch.setattr(mps, "RUNNING", [])
    monkeypatch.delenv(daemon.PIPES, raising=False)
    return tmp_path
