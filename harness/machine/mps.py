"""NVIDIA's Multi-Process Service, so that ranks on one GPU run side by side and do not take turns.

Invariant: a daemon started here has a pipe and a log directory of its own, serves this process and what
it starts, and is gone after it, also if this process is killed: a guardian (`harness.machine.guardian`) sees to that.
A daemon that runs already is used and left alone. No setting of a GPU is changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.machine import daemon, gpus
from harness.machine.daemon import CONTROL, LOGS, PATIENCE, PIPES
from harness.machine.guardian import READY
from harness.machine.inherited import import_path, inherited

DEFAULT_PIPES = "/tmp/nvidia-mps"
RECOVERY = 20.0
"""Seconds in which a server is well again after one of its clients failed or was killed in a kernel. Until every
client of that time is gone it takes no new ones, or ends them with the others."""


class Mps:
    """How ranks share a GPU. `environment` is for the processes that use the GPU: where the daemon is, and by UUID the
    GPUs that it was left. `how` describes it in a line."""

    def __init__(self, environment: dict[str, str], how: str, guardian: subprocess.Popen[bytes] | None = None) -> None:
        self.environment, self.how = environment, how
        self._guardian = guardian
        self.users = 1

    @property
    def has_daemon(self) -> bool:
        """Whether ranks on one GPU run side by side."""
        return bool(self.environment)

    def close(self) -> None:
        """End the daemon if it was started here and this process has no other user of it."""
        self.users -= 1
        if self.users > 0 or self._guardian is None:
            return
        guardian, self._guardian = self._guardian, None
        assert guardian.stdin is not None
        guardian.stdin.close()
        guardian.terminate()  # a forked child of this process may hold the other end of its stdin too
        try:
            guardian.wait(timeout=4 * PATIENCE)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()


RUNNING: list[Mps] = []
"""The daemon that this process has started, if any: every world in it shares one."""


def start() -> Mps:
    """A daemon to use: the one that runs already, or a private one; none where that cannot be, and then `how`
    has the reason why ranks take turns. Local; the caller closes what it gets."""
    if RUNNING and RUNNING[0].users > 0:
        RUNNING[0].users += 1
        return RUNNING[0]
    if serves_already():
        pipes = os.environ.get(PIPES, DEFAULT_PIPES)
        return Mps({PIPES: pipes}, f"an MPS daemon that runs already ({pipes})")
    if not daemon.is_installed():
        return Mps({}, f"taking turns, which is slow: {CONTROL} is not on the PATH")
    RUNNING[:] = [_private()]
    return RUNNING[0]


def serves_already() -> bool:
    """Whether a daemon answers in the place that the environment names, or in NVIDIA's own."""
    pipes = os.environ.get(PIPES, DEFAULT_PIPES)
    if not Path(pipes).is_dir() or not daemon.is_installed():
        return False
    return daemon.answers(inherited({PIPES: pipes}))


def _private() -> Mps:
    """A daemon with a guardian, or the reason why there is none."""
    folder = Path(tempfile.mkdtemp(prefix="symm-mps-"))
    places = {PIPES: str(folder / "pipe"), LOGS: str(folder / "log"), **gpus.by_uuid()}
    guardian = _guardian(folder, places)
    assert guardian.stdout is not None
    report = guardian.stdout.readline().decode(errors="replace").strip()
    guardian.stdout.close()
    if report == READY:
        return Mps(places, "a private MPS daemon", guardian)
    Mps({}, "", guardian).close()
    return Mps({}, f"taking turns, which is slow: {report or 'the MPS daemon did not start'}")


def _guardian(folder: Path, places: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.machine.guardian", str(folder)],
        env=inherited(places, {"PYTHONPATH": import_path()}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal sends Ctrl-C to one session alone
    )
