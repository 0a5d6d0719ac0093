"""A `libnccl.so.2` of our own, and programs that run on it with and without the observer in front."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.machine.compiler import compile_source, compiler
from harness.machine.observer.build import environment
from harness.machine.observer.records import Process, read_all

SOURCE = Path(__file__).with_suffix(".c")
CUDART = SOURCE.with_name("fake_libcudart.c")
ROOT = Path(__file__).parents[2]
SECONDS = 60
_FOLDER = TemporaryDirectory(prefix="symm-fake-nccl-")


@cache
def fake_nccl() -> Path:
    """Path of the fake, compiled once a process of tests. Its source says what the environment can ask of it."""
    made = Path(_FOLDER.name) / "libnccl.so.2"
    flags = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-Wl,-soname,libnccl.so.2", "-o", str(made))
    compile_source([compiler(), *flags, str(SOURCE), "-ldl"], SOURCE.name)
    (made.parent / "libnccl.so").symlink_to(made.name)
    return made


@cache
def fake_cudart() -> Path:
    """Path of a libcudart that knows captures alone. It lies beside the fake NCCL, and its names bear a version, as the
    real one's do."""
    made = fake_nccl().with_name("libcudart.so.12")
    named = f"-Wl,-soname,{made.name}", f"-Wl,--version-script,{CUDART.with_suffix('.map')}"
    compile_source(
        [compiler(), "-std=gnu11", "-O2", "-fPIC", "-shared", *named, "-o", str(made), str(CUDART)], made.name
    )
    (made.parent / "libcudart.so").symlink_to(made.name)
    return made


def compiled(source: str, folder: Path, *flags: str) -> Path:
    """The program with this C source, made in `folder`."""
    code, made = folder / "program.c", folder / "program"
    code.write_text(source)
    compile_source([compiler(), "-std=gnu11", "-O2", "-o", str(made), str(code), *flags], code.name)
    return made


def plain(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment in which the loader finds the fake. Ranks meet in `folder`."""
    found = dict(os.environ) | {"FAKE_NCCL_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
    return found | {"LD_LIBRARY_PATH": str(fake_nccl().parent)} | dict(more or {})


def observed(folder: Path, out: Path | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The same with the observer in front, which writes into `out`."""
    if out:
        out.mkdir(exist_ok=True)
    return plain(folder) | environment(out, fake_nccl()) | dict(more or {})


def start(command: list[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a program whose output is read."""
    return subprocess.Popen(command, env=dict(variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(command: list[str], variables: Mapping[str, str]) -> str:
    """Run a program to its end. Returns its output."""
    done = subprocess.run(command, env=dict(variables), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(program: str) -> list[str]:
    """The command that runs a Python program, which finds `Nccl` there."""
    return [sys.executable, "-c", f"from tests.tools.nccl_program import *\n{program}"]


def recorded(program: str, folder: Path, *, ranks: int = 1, more: Mapping[str, str] | None = None) -> list[Process]:
    """What `ranks` processes did that ran a Python program, by rank."""
    out = folder / "out"
    each = [observed(folder, out, {"RANK": str(rank), **(more or {})}) for rank in range(ranks)]
    started = [start(python(program), variables) for variables in each]
    for process in started:
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
    return sorted(read_all(out), key=lambda process: process.rank)


def wait_for(is_reached: Callable[[], bool]) -> None:
    """Wait until a program has come so far."""
    end = time.monotonic() + SECONDS
    while not is_reached():
        assert time.monotonic() < end, "the program has not come so far"
        time.sleep(0.01)
