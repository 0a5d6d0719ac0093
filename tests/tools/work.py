"""Work that does not depend on the machine: how many bytecodes of the harness a call runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import harness

OURS = str(Path(harness.__file__).parent)


def bytecodes(call: Callable[[], object]) -> int:
    """How many bytecodes of modules of `harness` run in a call. What libraries and built-in functions do inside is
    not counted."""
    ran = 0

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal ran
        if event == "call":
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            ran += 1
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        call()
    finally:
        sys.settrace(before)
    return ran
