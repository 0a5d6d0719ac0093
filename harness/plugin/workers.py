"""The pytest processes of a run and their GPUs: who runs tests, what each leases, what the controller does.

Invariant: a process that runs tests on GPUs sees those that it leased and no others, from before its test
modules are imported until it is unconfigured; then its environment is as it was. Where no test runs, or none
runs on a GPU, nothing is touched.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import msgspec
import psutil
import pytest

from harness.errors import MachineError, UsageError
from harness.machine import gpus, leases, nccl
from harness.machine.seats import RANKS_PER_GPU
from harness.world.platform import NCCL_FOR_SHARED_GPUS, choose

ASKS = ("help", "version", "markers", "collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow")
"""Options of pytest with which it runs no test."""
VARIABLE = "SYMM_LEASED_BY"
"""Process id of the pytest process that leased the GPUs of this one."""


class Role(msgspec.Struct, frozen=True):
    """A process among those of its run: how many run tests, and which of them it is."""

    workers: int
    number: int | None
    """None for the controller of `pytest -n`, which runs none."""

    def show(self, line: str) -> None:
        """Print a line for the person who watches the run. xdist passes on the stderr of its workers."""
        name = "" if self.number is None or self.workers == 1 else f" gw{self.number}"
        print(f"symm{name}: {line}", file=sys.stderr, flush=True)


class Controlled:
    """What the controller of `pytest -n` keeps: the turn of its run, until every worker has come or gone."""

    def __init__(self, workers: int, turn: ExitStack) -> None:
        self._missing, self._turn = workers, turn
        self._ready: set[str] = set()

    def ready(self, worker: str) -> None:
        self._ready.add(worker)
        self._arrived()

    def down(self, worker: str, error: object) -> None:
        """A worker has ended. Raises `UsageError` if it could not lease: xdist would start it again and again."""
        if worker in self._ready:
            return
        self._arrived()
        # what a worker raised while it was configured reaches the controller as text alone
        if message := re.search(r"\bUsageError: (.*)\Z", str(error).strip()):
            raise UsageError(f"{worker}: {message[1]}")

    def _arrived(self) -> None:
        self._missing -= 1
        if self._missing <= 0:
            self._turn.close()


HELD = pytest.StashKey[ExitStack]()
CONTROLLED = pytest.StashKey[Controlled]()
HEADER = pytest.StashKey[str]()


def settle(config: pytest.Config) -> None:
    """Lease what this process needs, or as the controller prepare for those that do. Raises `UsageError`."""
    world = config.getoption("--symm-world")
    if not _runs_tests(config) or _has_lease():
        return
    if choose(config.getoption("--symm-substrate"), world).name != "nccl":
        return
    role = role_of(config)
    visible = [gpu.uuid for gpu in gpus.inventory()]
    share = leases.share(world, role.workers, len(visible))
    _check_nccl(world, share)
    patience = leases.Patience(config.getoption("--symm-lease-timeout"), role.show)
    held = config.stash[HELD] = ExitStack()
    patch = held.enter_context(pytest.MonkeyPatch.context())
    if role.number is not None:
        leased = leases.lease(share, visible, role.number, patience)
        held.callback(leased.close)
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(leased.gpus))
        patch.setenv(VARIABLE, str(os.getpid()))
        for name, value in nccl.cta_environment(RANKS_PER_GPU).items() if not share.is_whole else ():
            patch.setenv(name, value)  # ranks of other workers spin on that GPU too
        config.stash[HEADER] = f"leased {leased}"
        return
    turn = held.enter_context(leases.take_turn(visible, patience))
    config.stash[CONTROLLED] = Controlled(role.workers, turn)
    config.stash[HEADER] = leases.announcement(role.workers, share, visible)
    if not share.is_whole:
        config.stash[HEADER] += f"; {_start_mps(held, patch)}"


def _start_mps(held: ExitStack, patch: pytest.MonkeyPatch) -> str:
    """Let workers that share a GPU run side by side. Returns how, for the header."""
    mps = import_module("harness.machine.mps").start()
    held.callback(mps.close)
    for name, value in mps.environment.items():
        patch.setenv(name, value)
    return str(mps.how)


def leave(config: pytest.Config) -> None:
    """Give everything back. May be called twice."""
    if HELD in config.stash:
        config.stash[HELD].close()


def role_of(config: pytest.Config) -> Role:
    """Which process of its run this is, with xdist or without."""
    # xdist gives `workerinput` to the config of its workers alone
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is not None:
        return Role(given["workercount"], int(given["workerid"].removeprefix("gw")))
    specs = config.getoption("tx", None) or []  # xdist turns `-n 2` into two of them before it configures
    if config.getoption("dist", "no") == "no" or not specs:
        return Role(1, 0)
    times = [spec.partition("*")[0] for spec in specs]  # `3*popen` is three workers
    return Role(sum(int(word) if word.isdigit() else 1 for word in times), None)


def auto_workers(config: pytest.Config) -> int | None:
    """Workers of `pytest -n auto`, or None where xdist decides: without GPUs, or by its own variable."""
    world = config.getoption("--symm-world")
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or world < 1:
        return None
    try:
        platform = choose(config.getoption("--symm-substrate"), world)
    except UsageError:  # `pytest_configure` of this process raises it too, and pytest shows that
        return None
    if platform.name != "nccl":
        return None
    return leases.most_workers(world, len(gpus.inventory()), len(os.sched_getaffinity(0)))


def _runs_tests(config: pytest.Config) -> bool:
    return not any(config.getoption(name, None) for name in ASKS)


def _has_lease() -> bool:
    """Whether this is pytest inside a test, on GPUs that the test's process leased: it would wait for itself."""
    owner = os.environ.get(VARIABLE)
    here = psutil.Process()
    return owner is not None and owner in {str(process.pid) for process in (here, *here.parents())}


def _check_nccl(world: int, share: leases.Share) -> None:
    """Together the GPUs may be enough for an NCCL that cannot share one, and a worker's part of them too few."""
    version = nccl.version()
    if version is not None and version < NCCL_FOR_SHARED_GPUS and world > share.gpus:
        text = ".".join(map(str, version))
        raise MachineError(
            f"each worker gets {share} for {world} ranks, and NCCL {text} cannot share one (2.30 can); "
            "start fewer workers (-n)"
        )
