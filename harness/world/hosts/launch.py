"""What torchrun or srun say of the tasks that they started: this one's rank, how many there are, and where they meet.

Invariant: only a process that one of them started as a task of several is taken for one. A script of sbatch has
variables of Slurm, too, and runs alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.ipc.lines import LOCAL

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SRUN = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID")
"""`SLURM_STEP_ID` is there in the tasks of srun alone, and not in the script of sbatch."""
TOKEN, HOST_ID = "SYMM_TOKEN", "SYMM_HOST_ID"
OPT_OUT = ("SYMM_LAUNCH", "off")
"""The variable, and its value, with which a task runs alone."""
SHORTEST = 8
"""Letters of a token."""
FIRST_PORT, PORTS = 20000, 20000
"""Where jobs of Slurm listen, by their ids."""


class Launch(NamedTuple):
    """A task of several. `rank` counts them; the first one is the parent, which listens at `address` and `port`."""

    rank: int
    tasks: int
    address: str
    port: int
    token: str
    """What all tasks know; empty where they are on one host, so that none of them starts a rank for another."""
    by: str
    job: str = ""
    """What no other launch is called, as far as torchrun or srun say it."""

    @property
    def secret(self) -> bytes:
        """What both ends of a line prove that they know: the token, and of which launch they are."""
        return f"{self.job}, {self.tasks} tasks\0{self.token}".encode()


def launched(environment: Mapping[str, str]) -> Launch | None:
    """The task that this process is; None where it is one alone, or is told to be. Raises `UsageError` where the
    variables do not say enough, and where there are several hosts and no token."""
    name, off = OPT_OUT
    if environment.get(name, "") not in ("", off):
        raise UsageError(f"{name}={environment[name]!r} is not {off}, the one value that it has")
    if environment.get(name):
        return None
    if _has(environment, TORCHRUN):
        return _by_torchrun(environment)
    if _has(environment, SRUN):
        return _by_srun(environment)
    return None


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """What the programs of a task need, so that a command of the harness which one of them starts runs alone. Nothing
    where this process is no task: the program may be a launcher itself."""
    return dict([OPT_OUT]) if _has(environment, TORCHRUN) or _has(environment, SRUN) else {}


def _has(environment: Mapping[str, str], names: Iterable[str]) -> bool:
    return all(environment.get(name) for name in names)


def host_id(environment: Mapping[str, str]) -> str:
    """The name of this host."""
    return environment.get(HOST_ID) or socket.gethostname()


def machine_id() -> str:
    """What no other machine has: the id of its boot, or its name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _by_torchrun(environment: Mapping[str, str]) -> Launch | None:
    rank, tasks, local, port = _numbers(environment, "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    # torchrun itself, or the first script of it that makes a group, listens at MASTER_PORT
    found = _launch(environment, rank, tasks, environment["MASTER_ADDR"], port + 1, tasks == local, "torchrun")
    return found and found._replace(job=environment.get("TORCHELASTIC_RUN_ID", ""))


def _by_srun(environment: Mapping[str, str]) -> Launch | None:
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    nodes = "SLURM_STEP_NUM_NODES" if "SLURM_STEP_NUM_NODES" in environment else "SLURM_NNODES"
    rank, count, hosts = _numbers(environment, "SLURM_PROCID", tasks, nodes)
    if environment.get("MASTER_PORT"):
        (port,) = _numbers(environment, "MASTER_PORT")
    else:
        (job,) = _numbers(environment, "SLURM_JOB_ID")
        port = FIRST_PORT + job % PORTS
    named = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    address = environment.get("MASTER_ADDR") or first_of(named)
    found = _launch(environment, rank, count, address, port + 1, hosts == 1, "srun")
    return found and found._replace(job=f"{environment.get('SLURM_JOB_ID', '')}.{environment['SLURM_STEP_ID']}")


def _launch(
    environment: Mapping[str, str], rank: int, tasks: int, address: str, port: int, is_one_host: bool, by: str
) -> Launch | None:
    if tasks < 2:
        return None
    if not 0 <= rank < tasks:
        raise UsageError(f"{by} started task {rank} of {tasks}, and tasks are numbered from 0")
    if is_one_host:
        return Launch(rank, tasks, f"{LOCAL}symm-{os.geteuid()}-{port}", port, "", by)
    if not address:
        raise UsageError(f"{by} does not say where tasks meet: set MASTER_ADDR to the host of task 0")
    token = environment.get(TOKEN, "")
    if len(token) < SHORTEST:
        raise UsageError(
            f"tasks on several hosts need a secret: set {TOKEN} to the same {SHORTEST} letters or more on every host"
        )
    return Launch(rank, tasks, address, port, token, by)


def _numbers(environment: Mapping[str, str], *names: str) -> list[int]:
    """The numbers in these variables."""
    try:
        return [int(environment[name]) for name in names]
    except (KeyError, ValueError):
        wrong = next(name for name in names if not environment.get(name, "").isdigit())
        raise UsageError(f"{wrong}={environment.get(wrong, '')!r} is no number of tasks, hosts or ports") from None


def first_of(hosts: str) -> str:
    """The first of the hosts in a list as Slurm writes it, such as `gpu[03-05,09],big1`."""
    name, bracket, numbers = hosts.partition("[")
    if not bracket or "," in name:
        return name.partition(",")[0]
    inside, _, behind = numbers.partition("]")
    first = inside.replace("-", ",").partition(",")[0]
    return name + first + behind.partition(",")[0]
