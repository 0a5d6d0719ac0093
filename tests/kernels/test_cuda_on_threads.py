"""The built-in kernels in CUDA C++, compiled as C++ for this machine: threads of the host run all blocks of all ranks.

So the work of indices, slices, halves and epochs is tested without a GPU. What PTX and a GPU's memory do is not.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.kernels.cuda.collectives import HERE

HOST = Path(__file__).parents[1] / "tools" / "cuda_on_threads"
COMPILER = shutil.which("c++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler is here")


def run(folder: Path, *changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Compile with some text of the kernels changed, and run."""
    for file in HERE.glob("*.cu*"):
        text = file.read_text().replace("PUSHER = 32", "PUSHER = 2")  # blocks here have few threads
        for old, new in changes:
            text = text.replace(old, new)
        (folder / file.name).write_text(text)
    shutil.copytree(HOST, folder, dirs_exist_ok=True)
    options = ("-std=c++17", "-O1", "-pthread", "-w", "-o", folder / "program", folder / "main.cc")
    subprocess.run([str(COMPILER), *options], check=True, timeout=120)
    return subprocess.run([folder / "program"], capture_output=True, text=True, timeout=120, check=False)


def test_every_call_is_right(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("right", "fault", "call"),
    [
        ("for (i = words * 16 / sizeof(T) + thread;", "for (i = count;", "reduce-scatter"),
        ("const i64 mine = rank * slice + begin", "const i64 mine = begin", "staged all-reduce"),
        ("for (int turn = 1; turn <= size; turn++) at(turn)[i] = value;", "at(size)[i] = value;", "all-reduce"),
        ("/ gridDim.x - first;", "/ gridDim.x - first - blockIdx.x;", "all-gather by LL"),
        ("epoch & 1) * size + sender", "epoch & 1) * size", "all-gather by LL"),
        ("addresses % 16 ? 0 : bytes / 16", "bytes / 16", ""),
        ("peer(turn) * call.slice + line", "line", "reduce-scatter by queues"),
        ("rank * slice * (i64)sizeof(T), rank, size}", "0, rank, size}", "all-reduce by queues"),
    ],
)
def test_a_fault_would_be_noticed(tmp_path: Path, right: str, fault: str, call: str) -> None:
    assert any(right in file.read_text() for file in HERE.glob("*.cu*"))
    done = run(tmp_path, (right, fault))
    assert done.returncode != 0
    assert call in done.stdout
