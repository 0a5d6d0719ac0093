"""Ctrl-C that is not lost.

Invariant: once Ctrl-C was pressed in `symm`, no further scenario is run, and the command ends as interrupted. Python
raises `KeyboardInterrupt` wherever it happens to be, and drops it where that is a finalizer or a callback of the
garbage collector (Hypothesis has one), with no more than a line on stderr; or what it interrupts fails over it, as
Hypothesis does in the middle of a draw.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 130
"""With which a command ends that was interrupted."""
WORDS = "symm: interrupted\n"

_signal = 0
"""The first signal that interrupted this process, once one has."""
_is_held = False


def leave_at_once() -> None:
    """End this process at Ctrl-C until `heed`, while there is nothing to clear up. By its main thread; one that ignores
    Ctrl-C, as a job in the background does, goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def heed() -> None:
    """Remember every Ctrl-C from now on, and take for one SIGTERM, with which `timeout` and runners end a job, and
    SIGHUP, with which a terminal goes. Local to this process, by its main thread; what it ignores, as SIGHUP under
    nohup, it goes on ignoring."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL, _leave):
            signal.signal(number, _press)
    sys.unraisablehook = _report


def check() -> None:
    """Raise `KeyboardInterrupt` if there was one that ought to have ended what this process does."""
    if _signal:
        raise KeyboardInterrupt


def has_come() -> bool:
    """Whether this process was interrupted."""
    return _signal != 0


@contextmanager
def held() -> Iterator[None]:
    """Under it, a signal is remembered and raises nothing: for showing what was found, which takes a moment. Runners
    that cancel a job send several."""
    global _is_held  # noqa: PLW0603
    _is_held = True
    try:
        yield
    finally:
        _is_held = False


def status() -> int:
    """With which an interrupted process ends: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (_signal or signal.SIGINT)


def _leave(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, WORDS.encode())
    finally:
        os._exit(STATUS)


def _press(number: int, _frame: FrameType | None) -> None:
    # Python runs a handler between two bytecodes of the main thread, so an exception may come up anywhere
    global _signal  # noqa: PLW0603  (a process is interrupted once)
    _signal = _signal or number
    if not _is_held:
        raise KeyboardInterrupt


def _report(dropped: sys.UnraisableHookArgs) -> None:
    """What Python could raise nowhere. Ctrl-C is left out, since `check` raises it later."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
