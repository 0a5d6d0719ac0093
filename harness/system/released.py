"""What adapters of released engines share: single files of an installed package, and the libraries that they build.

Invariant: no package is imported. A file is executed anew for each draw, as engines keep their state in globals, and
what it found in `sys.modules` is there again afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed

from harness.errors import PluginError
from harness.substrate.nccl import linking
from harness.system.context import GroupId, ProcessGroup
from harness.system.executed import remember

__all__ = ["Backends", "Package", "allocator", "building"]


class Package:
    """Files of an installed package. `stand_ins` gives, for each module that they import and that is not to be
    executed, the names that they take from it."""

    def __init__(self, stand_ins: Mapping[str, Mapping[str, object]]) -> None:
        self._modules = {name: _module(name, attributes) for name, attributes in stand_ins.items()}

    def load(self, name: str) -> ModuleType:
        """Execute the file of a module. It stands in for itself when a later one imports it.

        Raises `PluginError` where the package is not installed, or has no such file.
        """
        path = _file(name)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with patch.dict(sys.modules, {**_parents({*self._modules, name}), **self._modules, name: module}):
            spec.loader.exec_module(module)
        self._modules[name] = module
        remember(module)
        return module


@contextmanager
def building() -> Iterator[None]:
    """Under it, `torch.utils.cpp_extension.load_inline` builds a library once for the same sources, whatever process
    asks, and the compiler finds NCCL. Other processes wait meanwhile."""
    with _same_path():
        from torch.utils import cpp_extension  # noqa: PLC0415  (seconds, and only engines need it)
    with patch.object(cpp_extension, "load_inline", _once(cpp_extension.load_inline)):
        yield


@contextmanager
def _same_path() -> Iterator[None]:
    """Under it, what is imported does not change where modules are looked for, as setuptools does: ranks whose draw
    changed that are replaced."""
    before = [*sys.path]
    try:
        yield
    finally:
        sys.path[:] = before


@cache
def allocator() -> Any:
    """For `torch.cuda.MemPool`: segments from `ncclMemAlloc`, called as a library of an engine would. One a process."""
    library = ctypes.CDLL("libnccl.so.2")
    library.ncclMemAlloc.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.ncclMemFree.argtypes = (ctypes.c_void_p,)

    def allocate(size: int, device: int, stream: int) -> int | None:
        address = ctypes.c_void_p()
        return None if library.ncclMemAlloc(ctypes.byref(address), size) else address.value

    def free(address: int, size: int, device: int, stream: int) -> None:
        library.ncclMemFree(address)

    place, size, device = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    _callbacks.append(ctypes.CFUNCTYPE(place, size, device, place)(allocate))
    _callbacks.append(ctypes.CFUNCTYPE(None, place, size, device, place)(free))
    taken, given = (ctypes.cast(each, place).value or 0 for each in _callbacks)
    return torch._C._cuda_customAllocator(taken, given)


_callbacks: list[Any] = []
"""C code holds no reference to them."""


class Backends:
    """PyTorch's ProcessGroupNCCL of each group of a draw, with a communicator of its own. `leave` is called with a
    group's id and what is about to be shut down."""

    def __init__(self, device: torch.device, leave: Callable[[GroupId, Any], None]) -> None:
        self._device, self._leave = device, leave
        self._made: dict[GroupId, tuple[int, Any]] = {}

    def of(self, group: ProcessGroup) -> Any:
        """That of a group, made at its first use and after a `recreate` step. Collective over the group then."""
        generation, backend = self._made.get(group.id, (-1, None))
        if generation == group.generation:
            return backend
        self._shut_down(group.id)
        agreed = group.exchange(os.getpid() << 24 | next(_meetings))[0]
        store = distributed.FileStore(  # type: ignore[attr-defined]
            str(Path(gettempdir(), f"symm-{agreed:x}")), len(group.ranks)
        )
        options = distributed.ProcessGroupNCCL.Options()
        made = distributed.ProcessGroupNCCL(store, group.rank, len(group.ranks), options)
        made.eager_connect_single_device(self._device)
        self._made[group.id] = group.generation, made
        return made

    def close(self) -> None:
        """Shut all of them down. Collective over their groups."""
        for ident in [*self._made]:
            self._shut_down(ident)

    def _shut_down(self, ident: GroupId) -> None:
        if ident in self._made:
            _, backend = self._made.pop(ident)
            self._leave(ident, backend)
            backend.shutdown()


_meetings = count()


def _module(name: str, attributes: Mapping[str, object]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


def _parents(names: set[str]) -> dict[str, ModuleType]:
    """Empty packages for the modules, so that Python looks for no real one."""
    parts = [name.split(".") for name in sorted(names)]
    found = {".".join(each[:length]) for each in parts for length in range(1, len(each))}
    return {name: _module(name, {"__path__": []}) for name in sorted(found)}


def _file(name: str) -> Path:
    top, *inside = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise PluginError(f"package {top!r} is not installed")
    places = [Path(folder, *inside).with_suffix(".py") for folder in spec.submodule_search_locations or ()]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise PluginError(f"package {top!r}{_version(top)} has no {'/'.join(inside)}.py")
    return found


def _version(top: str) -> str:
    names = metadata.packages_distributions().get(top, ())
    return f" {metadata.version(names[0])}" if names else ""


def _once(build: Callable[..., Any]) -> Callable[..., Any]:
    """`load_inline`, for who asks again."""

    def load_inline(name: str, *, build_directory: str, is_python_module: bool = True, **given: Any) -> Any:
        folder = Path(build_directory)
        made, stamp = folder / f"{name}.so", folder / f"{name}.built"
        decisive = sorted((word, repr(value)) for word, value in given.items() if word != "verbose")
        words = (name, torch.__version__, sys.version, *decisive)
        key = hashlib.sha256(repr(words).encode()).hexdigest()
        with _locked(folder / f"{name}.waiting"):
            if not made.exists() or not stamp.exists() or stamp.read_text() != key:
                apart = _emptied(folder / f"{name}.building")
                with patch.dict(os.environ, linking.variables()):
                    build(name=name, build_directory=str(apart), is_python_module=is_python_module, **given)
                os.replace(next(apart.glob("*.so")), made)
                stamp.write_text(key)
        return _python_module(name, made) if is_python_module else str(made)

    return load_inline


def _emptied(folder: Path) -> Path:
    """A folder that has torch's own lock for itself. An engine removes the one in its folder as a leftover, though
    another process may build there and hold it (SGLang 0.5.23, `get_nccl_mem_pool`)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _python_module(name: str, path: Path) -> ModuleType:
    """An extension module, once a process: its statics stay, whoever asks again."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
