"""CUDA C++ for collectives: a `.cu` file, compiled at run time by NVRTC and launched on torch's current stream.

Invariant: nothing of CUDA is imported before something is compiled. A kernel is compiled once a process for each text,
architecture, options and name, and kept.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import CompileError

STANDARD = "c++17"
EXTRA = "install the extra `cuda`, which brings cuda-core 1.0 or later"
KEPT = 1024
"""Kernels that a process keeps."""


class CudaSource:
    """The kernels of one file. Files that it includes lie beside it. NVRTC has no headers of CUDA or C++ by itself."""

    def __init__(self, path: str | Path, *options: str) -> None:
        """`options` are NVRTC's macros, such as `DEEP=4`. The file is read when a kernel is first asked for."""
        self._path, self._options = Path(path), options
        self._kernels: dict[tuple[str, int], Any] = {}
        """By name and GPU."""

    def launch(
        self, kernel: str, grid: int | tuple[int, ...], block: int | tuple[int, ...], *arguments: Any, shared: int = 0
    ) -> None:
        """Enqueue a kernel on torch's current stream, also while that is captured. Local; does not wait.

        `kernel` names a function, such as `push`, or an instance of a template, such as `push<float>`. A kernel is
        compiled and loaded before its first launch, which no capture allows. `arguments` are tensors, which are passed
        as addresses, and numbers of numpy or ctypes, which have a width: a plain int raises `TypeError`. `shared`:
        bytes of shared memory. Raises `CompileError` without a GPU or cuda-core, and with NVRTC's log where the file
        does not compile.
        """
        given, found = [_given(kernel, place, each) for place, each in enumerate(arguments)], self.kernel(kernel)
        from cuda.core import launch  # noqa: PLC0415  (only where kernels run)

        launch(_Current(), _configured(grid, block, shared), found, *given)

    def kernel(self, name: str) -> Any:
        """cuda-core's kernel of that name for the current GPU: compiled, or the one that was. Local. Raises as `launch`
        does."""
        if not (torch.cuda.is_initialized() or torch.cuda.is_available()):  # type: ignore[no-untyped-call]
            raise CompileError(
                f"kernel {name!r} of {self._path.name} needs a GPU, and torch has none here; the simulation runs "
                "what the class of the collectives names as its `fallback`"
            )
        device = torch.cuda.current_device()
        if (found := self._kernels.get((name, device))) is None:
            major, minor = torch.cuda.get_device_capability(device)
            found = self._kernels[name, device] = _loaded(*self._key(name, f"sm_{major}{minor}"), device)
        return found

    def compiled(self, name: str, arch: str) -> bytes:
        """The machine code (cubin) of a kernel for an architecture, such as `sm_90`. Needs no GPU. Local. Raises
        `CompileError` without cuda-core or NVRTC, and with NVRTC's log where the file does not compile."""
        code: bytes = _compiled(*self._key(name, arch)).code
        return code

    def _key(self, name: str, arch: str) -> tuple[Path, str, tuple[str, ...], str, str]:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CompileError(f"CUDA source {str(self._path)!r} cannot be read: {error}") from None
        return self._path, text, self._options, name, arch


@lru_cache(KEPT)
def _configured(grid: int | tuple[int, ...], block: int | tuple[int, ...], shared: int) -> Any:
    from cuda.core import LaunchConfig  # noqa: PLC0415

    return LaunchConfig(grid=grid, block=block, shmem_size=shared)


class _Current:
    """torch's current stream, as cuda-core asks for it."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, torch.cuda.current_stream().cuda_stream


def _given(kernel: str, place: int, argument: object) -> object:
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    if isinstance(argument, np.generic | ctypes._SimpleCData):
        return argument
    raise TypeError(f"argument {place} of {kernel!r} is {argument!r}, and no tensor and no number of numpy or ctypes")


@lru_cache(KEPT)
def _loaded(path: Path, text: str, options: tuple[str, ...], name: str, arch: str, device: int) -> Any:
    from cuda.core import Device  # noqa: PLC0415

    made = _compiled(path, text, options, name, arch)
    Device(device).set_current()
    return made.get_kernel(name)


@lru_cache(KEPT)
def _compiled(path: Path, text: str, options: tuple[str, ...], name: str, arch: str) -> Any:
    try:
        from cuda.core import Program, ProgramOptions  # noqa: PLC0415
        from cuda.pathfinder import DynamicLibNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise CompileError(f"{path.name} is CUDA C++, and nothing compiles it: {EXTRA} ({error})") from None
    asked = ProgramOptions(
        name=str(path), arch=arch, std=STANDARD, define_macro=list(options) or None, include_path=str(path.parent)
    )
    try:
        return Program(text, "c++", asked).compile("cubin", name_expressions=(name,))
    except DynamicLibNotFoundError:
        raise CompileError(f"{path.name} is CUDA C++, and NVRTC, which compiles it, is not found") from None
    except Exception as error:  # cuda-core's error has NVRTC's log, which names files and lines
        raise CompileError(f"{path.name} does not compile for {arch} with kernel {name!r}:\n{_log(error)}") from None


def _log(error: BaseException) -> str:
    return str(error).replace("\\n", "\n").strip()
