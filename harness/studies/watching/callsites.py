"""Where a program makes calls: the one frame of a stack that says most, and what was seen there."""

from __future__ import annotations

import re

FRAME = re.compile(r"^(?P<path>.*/)?(?P<file>[^/]+):(?P<line>\d+) (?P<function>.+)$")
LIBRARIES = re.compile(r"/(torch|nccl|ctypes|contextlib|triton)(/|\.py)")
"""Paths of code that passes a call on."""


def place_of(site: str) -> str:
    """Such as `model.py:31 forward`: the innermost frame of a stack that is none of PyTorch or a binding; or else the
    innermost; empty for a call without a stack."""
    frames = [frame for frame in site.splitlines() if frame]
    own = [frame for frame in frames if not LIBRARIES.search(frame)]
    return FRAME.sub(r"\g<file>:\g<line> \g<function>", next(iter([*own, *frames]), ""))
