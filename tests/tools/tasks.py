"""Tasks of one launch on this machine, each a host of its own by its id, or several on a host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

TOKEN = "a secret of tests"
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port whose successor is likely to be free, too."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def variables(rank: int, tasks: int, share: int, port: int) -> dict[str, str]:
    """As torchrun sets them for a task, on a host of `share` tasks."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": str(rank % share),
        "LOCAL_WORLD_SIZE": str(share),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SYMM_TOKEN": TOKEN,
        "SYMM_HOST_ID": f"host{rank // share}",
    }


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A task of `symm`, with these variables."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(tasks: int, share: int, *arguments: str, mark: dict[str, str] | None = None) -> list[subprocess.Popen[str]]:
    """All tasks of a launch, by rank."""
    port = free_port()
    return [start({**variables(rank, tasks, share, port), **(mark or {})}, *arguments) for rank in range(tasks)]
