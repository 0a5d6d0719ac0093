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
from types import FrameType

STATUS = 130
"""With which a command ends that was interrupted."""
WORDS = "symm: interrupted\n"

_pressed = False


def leave_at_once() -> None:
    """End this process at Ctrl-C until `heed`, while there is nothing to clear up. By its main thread; one that ignores
    Ctrl-C, as a job in the background does, goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def heed() -> None:
    """Remember every Ctrl-C from now on. Local to this process, by its main thread; one that ignores Ctrl-C goes on
    ignoring it."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _leave):
        signal.signal(signal.SIGINT, _press)
        sys.unraisablehook = _report


def check() -> None:
    """Raise `KeyboardInterrupt` if there was one that ought to have ended what this process does."""
    if _pressed:
        raise KeyboardInterrupt


def _leave(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, WORDS.encode())
    finally:
        os._exit(STATUS)


def _press(_number: int, _frame: FrameType | None) -> None:
    global _pressed  # noqa: PLW0603  (a process has one Ctrl-C)
    _pressed = True
    raise KeyboardInterrupt


def _report(dropped: sys.UnraisableHookArgs) -> None:
    """What Python could raise nowhere; of Ctrl-C, which `check` raises later, nothing is said."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
