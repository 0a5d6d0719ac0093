"""Shared libraries in the place of NCCL, compiled on the spot."""

from __future__ import annotations

import subprocess
from pathlib import Path

SONAME = "libnccl.so.2"
NCCL = """
int ncclGetVersion(int *version) { *version = %d; return 0; }
int pncclGetVersion(int *version) { *version = %d; return 0; }
int ncclMemFree(void *memory) { return 0; }
int pncclMemFree(void *memory) { return 0; }
"""


def library(folder: Path, source: str, *options: str, name: str = SONAME, soname: str = SONAME) -> Path:
    """A library of this source, made in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text, built = folder / f"{name}.c", folder / name
    text.write_text(source)
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(built), str(text), *options]
    subprocess.run(command, check=True, capture_output=True)
    text.unlink()
    return built


def nccl(folder: Path, version: int = 23203) -> Path:
    """A library that says that it is this version of NCCL, such as 23203, and does nothing else."""
    return library(folder, NCCL % (version, version))
