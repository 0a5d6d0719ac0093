"""NVIDIA's MPS control daemon: launched, asked, found among the processes of this machine, and ended.

Invariant: what is ended is named by the caller; a daemon that others have started is only asked.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

from harness.clock import CLOCK, Clock

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PATIENCE = 10.0
"""Seconds for a daemon to start, to answer, or to end."""
ANSWER_PAUSE, END_PAUSE = 0.1, 0.05
"""Seconds between two looks whether a daemon answers, and whether processes have ended."""


def is_installed() -> bool:
    """Whether the daemon's program is there."""
    return shutil.which(CONTROL) is not None


def ask(command: str, environment: dict[str, str]) -> str | None:
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


def answers(environment: dict[str, str]) -> bool:
    """Whether a daemon answers in the place that this environment names. The question starts no server."""
    return ask("get_server_list", environment) is not None


def servers(environment: dict[str, str]) -> list[int]:
    """Process ids of a daemon's servers."""
    answer = ask("get_server_list", environment) or ""
    return [int(word) for word in answer.split() if word.isdigit()]


def launch(environment: dict[str, str], clock: Clock = CLOCK) -> str:
    """Start a daemon in the background and wait until it answers. Returns what went wrong, or nothing."""
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
    end = clock.now() + PATIENCE
    while not answers(environment):
        if clock.now() > end:
            return f"{CONTROL} started and does not answer"
        clock.sleep(ANSWER_PAUSE)
    return ""


def running() -> set[int]:
    """Process ids of control daemons and servers."""
    named = ((process.pid, process.info["name"] or "") for process in psutil.process_iter(["name"]))
    # Linux keeps 15 characters of a name (TASK_COMM_LEN), which a server shares with its daemon
    return {pid for pid, name in named if name and CONTROL.startswith(name[:15]) and is_running(pid)}


def is_running(pid: int) -> bool:
    """Whether a process runs. One that has ended stays listed until its parent reaps it, which in a container without
    an init process may never happen."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def serves(pid: int, folder: Path) -> bool:
    """Whether a daemon or server has its pipes in this folder."""
    try:
        return bool(psutil.Process(pid).environ().get(PIPES) == str(folder / "pipe"))
    except psutil.Error:
        return False


def end(pids: Collection[int], clock: Clock = CLOCK) -> None:
    """Wait for processes that were asked to end, and kill those that do not."""
    _wait(pids, clock)
    for pid in filter(is_running, pids):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    _wait(pids, clock)


def _wait(pids: Collection[int], clock: Clock) -> None:
    end_of_patience = clock.now() + PATIENCE / 2
    while any(map(is_running, pids)) and clock.now() < end_of_patience:
        clock.sleep(END_PAUSE)
