"""Stands in for `torch` in programs without a GPU: a caching allocator's memory history, and what tells it of blocks.

Times go through PyTorch's own way: a counter is read, and a straight line gives microseconds. A block has a stack only
where the history was asked for stacks.
"""

from __future__ import annotations

import ctypes
import sys
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeTorch:
    """The parts of `torch` that a memory history needs. `is_old`: it knows no `skip_actions`."""

    def __init__(self, is_old: bool = False) -> None:
        self.is_enabled, self.is_old, self.calls = False, is_old, list[dict[str, Any]]()
        self._entries: list[dict[str, Any]] = []
        self._most, self._living, self._has_stacks = 0, dict[int, int](), False
        self._loaded = self._moment()
        memory = SimpleNamespace(_record_memory_history=self._record, _snapshot=self._snapshot)
        self.cuda = SimpleNamespace(memory=memory, is_initialized=lambda: True)
        self._C = SimpleNamespace(_cuda_isHistoryEnabled=lambda: self.is_enabled)

    def install(self) -> FakeTorch:
        """Be what `sys.modules` has under `torch`."""
        sys.modules["torch"] = self  # type: ignore[assignment]
        return self

    def allocated(self, address: int, size: int) -> None:
        self._living[address] = size
        self._add("alloc", address, size)

    def freed(self, address: int) -> None:
        size = self._living.pop(address)
        self._add("free_requested", address, size)
        self._add("free_completed", address, size)

    def _record(self, enabled: str | None = "all", **asked: Any) -> None:
        if self.is_old and "skip_actions" in asked:
            raise TypeError("unexpected keyword argument 'skip_actions'")
        self.calls.append({"enabled": enabled, **asked})
        self.is_enabled = enabled is not None
        if not self.is_enabled:
            self._entries.clear()
        self._most = asked.get("max_entries", sys.maxsize)
        self._has_stacks = asked.get("context") is not None

    def _add(self, action: str, address: int, size: int) -> None:
        if not self.is_enabled:
            return
        frames = reversed(traceback.extract_stack()[:-2]) if self._has_stacks and action == "alloc" else ()
        told = [{"filename": each.filename, "line": each.lineno, "name": each.name} for each in frames]
        self._entries.append({"action": action, "addr": address, "size": size, "ticks": _ticks(), "frames": told})
        del self._entries[: max(len(self._entries) - self._most, 0)]

    def _moment(self) -> tuple[int, float]:
        return _ticks(), time.time_ns() / 1000

    def _snapshot(self) -> dict[str, Any]:
        began, now = self._loaded, self._moment()
        rate = (now[1] - began[1]) / (now[0] - began[0])
        told: Callable[[dict[str, Any]], int] = lambda each: int(began[1] + (each["ticks"] - began[0]) * rate)  # noqa: E731
        trace = [{**each, "time_us": told(each)} for each in self._entries]
        blocks = [
            {"address": start, "blocks": [{"size": size, "state": "active_allocated"}]}
            for start, size in self._living.items()
        ]
        self._add("snapshot", 0, 0)
        return {"device_traces": [trace, []], "segments": blocks}


def _ticks() -> int:
    asked = ctypes.CDLL(None).symm_observer_ticks
    asked.restype = ctypes.c_uint64
    return int(asked())
