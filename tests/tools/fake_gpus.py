"""A machine with GPUs and NCCL where there are none, for tests of what is decided and not of what runs on them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.machine import gpus, nccl
from harness.world import platform as platforms

UUIDS = ("GPU-c", "GPU-a", "GPU-b", "GPU-d", "GPU-h", "GPU-g", "GPU-f", "GPU-e")
"""In CUDA order, which is not sorted."""
MPS_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
MPS_LOG = "mps.log"


def equip(
    patch: pytest.MonkeyPatch, count: int, version: tuple[int, int, int] = (2, 32, 3), *, is_mps_played: bool = True
) -> None:
    """Make this process see so many GPUs, of which `CUDA_VISIBLE_DEVICES` leaves what it leaves. MPS is a note in a
    file, or else what the PATH has."""
    found = [gpus.Gpu(uuid, "card", 80 << 30, "600.1") for uuid in UUIDS[:count]]
    patch.setattr(gpus, "inventory", lambda: gpus.visible(found, os.environ.get("CUDA_VISIBLE_DEVICES")))
    patch.setattr(nccl, "version", lambda: version)
    patch.setattr(platforms, "_torch_version", lambda: "2.13.0+cu130")
    if is_mps_played:
        patch.setitem(sys.modules, "harness.machine.mps", SimpleNamespace(start=_start))  # type: ignore[arg-type]


def _start() -> SimpleNamespace:
    _log("start")
    environment = {MPS_VARIABLE: "pipes of the test"}
    return SimpleNamespace(
        environment=environment, has_daemon=True, how="a pretended daemon", close=lambda: _log("close")
    )


def _log(event: str) -> None:
    with Path(MPS_LOG).open("a") as log:
        log.write(f"{event} {os.getpid()}\n")
