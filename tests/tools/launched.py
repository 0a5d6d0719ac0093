"""Launches by `CudaSource` on a rank's GPU, for `World.call`: structs by value, early starts, much shared memory."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.system.cuda import CudaSource

SOURCE = CudaSource(Path(__file__).with_suffix(".cu"))
LATE = 5_000_000
"""Nanoseconds."""
MUCH = 96 << 10
"""Bytes of shared memory, more than the driver gives unasked."""


class Ranks(ctypes.Structure):
    _fields_ = [("at", ctypes.c_int64 * 32), ("rank", ctypes.c_int32)]


def unpacked(substrate: Any, slots: Any) -> list[list[int]]:
    """What kernels found in a struct and beside it, in an array of its size, and in both when a graph ran again."""
    ranks, into = Ranks(), torch.zeros(4, 35, dtype=torch.int64, device="cuda")
    ranks.at[:], ranks.rank = range(100, 132), -7
    array = (ctypes.c_int64 * 33)(*range(200, 232), 9)

    def launch(first: torch.Tensor, second: torch.Tensor) -> None:
        SOURCE.launch("unpack", 1, 1, np.int16(-3), ranks, np.float32(0.25), first)
        SOURCE.launch("unpack", 1, 1, np.int16(5), array, ctypes.c_float(2.5), second)

    launch(into[0], into[1])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(into[2], into[3])
    ranks.at[0], array[0] = -1, -1  # the graph has its own copies
    graph.replay()
    return into.tolist()


def early(substrate: Any, slots: Any) -> list[tuple[str, bool, list[int], list[bool]]]:
    """Eager and in a graph, launched early and not: what each kernel saw of the one ahead, and whether it had started
    when that one ended."""
    found = []
    for is_early in (True, False):
        for how in ("eager", "graph"):
            word, seen, ended, started = (torch.zeros(3, dtype=torch.int64, device="cuda") for _ in range(4))

            def launch(turn: int, is_early: bool = is_early, at: Any = (word, seen, ended, started)) -> None:
                word, seen, ended, started = at
                SOURCE.launch("ahead", 1, 1, word, np.int64(LATE), ended[turn:])
                SOURCE.launch("behind", 1, 1, word, seen[turn:], started[turn:], early=is_early)

            SOURCE.kernel("ahead"), SOURCE.kernel("behind")
            graph = torch.cuda.CUDAGraph()
            if how == "graph":
                with torch.cuda.graph(graph):
                    [launch(turn) for turn in range(3)]
                graph.replay()
            else:
                [launch(turn) for turn in range(3)]
            torch.cuda.synchronize()
            found.append((how, is_early, seen.tolist(), (started < ended).tolist()))
    return found


def filled(substrate: Any, slots: Any) -> list[int]:
    """The bytes that a kernel moved through its shared memory, each once."""
    into = torch.zeros(MUCH, dtype=torch.uint8, device="cuda")
    SOURCE.launch("fill", 1, 256, ctypes.c_int8(7), into, shared=MUCH)
    return into.unique().tolist()


def refused(substrate: Any, slots: Any) -> str:
    """What a launch says that asks for more shared memory than there is."""
    into = torch.zeros(1, dtype=torch.uint8, device="cuda")
    try:
        SOURCE.launch("fill", (3, 2), 256, ctypes.c_int8(7), into, shared=1 << 20)
    except RuntimeError as error:
        return str(error)
    return ""


def mistaken(substrate: Any, slots: Any) -> str:
    """What a launch says that leaves an argument out."""
    try:
        SOURCE.launch("fill", 1, 256, ctypes.c_int8(7))
    except TypeError as error:
        return str(error)
    return ""


def sm_90(substrate: Any, slots: Any) -> bool:
    return torch.cuda.get_device_capability() >= (9, 0)
