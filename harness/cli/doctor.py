"""What this machine can run, and why not more: the facts behind `symm doctor`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.errors import MachineError
from harness.machine import daemon, gpus, libraries, mps, nccl
from harness.machine.evidence import KINDS, Version, dotted
from harness.machine.libraries import Library
from harness.machine.observer import build
from harness.world import environment, stacks
from harness.world.platform import NCCL_FOR_SHARED_GPUS, NCCL_FOR_WINDOWS, choose
from harness.world.zygote import whole

FEATURES = (
    (NCCL_FOR_WINDOWS, "windows", "collectives over registered buffers"),
    ((2, 29, 2), "peer pointers", "kernels that address their peers"),
    (NCCL_FOR_SHARED_GPUS, "several ranks on a GPU", "worlds larger than the number of GPUs"),
)


class Row(msgspec.Struct, frozen=True):
    """One thing looked at, what was found, and what follows."""

    what: str
    found: str
    means: str


class Examination(msgspec.Struct, frozen=True):
    environment: dict[str, Any]
    rows: tuple[Row, ...]
    libraries: tuple[Library, ...]
    """Each libnccl that a rank would map."""


def examine() -> Examination:
    """Look at the machine. Local; creates no CUDA context and starts no rank, but a process with a rank's imports."""
    facts = environment.describe()
    found, rows = _libraries()
    return Examination(facts, (*_software(facts), *_hardware(), *_nccl(), *rows, _choice()), found)


def _software(facts: dict[str, Any]) -> list[Row]:
    needs = {
        "python": "3.11 or later",
        "torch": "tensors; its CUDA build on GPUs",
        "triton": "kernel collectives, 3.6 or later",
        "cuda-core": "kernel collectives in CUDA C++, by the extra cuda",
    }
    rows = [Row(name, facts[name] or "missing", why) for name, why in needs.items()]
    spy = Row("py-spy", stacks.py_spy() or "missing", "native stacks of ranks that hang; Python's need nothing")
    return [*rows, spy, Row("cores", str(os.cpu_count()), "ranks of sim share them")]


def _hardware() -> list[Row]:
    found = gpus.inventory()
    if not found:
        return [Row("GPUs", f"none visible{gpus.why_no_gpu()}", "sim only")]
    return [
        Row(f"GPU {index}", f"{gpu.name}, {gpu.memory >> 20} MiB", f"driver {gpu.driver}")
        for index, gpu in enumerate(found)
    ]


def _nccl() -> list[Row]:
    version = nccl.version()
    if version is None:
        return [Row("NCCL", f"missing{nccl.why_missing()}", "install the extra cu12 or cu13 for the substrate nccl")]
    rows = [Row("NCCL", dotted(version), "the version that rank processes load")]
    for since, feature, use in FEATURES:
        rows.append(Row(feature, _has(version, since), use))
    for kind in KINDS:
        why = kind.lacks()
        rows.append(Row(f"evidence {kind.name}", f"no, {why}" if why else _has(version, kind.since), kind.shows))
    return [*rows, _mps()]


def _libraries() -> tuple[tuple[Library, ...], list[Row]]:
    """Each libnccl that an observed rank would map, or a rank where no observer can be had, and what follows."""
    try:
        needs, rows = build.environment(None), []
    except MachineError as error:
        needs, rows = {}, [Row("observer", f"no, {error}", "pools that call NCCL by themselves need it")]
    try:
        found = libraries.of_a_rank(whole({**nccl.environment(1), **needs}))
    except MachineError as error:
        return (), [*rows, Row("libnccl", "unknown", f"a process with the imports of a rank failed: {error}")]
    return found, [*rows, *_mapped(found)]


def _mapped(found: Sequence[Library]) -> list[Row]:
    rows = [Row("libnccl", each.path, _library(each, found)) for each in found]
    own = [each for each in found if not each.is_observer]
    if len(own) > 1:
        means = "torch and nccl4py may call different ones; put one of them in front (LD_PRELOAD)"
        rows.append(Row("libnccl", f"warning: {len(own)} different ones in one process", means))
    return rows or [Row("libnccl", "none", "a rank that imports torch and nccl4py maps no NCCL")]


def _library(library: Library, found: Sequence[Library]) -> str:
    """One of the libraries of a process, in words."""
    if library.is_observer:
        return f"the observer, in front of {next((each.path for each in found if each.is_observed), 'no NCCL')}"
    packages = f", of {' and '.join(library.packages)}" if library.packages else ""
    version = f"NCCL {library.version}" if library.version else "it does not say its version"
    has_observer = any(each.is_observer for each in found)
    sight = ", observed" if library.is_observed else ", not observed" if has_observer else ""
    return f"{version}{packages}{sight}"


def _has(version: Version, since: Version) -> str:
    return "yes" if version >= since else f"no, needs {dotted(since)}"


def _mps() -> Row:
    """Whether ranks on one GPU can run side by side. Starts nothing."""
    means = "ranks on one GPU run side by side; without it they take turns, some 300 times slower"
    if mps.serves_already():
        return Row("MPS", "runs already", f"{means}; it is used and left alone")
    found = "can be started" if daemon.is_installed() else f"no, {daemon.CONTROL} is not on the PATH"
    return Row("MPS", found, means)


def _choice() -> Row:
    try:
        platform = choose("auto", 1)
    except MachineError as error:
        return Row("substrate auto", "none", str(error))
    return Row("substrate auto", platform.name, platform.why)
