"""NVIDIA's Multi-Process Service, so that ranks on one GPU run side by side and do not take turns.

Invariant: a daemon started here has a pipe and a log directory of its own, serves this process and what
it starts, and is gone after it, also if this process is killed: a keeper process waits at the end of a pipe
whose other end only this process holds. A daemon that runs already is used and left alone. No setting of a
GPU is changed.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
DEFAULT_PIPES = "/tmp/nvidia-mps"
PATIENCE = 10.0
"""Seconds for a daemon to start, to answer, or to end."""
RECOVERY = 20.0
"""Seconds in which a server is well again after one of its clients failed or was killed in a kernel. Until every
client of that time is gone it takes no new ones, or ends them with the others."""


class Mps:
    """What `start` came to. `environment` is for the processes that use the GPU, `how` one line of words."""

    def __init__(self, environment: dict[str, str], how: str, keeper: subprocess.Popen[bytes] | None = None) -> None:
        self.environment, self.how = environment, how
        self._keeper = keeper
        self.users = 1

    @property
    def serves(self) -> bool:
        """Whether ranks on one GPU run side by side."""
        return bool(self.environment)

    def close(self) -> None:
        """End the daemon if it was started here and nobody in this process uses it any more."""
        self.users -= 1
        if self.users > 0 or self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.terminate()  # a child of this process may hold the other end too
        try:
            keeper.wait(timeout=4 * PATIENCE)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()


_running: list[Mps] = []
"""The daemon that this process keeps, if it does: every world in it shares one."""


def start() -> Mps:
    """A daemon to use: the one that runs already, or a private one; none where that cannot be, and then `how`
    says why ranks take turns. Local; the caller closes what it gets."""
    if _running and _running[0].users > 0:
        _running[0].users += 1
        return _running[0]
    if serves_already():
        pipes = os.environ.get(PIPES, DEFAULT_PIPES)
        return Mps({PIPES: pipes}, f"an MPS daemon that runs already ({pipes})")
    if not installed():
        return Mps({}, f"taking turns, which is slow: {CONTROL} is not on the PATH")
    _running[:] = [_private()]
    return _running[0]


def installed() -> bool:
    """Whether the daemon's program is there."""
    return shutil.which(CONTROL) is not None


def serves_already() -> bool:
    """Whether a daemon in the place that the environment names, or in NVIDIA's own, does what it is told."""
    pipes = os.environ.get(PIPES, DEFAULT_PIPES)
    if not Path(pipes).is_dir() or not installed():
        return False
    return _tell("get_server_list", {**os.environ, PIPES: pipes}) is not None


def _private() -> Mps:
    folder = Path(tempfile.mkdtemp(prefix="symm-mps-"))
    environment = {PIPES: str(folder / "pipe"), LOGS: str(folder / "log")}
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).resolve()), str(folder)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is not meant for it
    )
    assert keeper.stdout is not None
    said = keeper.stdout.readline().decode(errors="replace").strip()
    keeper.stdout.close()
    if said == "ready":
        return Mps(environment, "a private MPS daemon", keeper)
    Mps({}, "", keeper).close()
    return Mps({}, f"taking turns, which is slow: {said or 'the MPS daemon did not start'}")


def _tell(command: str, environment: dict[str, str]) -> str | None:
    """A daemon's answer, or None where there is none."""
    try:
        done = subprocess.run(
            [CONTROL],
            input=command + "\n",
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _keep(folder: Path, told: int) -> None:
    """The keeper: start a daemon, say whether it is there, end it when the other end of stdin closes, or when there
    is something to read from `told`."""
    environment = dict(os.environ)
    for name in (PIPES, LOGS):
        Path(environment[name]).mkdir()
    before = _daemons()
    try:
        failed = _launch(environment)
        sys.stdout.write(f"{failed or 'ready'}\n")
        sys.stdout.flush()
        if not failed:
            select.select([0, told], [], [])
    finally:
        servers = [int(word) for word in (_tell("get_server_list", environment) or "").split() if word.isdigit()]
        _tell("quit", environment)
        _end([pid for pid in _daemons() - before if _is_ours(pid, folder)] + servers)
        shutil.rmtree(folder, ignore_errors=True)


def _launch(environment: dict[str, str]) -> str:
    """Start the daemon in the background; what went wrong, or nothing."""
    try:
        done = subprocess.run(
            [CONTROL, "-d"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{CONTROL} cannot be run ({type(error).__name__})"
    if done.returncode:
        return f"{CONTROL} -d exited with status {done.returncode}"
    end = time.monotonic() + PATIENCE
    while _tell("get_server_list", environment) is None:
        if time.monotonic() > end:
            return f"{CONTROL} started and does not answer"
        time.sleep(0.1)
    return ""


def _daemons() -> set[int]:
    """Control daemons and servers that run; those that ended and are still listed, as in a container without an
    init process, are none."""
    named = ((process.pid, process.info["name"] or "") for process in psutil.process_iter(["name"]))
    return {pid for pid, name in named if CONTROL.startswith(name[:15]) and name and _runs(pid)}


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ours(pid: int, folder: Path) -> bool:
    try:
        return bool(psutil.Process(pid).environ().get(PIPES) == str(folder / "pipe"))
    except psutil.Error:
        return False


def _end(pids: list[int]) -> None:
    """Wait for processes that were told to end, and kill those that do not."""
    _wait(pids)
    for pid in filter(_runs, pids):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    _wait(pids)


def _wait(pids: list[int]) -> None:
    end = time.monotonic() + PATIENCE / 2
    while any(map(_runs, pids)) and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling)
    signal.signal(signal.SIGTERM, lambda *_: None)  # it may come at any time, and must not break the end off
    _keep(Path(sys.argv[1]), told)
