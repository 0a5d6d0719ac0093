"""NCCL's profiler plug-in of the harness, compiled for this machine.

Invariant: nothing is written to disk that stays. The library lives in memory of this process, and ranks load it from
there.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import MachineError
from harness.machine.compiler import compile_source, compiler

VARIABLE = "NCCL_PROFILER_PLUGIN"
"""The environment variable from which NCCL takes the path of its plug-in."""
SOURCE = Path(__file__).with_suffix(".c")


def why_missing() -> str:
    """Why ranks cannot load the plug-in here; empty if they can."""
    if other := os.environ.get(VARIABLE):
        return f"{VARIABLE} names another plug-in, {other!r}"
    try:
        library()
    except MachineError as error:
        return str(error)
    return ""


@cache
def library() -> str:
    """Path of the compiled plug-in, which other processes of this user can load while this one lives.

    Raises `MachineError` where there is no C compiler, it fails, or there is no room for what it makes.
    """
    path = compiler()
    try:
        content = _built(path)
        descriptor = os.memfd_create("symm-profiler", os.MFD_CLOEXEC)
        os.write(descriptor, content)
    except OSError as error:
        raise MachineError(f"NCCL's profiler plug-in cannot be built: {error.strerror or error}") from error
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _built(path: str) -> bytes:
    """The compiled plug-in. The folder that it was made in is gone."""
    with TemporaryDirectory(prefix="symm-") as folder:
        built = Path(folder) / "profiler.so"
        compile_source([path, "-shared", "-fPIC", "-O1", "-o", str(built), str(SOURCE)], SOURCE.name)
        return built.read_bytes()
