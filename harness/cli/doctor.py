"""What this machine can run, and why not more: the facts behind `symm doctor`."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from harness.errors import MachineError
from harness.machine import daemon, gpus, mps, nccl
from harness.machine.evidence import KINDS, Version, dotted
from harness.world import environment, stacks
from harness.world.platform import NCCL_FOR_SHARED_GPUS, NCCL_FOR_WINDOWS, choose

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


def examine() -> Examination:
    """Look at the machine. Local; creates no CUDA context and starts no rank."""
    facts = environment.describe()
    return Examination(facts, (*_software(facts), *_hardware(), *_nccl(), _choice()))


def _software(facts: dict[str, Any]) -> list[Row]:
    needs = {
        "python": "3.11 or later",
        "torch": "tensors; its CUDA build on GPUs",
        "triton": "kernel collectives, 3.6 or later",
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
