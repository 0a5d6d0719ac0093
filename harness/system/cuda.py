"""CUDA C++ for collectives: a `.cu` file, compiled at run time by NVRTC and launched on torch's current stream.

Invariant: nothing of CUDA is imported before something is compiled. A kernel is compiled once a process for each text,
architecture, options and name, and kept.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.errors import CompileError

STANDARD = "c++17"
EXTRA = "install the extra `cuda`, which brings cuda-core 1.0 or later"
KEPT = 1024
"""Kernels that a process keeps, and configurations of launches."""
WIDTHS = "?bBhHiIlLqQefdP"
"""What `struct`, numpy and ctypes call numbers of a width that CUDA C++ has too."""
ALIGNED = 16
"""Bytes: the strictest alignment of a kernel's argument."""
SETTING = Lock()
Kinds = tuple[type, ...]


class CudaSource:
    """The kernels of one file. Files that it includes lie beside it. NVRTC has no headers of CUDA or C++ by itself."""

    def __init__(self, path: str | Path, *options: str) -> None:
        """`options` are NVRTC's macros, such as `DEEP=4`. The file is read when a kernel is first asked for."""
        self._path, self._options = Path(path), options
        self._kernels: dict[tuple[str, int], _Kernel] = {}
        """By name and GPU."""
        self._ready: dict[tuple[str, Kinds], dict[int, _Launch]] = {}
        """What has been launched, by name and types of arguments, and then by GPU."""

    def launch(
        self,
        kernel: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared: int = 0,
        early: bool = False,
    ) -> None:
        """Enqueue a kernel on torch's current stream, also while that is captured. Local; does not wait.

        `kernel` names a function, such as `push`, or an instance of a template, such as `push<float>`. A kernel is
        compiled and loaded before its first launch, which no capture allows. `shared`: bytes of shared memory.

        `arguments` are copied. A tensor is passed as an address. A number of numpy or ctypes has a width: a plain int
        raises `TypeError`, and so do sizes that are not the kernel's. A structure, union or array of ctypes is passed
        by value: to a kernel, an array is a struct that holds it.

        `early`: the kernel may start before the one ahead of it on the stream has ended: once all blocks of that one
        have ended or executed `griddepcontrol.launch_dependents`. From sm_90 on. The kernel itself has to execute
        `griddepcontrol.wait` before it touches memory, as only then all work ahead is done and seen.

        Raises `CompileError` without a GPU or cuda-core, and with NVRTC's log where the file does not compile; and
        `RuntimeError` with the driver's name of the error where that refuses the launch.
        """
        kinds = (*map(type, arguments),)
        on = self._ready.get((kernel, kinds)) or self._prepared(kernel, kinds, arguments)
        # nothing asks torch for a GPU before something is loaded there
        device = torch._C._cuda_getDevice()
        ready = on.get(device) or self._prepared(kernel, kinds, arguments)[device]
        stream = torch._C._cuda_getCurrentRawStream(device)
        if error := ready.enqueue(_configured(grid, block, shared, stream, early), arguments, shared):
            raise RuntimeError(
                f"CUDA refuses kernel {kernel!r} of {self._path.name} on a grid of {grid} with blocks of {block} and "
                f"{shared} bytes of shared memory: {error.name}"
            )

    def kernel(self, name: str) -> Any:
        """cuda-core's kernel of that name for the current GPU: compiled, or the one that was. Local. Raises as `launch`
        does."""
        return self._found(name).kernel

    def _found(self, name: str) -> _Kernel:
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

    def _prepared(self, kernel: str, kinds: Kinds, arguments: tuple[Any, ...]) -> dict[int, _Launch]:
        """All that is ready for arguments of these types, with what the current GPU needs."""
        forms = [_form(kernel, place, each) for place, each in enumerate(arguments)]
        found = self._found(kernel)
        _match(kernel, found.kernel, [struct.calcsize(each.code) for each in forms])
        on = self._ready.setdefault((kernel, kinds), {})
        on[torch.cuda.current_device()] = _Launch(found, forms)
        return on

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


class _Form(NamedTuple):
    """How a value goes into a buffer: as a format of `struct`, and what that takes."""

    code: str
    taken: Callable[[Any], object] | None = None


def _form(kernel: str, place: int, argument: object) -> _Form:
    match argument:
        case torch.Tensor():
            return _Form("Q", torch.Tensor.data_ptr)
        case np.bool_() | np.integer() | np.floating() if argument.dtype.char in WIDTHS:
            return _Form(argument.dtype.char)
        case np.complexfloating() if argument.itemsize <= 16:
            return _Form(f"{argument.itemsize}s", np.generic.tobytes)
        case ctypes._SimpleCData() if argument._type_ in WIDTHS:  # type: ignore[attr-defined]
            return _Form(f"{ctypes.sizeof(argument)}s", bytes)
        case ctypes.Structure() | ctypes.Union() | ctypes.Array():
            return _Form(f"{ctypes.sizeof(argument)}s", bytes)
    raise TypeError(
        f"argument {place} of {kernel!r} is {argument!r}, and no tensor and no number of numpy or ctypes, nor a "
        "structure or array of ctypes"
    )


