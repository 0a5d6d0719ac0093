"""Where a program makes calls: the frames of a stack that say most."""

from __future__ import annotations

import re
from functools import cache

FRAME = re.compile(r"^(?P<path>.*/)?(?P<file>[^/]+):(?P<line>\d+) (?P<function>.+)$")
PASSED_ON = re.compile(r"/(torch|nccl|ctypes|contextlib|triton)(/|\.py)|^<frozen | ([^ ]*\.)?nccl[A-Z]\w*$")
"""Frames of code that passes a call on: PyTorch, bindings, and functions that bear the name of one of NCCL's."""


@cache
def place_of(site: str) -> str:
    """Such as `model.py:31 forward`: the innermost frame of a stack that does not pass a call on; or else the
    innermost; empty for a call without a stack. Where another file called that one, `from` and the place there:
    a program may have one function for all its calls."""
    frames = [frame for frame in site.splitlines() if frame]
    own = [frame for frame in frames if not PASSED_ON.search(frame)]
    inner = next(iter([*own, *frames]), "")
    outer = next((frame for frame in own if _file(frame) != _file(inner)), "")
    return _short(inner) + (f" from {_short(outer)}" if outer else "")


def _file(frame: str) -> str:
    return frame.rpartition(":")[0]


def _short(frame: str) -> str:
    return FRAME.sub(r"\g<file>:\g<line> \g<function>", frame)
