"""What NCCL tells its profiler plug-in, played: the descriptors of version 7, as NCCL 2.31 and 2.32 lay them out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

COLLECTIVE, COPY_ENGINE = 2, 1 << 12


class Started(ctypes.Structure):
    """A collective that NCCL starts."""

    _fields_ = (
        ("type", ctypes.c_uint64),
        ("parent", ctypes.c_void_p),
        ("rank", ctypes.c_int),
        ("sequence", ctypes.c_uint64),
        ("function", ctypes.c_char_p),
        ("send", ctypes.c_void_p),
        ("receive", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
        ("root", ctypes.c_int),
        ("datatype", ctypes.c_char_p),
        ("channels", ctypes.c_uint8),
        ("warps", ctypes.c_uint8),
        ("algorithm", ctypes.c_char_p),
        ("protocol", ctypes.c_char_p),
        ("parent_group", ctypes.c_void_p),
        ("kernel", ctypes.c_char_p),
        ("is_symmetric", ctypes.c_bool),
    )


class Plugin(ctypes.Structure):
    """The functions that NCCL finds under `ncclProfiler_v7`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("initialize", "start", "stop", "record_state", "finalize")),
    )


def symmetric(function: bytes = b"AllGather", kernel: bytes = b"AllGather_ST") -> Started:
    return Started(type=COLLECTIVE, function=function, algorithm=b"ST", kernel=kernel, channels=4, is_symmetric=True)


def legacy(function: bytes = b"AllGather") -> Started:
    return Started(type=COLLECTIVE, function=function, algorithm=b"RING", protocol=b"LL", kernel=b"-")


class Player:
    """NCCL's side of the plug-in at `path`."""

    def __init__(self, path: str) -> None:
        self._plugin = Plugin.in_dll(ctypes.CDLL(path), "ncclProfiler_v7")
        self.mask, self._context = ctypes.c_int(0), ctypes.c_void_p()
        number = ctypes.c_int
        create = self._function("initialize", *[ctypes.c_void_p] * 4, number, number, number, ctypes.c_void_p)
        assert create(ctypes.byref(self._context), 7, ctypes.byref(self.mask), None, 1, 2, 0, None) == 0

    def tell(self, event: Started) -> None:
        """Start a collective, and stop it."""
        handle = ctypes.c_void_p()
        begin = self._function("start", *[ctypes.c_void_p] * 3)
        assert begin(self._context, ctypes.byref(handle), ctypes.byref(event)) == 0
        assert self._function("stop", ctypes.c_void_p)(handle) == 0

    def _function(self, name: str, *takes: Any) -> Callable[..., int]:
        return ctypes.CFUNCTYPE(ctypes.c_int, *takes)(getattr(self._plugin, name))
