"""What NCCL says of its own calls, read from the profiler plug-in of `harness.machine.profiler`.

Invariant: a word belongs to the call that it is read for: it came after that call was issued, and names its function.
"""

from __future__ import annotations

import ctypes
import os

from harness.machine.profiler import VARIABLE

LONGEST = 32
FUNCTIONS = ("AllGather", "ReduceScatter", "AllReduce", "AlltoAll")


class Call(ctypes.Structure):
    """One collective as NCCL started it. The layout is that of `struct call` in `harness/machine/profiler.c`."""

    _fields_ = (
        ("send", ctypes.c_uint64),
        ("receive", ctypes.c_uint64),
        ("channels", ctypes.c_int32),
        ("is_symmetric", ctypes.c_int32),
        ("is_by_copy_engine", ctypes.c_int32),
        ("function", ctypes.c_char * LONGEST),
        ("algorithm", ctypes.c_char * LONGEST),
        ("protocol", ctypes.c_char * LONGEST),
        ("kernel", ctypes.c_char * LONGEST),
    )

    @property
    def path(self) -> str:
        """The path that it took, in the words of a trace."""
        return "copy engine" if self.is_by_copy_engine else "symmetric" if self.is_symmetric else "legacy"

    def __str__(self) -> str:
        """Such as `AllGather_LL` for a symmetric kernel, `AllGather RING LL` for another, or `AllGather by copy
        engines`."""
        if self.is_by_copy_engine:
            return f"{self.function.decode()} by copy engines"
        if self.is_symmetric:
            return str(self.kernel.decode())
        return " ".join(word.decode() for word in (self.function, self.algorithm, self.protocol))


class Calls:
    """The calls of this process. Made before NCCL loads its plug-ins, with its path in the environment."""

    def __init__(self) -> None:
        # NCCL loads the same path later, and so the same library.
        self._library = ctypes.CDLL(os.environ[VARIABLE])
        self._library.symm_calls_written.restype = ctypes.c_uint64
        self._library.symm_calls_read.argtypes = (ctypes.c_uint64, ctypes.POINTER(Call))

    @property
    def written(self) -> int:
        """How many calls NCCL has told of."""
        return int(self._library.symm_calls_written())

    def last_since(self, before: int) -> Call | None:
        """The last collective of ours that NCCL told of after the first `before`; None if it told of none."""
        for number in range(self.written - 1, before - 1, -1):
            call = Call()
            if self._library.symm_calls_read(number, call) and call.function.decode() in FUNCTIONS:
                return call
        return None
