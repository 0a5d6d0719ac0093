"""NVIDIA's MPS daemon, played by a shell script of its name that takes the same orders.

`MPS_REFUSES` in its environment keeps it from starting, `MPS_STUBBORN` from quitting, `MPS_MUTE` from answering.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

CONTROL = """#!/bin/bash
pipe=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then
  [ -z "$MPS_REFUSES" ] || exit 3
  (
    echo $BASHPID > $pipe/pid.new; mv $pipe/pid.new $pipe/pid
    while [ ! -e $pipe/quit ]; do sleep 0.05; done
    rm -f $pipe/pid
  ) &
  while [ ! -e $pipe/pid ]; do sleep 0.02; done
  exit 0
fi
[ -e $pipe/pid -a -z "$MPS_MUTE" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
read order
[ "$order" != quit ] || [ -n "$MPS_STUBBORN" ] || touch $pipe/quit
"""


def pid_of(pipes: Path | str) -> int:
    return int(Path(pipes, "pid").read_text())


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def leftovers(machine: Path) -> list[Path]:
    return list((machine / "tmp").iterdir())


def until(claim: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes true within this time, which is long since the machine may be busy."""
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