def _match(name: str, kernel: Any, given: list[int]) -> None:
    """Raise `TypeError` where a kernel takes arguments of other sizes: the driver would copy what lies behind them."""
    try:
        taken = [each.size for each in kernel.arguments_info]
    except NotImplementedError:  # a driver before CUDA 12.4
        return
    if given != taken:
        raise TypeError(f"arguments of {name!r} have {given} bytes, and the kernel takes {taken}")


class _Frame:
    """Memory for the arguments of one launch, and the list of pointers to them that the driver takes."""

    def __init__(self, nbytes: int, places: list[int]) -> None:
        self.values = ctypes.create_string_buffer(nbytes)
        begin = ctypes.addressof(self.values)
        self._pointers = (ctypes.c_void_p * len(places))(*(begin + place for place in places))
        self.pointers = ctypes.addressof(self._pointers)


class _Launch:
    """Launches of one kernel with arguments of the same types."""

    def __init__(self, kernel: _Kernel, forms: list[_Form]) -> None:
        from cuda.bindings import driver  # noqa: PLC0415  (only where kernels run)

        self._kernel, self._launch = kernel, driver.cuLaunchKernelEx
        sizes = [-(-struct.calcsize(each.code) // ALIGNED) * ALIGNED for each in forms]
        self._places = [0, *accumulate(sizes)]
        gaps = [size - struct.calcsize(each.code) for each, size in zip(forms, sizes, strict=True)]
        self._pack = struct.Struct("".join(f"{each.code}{gap}x" for each, gap in zip(forms, gaps, strict=True)))
        self._taken = [(place, each.taken) for place, each in enumerate(forms) if each.taken is not None]
        self._frames: list[_Frame] = []
        """Those that no launch uses: a thread takes one, as the driver runs without the interpreter's lock."""

    def enqueue(self, config: Any, arguments: tuple[Any, ...], shared: int) -> Any:
        """Returns the driver's error, which is false where there is none."""
        if shared > self._kernel.shared and (error := self._kernel.allow(shared)):
            return error
        values = [*arguments]
        for place, taken in self._taken:
            values[place] = taken(values[place])
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame(self._places[-1], self._places[:-1])
        self._pack.pack_into(frame.values, 0, *values)
        (error,) = self._launch(config, self._kernel.function, frame.pointers, 0)
        self._frames.append(frame)  # the driver has copied them
        return error


class _Kernel:
    """A kernel that is loaded on one GPU: cuda-core's, and the driver's function."""

    def __init__(self, kernel: Any) -> None:
        """Its GPU is the current one."""
        from cuda.bindings import driver  # noqa: PLC0415

        self.kernel = kernel
        error, self.function = driver.cuKernelGetFunction(int(kernel.handle))
        if error:
            raise RuntimeError(f"CUDA cannot load a kernel: {error.name}")
        self.shared = 0
        """Bytes of shared memory that launches may ask for by now."""

    def allow(self, shared: int) -> Any:
        """Let launches ask for so much. By default the driver lets them have 48 KiB, less what the kernel has of its
        own. Returns the driver's error."""
        from cuda.bindings import driver  # noqa: PLC0415

        most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with SETTING:
            if shared <= self.shared:
                return None
            (error,) = driver.cuFuncSetAttribute(self.function, most, shared)
            if not error:
                self.shared = shared
        return error


@lru_cache(KEPT)
def _configured(
    grid: int | tuple[int, ...], block: int | tuple[int, ...], shared: int, stream: int, early: bool
) -> Any:
    """The driver's configuration of launches, which it only reads."""
    from cuda.bindings import driver  # noqa: PLC0415

    made = driver.CUlaunchConfig()
    made.gridDimX, made.gridDimY, made.gridDimZ = _three(grid)
    made.blockDimX, made.blockDimY, made.blockDimZ = _three(block)
    made.sharedMemBytes, made.hStream = shared, driver.CUstream(stream)
    if early:
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        made.attrs, made.numAttrs = [attribute], 1
    return made


def _three(size: int | tuple[int, ...]) -> tuple[int, ...]:
    """Of one, two or three dimensions; the driver's fields take no more."""
    given = size if isinstance(size, tuple) else (size,)
    return given + (1,) * (3 - len(given))


@lru_cache(KEPT)
def _loaded(path: Path, text: str, options: tuple[str, ...], name: str, arch: str, device: int) -> _Kernel:
    from cuda.core import Device  # noqa: PLC0415

    made = _compiled(path, text, options, name, arch)
    Device(device).set_current()
    return _Kernel(made.get_kernel(name))


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
