"""Each libnccl that is mapped into a process: where it lies, its version, and whether an observer stands before it.

Invariant: nothing is loaded that was not there, and no library but those mapped is asked.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.errors import MachineError
from harness.machine.nccl import taken_apart

NAME = "libnccl.so"
"""How the file name of an NCCL begins."""
PLACE = "nvidia/nccl/lib/libnccl.so.2"
"""Where NVIDIA's wheels of NCCL put it, for every CUDA alike."""
MARKER = "symm_observer_real"
"""A function that observers have and NCCL has not: the path of the library behind it."""
SECONDS = 120.0


class Library(msgspec.Struct, frozen=True):
    """One mapped libnccl, or the observer in the place of one."""

    path: str
    version: str | None = None
    """By `ncclGetVersion`; None where it does not answer."""
    packages: tuple[str, ...] = ()
    """Installed packages, with versions, one of whose files it is."""
    is_observer: bool = False
    is_observed: bool = False
    """Whether the observer of this process hands its calls to it."""


class Mapping(NamedTuple):
    """A piece of a file in memory."""

    begin: int
    end: int
    path: str


def of_a_rank(environment: dict[str, str]) -> tuple[Library, ...]:
    """What a process has mapped that imports torch and NCCL as ranks do, in all of this environment.

    It creates no CUDA context. Raises `MachineError` where it fails.
    """
    command = [sys.executable, "-P", "-m", "harness.rank.probes.libraries"]
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
        return msgspec.json.decode(ended.stdout, type=tuple[Library, ...])
    except subprocess.TimeoutExpired:
        raise MachineError(f"importing torch took more than {SECONDS:.0f} s") from None
    except msgspec.DecodeError:
        lines = ended.stderr.decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        raise MachineError(said[-1] if said else f"it ended with status {ended.returncode}") from None


def mapped() -> tuple[Library, ...]:
    """Each libnccl of this process, in the order of its memory."""
    mappings = [*_mappings()]
    files = dict.fromkeys(mapping.path for mapping in mappings)
    observers = {path for path in files if ".so" in path and _is_observer(path, mappings)}
    observed = {os.path.realpath(_behind(path)) for path in observers}
    return tuple(
        Library(path, _version(path), _packages(path), path in observers, os.path.realpath(path) in observed)
        for path in files
        if path in observers or Path(path).name.startswith(NAME)
    )


def _mappings() -> Iterator[Mapping]:
    """Files in this process's memory (proc(5))."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.startswith("/"):
            begin, end = (int(each, 16) for each in addresses.split("-"))
            yield Mapping(begin, end, path)


def _is_observer(path: str, mappings: list[Mapping]) -> bool:
    """Whether a file has the marker itself: a look-up through a library goes on to those that it needs."""
    try:
        address = ctypes.cast(getattr(_opened(path), MARKER), ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return False
    return any(each.path == path and each.begin <= address < each.end for each in mappings)


def _behind(observer: str) -> str:
    """The path of the NCCL that an observer hands its calls to."""
    ask = getattr(_opened(observer), MARKER)
    ask.restype = ctypes.c_char_p
    return os.fsdecode(ask())


def _opened(path: str) -> ctypes.CDLL:
    """A library that is there already. Raises `OSError` otherwise, as for a file that was deleted since."""
    return ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)


def _version(path: str) -> str | None:
    number = ctypes.c_int()
    try:
        if _opened(path).ncclGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return ".".join(map(str, taken_apart(number.value)))


def _packages(path: str) -> tuple[str, ...]:
    """Packages of NCCL whose file it is. Those for two CUDA majors install one file, so both may claim it."""
    found = [each for each in metadata.distributions() if each.name.startswith("nvidia-nccl")]
    own = [each for each in found if os.path.realpath(str(each.locate_file(PLACE))) == os.path.realpath(path)]
    return tuple(sorted(f"{each.name} {each.version}" for each in own))
