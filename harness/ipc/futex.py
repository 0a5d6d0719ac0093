"""Sleeping until a word of shared memory changes: Linux futexes, through `syscall(2)`.

Invariant: no sleeper misses a change that came before its call, since the kernel compares the word first (futex(2)). A
writer of a word wakes its sleepers. Waits are bounded, so a missed wake costs `PATIENCE` and never a hang.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from functools import cache

WAIT, WAKE = 0, 1
ALL_SLEEPERS = 1 << 30
ANSWERS = (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)
"""The word had changed, a signal came, the time was over."""
PATIENCE = 0.1
"""Seconds after which a sleeper looks again, woken or not."""
NUMBER = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
"""The system call, where it is known; elsewhere a wait is a yield."""
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@cache
def _time(seconds: float) -> _Time:
    whole = int(seconds)
    return _Time(whole, int((seconds - whole) * 1e9))


def wait(address: int, seen: int, patience: float = PATIENCE) -> None:
    """Sleep until the word at `address` is woken, if its lowest 32 bits are still those of `seen`. Returns after
    `patience` seconds at the latest, and may return early."""
    if NUMBER is None:
        os.sched_yield()
        return
    # a futex is 32 bits wide whatever the machine's word, and x86-64 and aarch64 keep the low half first
    low = ctypes.c_uint32(seen & 0xFFFFFFFF)
    refused = _syscall(NUMBER, ctypes.c_void_p(address), WAIT, low, ctypes.byref(_time(patience)), None, 0)
    if refused and ctypes.get_errno() not in ANSWERS:  # a seccomp filter of a container may refuse the call
        os.sched_yield()


def wake(address: int) -> None:
    """Wake every sleeper at `address`, in any process that maps the memory."""
    if NUMBER is not None:
        # without FUTEX_PRIVATE_FLAG: sleepers of other processes are found by the page, not by the address (futex(2))
        _syscall(NUMBER, ctypes.c_void_p(address), WAKE, ALL_SLEEPERS, None, None, 0)
