"""What the built-in collectives launch on a GPU, and the code that Triton makes of it, found without one.

A process of its own, since a Triton that interprets compiles nothing. It prints one JSON object a launch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.substrate.communicator import FLOATS
from harness.system.collectives import TritonCollectives
from harness.system.planted.kernels import SoundKernels

ROOT = Path(__file__).resolve().parents[2]
THREADS = 128
"""Of a program: four warps, as Triton takes where nothing is said."""
TYPES = {
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    **dict(zip(FLOATS, ("*fp32", "*fp16", "*bf16", "*fp8e4nv", "*fp8e5"), strict=True)),
}
ACCESS = re.compile(r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.[bfsu](\d+) ")


class OnGpu:
    """The context of the last rank of a group on a GPU that is not there: nothing is stored, and nobody waited for."""

    device, counts = torch.device("cuda"), ()

    def __init__(self, size: int) -> None:
        self.rank, self.size = size - 1, size

    def peer_addresses(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(self.size, dtype=torch.int64, device="meta")

    def barrier(self) -> None:
        pass


def call(kind: str, dtype: str, count: int, size: int) -> None:
    """Make a call in which every rank has a chunk of `count` elements, on tensors without memory."""
    context: Any = OnGpu(size)
    part, whole = (torch.empty(each, dtype=getattr(torch, dtype), device="meta") for each in (count, size * count))
    kernels = TritonCollectives()
    calls: dict[str, Callable[[], None]] = {
        "all_gather": lambda: kernels.all_gather(context, whole, part),
        "all_to_all": lambda: kernels.all_to_all(context, torch.empty_like(whole), whole),
        "broadcast": lambda: kernels.broadcast(context, torch.empty_like(part), part, context.rank),
        "reduce_scatter": lambda: kernels.reduce_scatter(context, part, whole, "sum"),
        "planted": lambda: SoundKernels().all_gather(context, whole, part),
        "all_reduce": lambda: kernels.all_reduce(context, torch.empty_like(part), part, "sum"),
    }
    calls[kind]()


def launched(*asked: tuple[str, str, int, int], compiled: bool = False) -> list[dict[str, Any]]:
    """For each call (kind, dtype, elements of a chunk, size): its grid, the bytes of a block and, if `compiled`, the
    accesses to global memory in each straight run of code, as (`ld` or `st`, bytes)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.tools.launches", json.dumps(asked), *(["--compile"] if compiled else [])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def ptx(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> str:
    """The code for H100 of a launch, specialized as Triton does it there: on the alignment of the table alone."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def kind(parameter: Any, value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return TYPES[value.dtype]
        return parameter.annotation_type or ("fp32" if isinstance(value, float) else "i32")

    given = zip(kernel.params, arguments, strict=False)
    signature = {each.name: kind(each, value) for each, value in given} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants, {(0,): [["tt.divisibility", 16]]})
    found: str = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": THREADS // 32}).asm[
        "ptx"
    ]
    return found


def accesses(code: str) -> list[list[tuple[str, int]]]:
    """Accesses to global memory of each straight run of code that has any."""
    runs: list[list[tuple[str, int]]] = [[]]
    for line in code.splitlines():
        if line.startswith("$L__BB"):
            runs.append([])
        elif found := ACCESS.search(line):
            runs[-1].append((found[1], int(found[2] or 1) * int(found[3]) // 8))
    return [run for run in runs if run]


def main() -> None:
    from triton.runtime.jit import JITFunction

    launches: list[tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = []
    JITFunction.__getitem__ = lambda kernel, grid: lambda *given, **more: launches.append((kernel, grid, given, more))
    for asked in json.loads(sys.argv[1]):
        launches.clear()
        call(*asked)
        ((kernel, grid, given, more),) = launches
        answer: dict[str, Any] = {"grid": grid, "block": more["BLOCK"] * getattr(torch, asked[1]).itemsize}
        if "--compile" in sys.argv:
            answer["runs"] = accesses(ptx(kernel, given, more))
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
