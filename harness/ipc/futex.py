"""Sleeping until a word of shared memory changes: Linux futexes, through `syscall(2)`.

Invariant: nobody sleeps through a change that came before the call, since the kernel compares the word first. Whoever
changes a word wakes its sleepers. Waits are bounded, so a lost wake costs `PATIENCE` and never a hang.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

WAIT, WAKE = 0, 1
EVERYONE = 1 << 30
ANSWERS = (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)
"""The word had changed, a signal came, nobody woke the sleeper."""
PATIENCE = 0.1
"""Seconds after which a sleeper looks again, woken or not."""
_NUMBER = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
"""Of the system call, where it is known; elsewhere a wait is a yield."""
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_patience = _Time(0, int(PATIENCE * 1e9))


def wait(address: int, seen: int) -> None:
    """Sleep until the word at `address` is woken, if its lowest 32 bits are still those of `seen`. May return early."""
    if _NUMBER is None:
        os.sched_yield()
        return
    low = ctypes.c_uint32(seen & 0xFFFFFFFF)
    refused = _syscall(_NUMBER, ctypes.c_void_p(address), WAIT, low, ctypes.byref(_patience), None, 0)
    if refused and ctypes.get_errno() not in ANSWERS:  # as where a container does not allow the call
        os.sched_yield()


def wake(address: int) -> None:
    """Wake everybody who sleeps at `address`, in any process that maps the memory."""
    if _NUMBER is not None:
        _syscall(_NUMBER, ctypes.c_void_p(address), WAKE, EVERYONE, None, None, 0)
