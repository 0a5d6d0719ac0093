"""Shared libraries in the place of NCCL, compiled on the spot."""

from __future__ import annotations

import subprocess
from pathlib import Path

SONAME = "libnccl.so.2"
NCCL = """
int ncclGetVersion(int *version) { *version = %d; return 0; }
int pncclGetVersion(int *version) { *version = %d; return 0; }
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


OBSERVER = """
int symm_observer_version = 1;
extern int pncclGetVersion(int *version);
int ncclGetVersion(int *version) { return pncclGetVersion(version); }
"""


def observer(folder: Path, real: Path) -> Path:
    """A library with NCCL's soname and the observer's marker, which needs the real one by its absolute path.

    It is linked against an empty stub of that name: linked against the real one it would need its own soname.
    """
    stub = library(folder / "stub", "", name="libstub.so", soname=str(real))
    return library(folder, OBSERVER, "-Wl,--no-as-needed", str(stub), "-Wl,--allow-shlib-undefined")
