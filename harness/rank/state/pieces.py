"""The pieces of a process that a draw could leave changed, and how each is read.

Invariant: reading changes nothing, and takes some tens of microseconds for all of them. Pieces that change by
themselves are left out: modules that are imported, native threads of torch and OpenMP, and on GPUs the descriptors of
CUDA and NCCL. What a piece is read with is bound before a plug-in is loaded.
"""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import sys
import threading
import warnings

# `signal` makes an enum of each answer, which takes ten times as long
from _signal import getsignal, pthread_sigmask  # type: ignore[import-not-found]
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from ctypes import CDLL, POINTER, c_char_p
from itertools import takewhile
from os import close, dup, fsdecode, fstat, getcwd, getpriority, listdir, sched_getaffinity, stat, umask
from resource import getrlimit
from signal import SIG_BLOCK, getitimer
from sys import _current_frames, getprofile, getrecursionlimit, getswitchinterval, gettrace
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    WrapperDescriptorType,
)
from typing import Any

import torch

Value = object
Read = Callable[[], Value]
_COMPARED_BY_PYTHON = {
    *(BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType, ModuleType, WrapperDescriptorType),
    *(NoneType, io.TextIOWrapper, int, str, type),
}
"""Types whose `==` no plug-in can have written."""

_COMPILERS = (b"TORCHINDUCTOR_", b"TRITON_CACHE_DIR=")
_ENVIRONMENT = POINTER(c_char_p).in_dll(CDLL(None), "environ")
_LIMITS = {
    getattr(resource, f"RLIMIT_{name}"): name
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
}
_SIGNALS = {number: signal.Signals(number).name for number in range(1, 32)}
_TIMERS = {signal.ITIMER_REAL: "real", signal.ITIMER_VIRTUAL: "virtual", signal.ITIMER_PROF: "profiling"}
_function_modes, _dispatch_modes = torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack
_threads, _interop_threads = torch.get_num_threads, torch.get_num_interop_threads
_has_grad, _is_inference = torch.is_grad_enabled, torch.is_inference_mode_enabled
_is_deterministic, _is_filling = (
    torch._C._get_deterministic_algorithms,
    torch._C._get_deterministic_fill_uninitialized_memory,
)
_is_warning_only = torch._C._get_deterministic_algorithms_warn_only
_matmul_precision, _allows_tf32 = torch._C._get_float32_matmul_precision, torch._C._get_cudnn_allow_tf32
_CPU = torch.device("cpu")
_TINY = sys.float_info.min


def of_process(start: str) -> dict[str, Read]:
    """The pieces that every rank has, by name. `start` is the working directory of a rank that begins."""

    def module_path() -> Value:
        # `harness.system.loading` puts the working directory there itself
        return tuple(held(place) for place in sys.path if type(place) is not str or place != start)

    return {
        "working directory": getcwd,
        "umask": _umask,
        "environment": _environment,
        "resource limits": lambda: dict(zip(_LIMITS.values(), map(getrlimit, _LIMITS), strict=True)),
        "priority": lambda: getpriority(os.PRIO_PROCESS, 0),
        "processors": lambda: sorted(sched_getaffinity(0)),
        "timers": lambda: {name: _armed(*getitimer(which)) for which, name in _TIMERS.items()},
        "signal handlers": lambda: dict(zip(_SIGNALS.values(), map(held, map(getsignal, _SIGNALS)), strict=True)),
        "blocked signals": lambda: frozenset(pthread_sigmask(SIG_BLOCK, ())),
        "standard streams": lambda: (*map(held, (sys.stdin, sys.stdout, sys.stderr)), _file(1), _file(2)),
        "threads": lambda: frozenset(_current_frames()),
        "garbage collector": _garbage_collector,
        "trace functions": lambda: {"trace": held(gettrace()), "profile": held(getprofile()), **_of_new_threads()},
        "limits of Python": lambda: {"recursion": getrecursionlimit(), "switch interval": getswitchinterval()},
        "hooks": _hooks,
        "module path": module_path,
        # others are added by what imports on first use, and change what is printed alone
        "warnings that raise": lambda: tuple(_filter(known) for known in warnings.filters if known[0] == "error"),
        "floating point": _floating_point,
        **_OF_TORCH,
    }


class Held:
    """An object of a plug-in, which is equal to itself alone: its own `==` may raise, or give a tensor."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def held(value: Any) -> Value:
    """What stands for any object in a piece, so that it can be compared."""
    return value if type(value) in _COMPARED_BY_PYTHON else Held(value)


def _filter(known: tuple[Any, ...]) -> Value:
    """What a filter of warnings matches: the pattern of a message, if any, and a category."""
    return tuple(held(getattr(each, "pattern", each)) for each in known[1:3])


def _umask() -> str:
    # there is no call that reads it alone, and /proc/self/status takes fifty times as long
    mask = umask(0)
    umask(mask)
    return f"{mask:#05o}"


def _environment() -> Variables:
    """As C code sees it, and so NCCL. Without what torch's compiler sets for itself when it is first imported."""
    known = (each for each in takewhile(bool, iter(_ENVIRONMENT)) if not each.startswith(_COMPILERS))
    return Variables(sorted(known))  # one that is taken out and put back comes last, and is no change


class Variables(tuple[bytes, ...]):
    """Variables as the system holds them, which are taken apart only where they differ."""

    def as_mapping(self) -> Mapping[str, str]:
        parts = (each.partition(b"=") for each in self)
        return {fsdecode(name): fsdecode(value) for name, _, value in parts}


def _armed(seconds: float, interval: float) -> str:
    """A timer's state, without the time that is left, which never is the same."""
    return "off" if not seconds else f"every {interval:g} s" if interval else "armed"


def _file(fd: int) -> Value:
    found = fstat(fd)
    return "descriptor", fd, "file", found.st_ino, "device", found.st_dev


class _Descriptors:
    """The numbers that are open. They are listed where their count, or the lowest that is free, is another."""

    def __init__(self) -> None:
        self._sign: tuple[int, int] = (0, 0)
        self._open: frozenset[str] = frozenset()

    def read(self) -> Value:
        lowest = dup(2)
        close(lowest)
        sign = stat("/proc/self/fd").st_size, lowest  # before Linux 6.2 the size is 0
        if sign != self._sign or not sign[0]:
            # the listing itself has the lowest number
            self._sign, self._open = sign, frozenset(listdir("/proc/self/fd")) - {str(lowest)}
        return self._open


def _garbage_collector() -> Value:
    return {
        "on": gc.isenabled(),
        "thresholds": gc.get_threshold(),
        "debug": gc.get_debug(),
        "callbacks": tuple(map(held, gc.callbacks)),
    }


def _of_new_threads() -> Mapping[str, Value]:
    return {
        "trace of new threads": held(threading.gettrace()),
        "profile of new threads": held(threading.getprofile()),
    }


def _hooks() -> Value:
    return {
        "excepthook": held(sys.excepthook),
        "unraisablehook": held(sys.unraisablehook),
        "displayhook": held(sys.displayhook),
        "breakpointhook": held(sys.breakpointhook),
        "threading.excepthook": held(threading.excepthook),
    }


def _floating_point() -> Value:
    """How this thread's processor rounds: a library may have set its flags for good."""
    return {"keeps denormals": _TINY / 2 > 0.0, "rounds up": _TINY + 1.0 > 1.0, "rounds down": 1.0 - _TINY < 1.0}


class _Registered:
    """Kernels that Python has registered for operators of torch itself, such as `aten/clone/CPU`.

    They are listed where their number is another. Libraries have operators of their own, and may register those late.
    """

    def __init__(self) -> None:
        self._every: AbstractSet[str] = getattr(torch.library, "_impls", frozenset())
        self._count = -1
        self._of_torch: frozenset[str] = frozenset()

    def read(self) -> Value:
        if len(self._every) != self._count:
            self._count = len(self._every)
            self._of_torch = frozenset(each for each in self._every if each.startswith("aten/"))
        return self._of_torch


_OF_TORCH: dict[str, Read] = {
    "default dtype": torch.get_default_dtype,
    # `torch.set_default_device` enters a mode for good, as a context that is left open does
    "open modes": lambda: {"function": _function_modes(), "dispatch": _dispatch_modes()},
    "default device": lambda: torch.get_default_device() if _function_modes() else _CPU,
    "torch's threads": lambda: {"in an operator": _threads(), "between operators": _interop_threads()},
    "grad mode": lambda: {"grad": _has_grad(), "inference": _is_inference(), "anomaly": torch.is_anomaly_enabled()},
    "autocast": lambda: {"cpu": torch.is_autocast_enabled("cpu"), "cuda": torch.is_autocast_enabled("cuda")},
    "deterministic algorithms": lambda: {
        "on": _is_deterministic(),
        "warns only": _is_warning_only(),
        "fills memory": _is_filling(),
    },
    "kernels of operators": _Registered().read,
    "precision": lambda: {"matmul": _matmul_precision(), "tf32": _allows_tf32()},
}

OF_SIMULATION: dict[str, Read] = {"descriptors": _Descriptors().read}
"""On GPUs, CUDA and NCCL open and close descriptors when they like."""

OF_GPU: dict[str, Read] = {
    "current GPU": torch.cuda.current_device,
    "current stream": lambda: torch.cuda.current_stream().stream_id,
}
