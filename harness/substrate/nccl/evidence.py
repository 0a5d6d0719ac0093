"""Ways to learn from NCCL itself which path a call took.

Invariant: a path is what NCCL or the driver shows, never a prediction. Each way issues the call to its end exactly
once, and waits for the device if it reads what ran there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from nccl.bindings import nccl

from harness.substrate.nccl.calls import Calls

INVALID_ARGUMENT = 4
"""`ncclInvalidArgument`."""
LEGACY = "^symk"
"""Any algorithm but the symmetric kernels."""
COPY_ENGINES = "copy engines"
"""In place of a selection: NCCL is asked to move this one call by copy engines (`NCCL_CTA_POLICY_ZERO`, 2.31)."""
SYMMETRIC_KERNEL, LEGACY_KERNEL = "ncclSymkDevKernel", "ncclDevKernel"
LOGGED = re.compile(r"(?:AllGather|ReduceScatter|AllReduce)( \[Symmetric\])?: \d+ Bytes -> (.+)")


@dataclass(frozen=True)
class Asked:
    """A library call to make.

    `issue(selection)` makes it, restricted to an algorithm selection (empty: unrestricted). `kernel` is the
    symmetric kernel that reaches peers through the caller's buffer, empty for a call that is not to be forced; that is
    made with the selection `free`. `exchange` gives one word of every rank.
    `refused` notes an error of NCCL that is an answer and no fault.
    """

    kernel: str
    is_eligible: bool
    issue: Callable[[str], None]
    exchange: Callable[[int], list[int]]
    refused: Callable[[], None]
    free: str = ""


class PathEvidence(Protocol):
    """A way to make a call and to learn its path."""

    def run(self, asked: Asked) -> tuple[str, str]:
        """Make the call. Returns (path, evidence). Collective over the group."""


class ForcedPath:
    """NCCL is forced to a symmetric kernel, and refuses if it does not own the peer-addressed buffer (2.31)."""

    def run(self, asked: Asked) -> tuple[str, str]:
        if not asked.kernel:
            return Unforced().run(asked)
        try:
            asked.issue(asked.kernel)
            return "symmetric", f"NCCL ran forced {asked.kernel}"
        except nccl.NCCLError as error:
            # NCCL does not fall back from a forced selection: it returns ncclInvalidArgument and runs nothing.
            if error.status != INVALID_ARGUMENT:
                raise
        asked.refused()
        asked.issue(LEGACY)
        why = "" if asked.is_eligible else ", for which the call is not eligible"
        return "legacy", f"NCCL refused forced {asked.kernel} with ncclInvalidArgument{why}"


class KernelNames:
    """The names of the kernels that ran, from CUPTI. Made after the device."""

    def __init__(self) -> None:
        with self._profile():  # the first one sets up CUPTI in this process, which no draw is to answer for
            torch.cuda.synchronize()

    @staticmethod
    def _profile() -> Any:
        return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def run(self, asked: Asked) -> tuple[str, str]:
        if torch.cuda.is_current_stream_capturing():
            return Unforced().run(asked)  # nothing runs, and CUDA allows no wait for it
        with self._profile() as profile:
            asked.issue(asked.free)
            torch.cuda.synchronize()
        names = [event.name for event in profile.events() if event.name.startswith((SYMMETRIC_KERNEL, LEGACY_KERNEL))]
        if not names:
            return "unknown", ""
        path = "symmetric" if names[-1].startswith(SYMMETRIC_KERNEL) else "legacy"
        return path, f"the kernel {names[-1].partition('(')[0]} ran"


class DebugLog:
    """NCCL's log, which has a line for each call. It goes to memory of this process.

    Made before NCCL writes its first line.
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("nccl-log", os.MFD_CLOEXEC)
        self._read = 0
        os.environ["NCCL_DEBUG_FILE"] = f"/proc/self/fd/{self._fd}"

    def run(self, asked: Asked) -> tuple[str, str]:
        if torch.cuda.is_current_stream_capturing():
            return Unforced().run(asked)
        self._new_text()
        asked.issue(asked.free)
        torch.cuda.synchronize()
        found = LOGGED.findall(self._new_text())
        # NCCL writes the line on rank 0 of the communicator alone.
        word = asked.exchange(-1 if not found else int(bool(found[-1][0])))[0]
        if word < 0:
            return "unknown", ""
        path = "symmetric" if word else "legacy"
        return path, f"NCCL logged {found[-1][1].strip()}" if found else "NCCL logged it on the group's first rank"

    def _new_text(self) -> str:
        """The log since the last look."""
        size = os.fstat(self._fd).st_size
        text = os.pread(self._fd, size - self._read, self._read).decode(errors="replace")
        self._read = size
        return text


class Unforced:
    """The call as any program makes it, which shows nothing by itself. One that is kept off symmetric kernels does."""

    def run(self, asked: Asked) -> tuple[str, str]:
        asked.issue(asked.free)
        return ("legacy", f"NCCL ran {LEGACY}") if asked.free == LEGACY else ("unknown", "")


class ToldCalls:
    """NCCL's own word on the call, given to its profiler plug-in (2.31), over what another way shows."""

    def __init__(self, inner: PathEvidence, calls: Calls | None = None) -> None:
        self._inner, self._calls = inner, calls or Calls()

    def run(self, asked: Asked) -> tuple[str, str]:
        before = self._calls.written
        path, evidence = self._inner.run(asked)
        told = self._calls.last_since(before)  # a call that NCCL refused first was told of first
        if told is None:
            return path, evidence
        word = f"NCCL told its profiler of {told}"
        return told.path, f"{evidence}; {word}" if evidence else word


class Checked:
    """Another way under NCCL's debug check, which refuses calls whose registrations or offsets differ (2.29.7)."""

    def __init__(self, inner: PathEvidence) -> None:
        self._inner = inner

    def run(self, asked: Asked) -> tuple[str, str]:
        try:
            return self._inner.run(asked)
        except nccl.NCCLError as error:
            if error.status != INVALID_ARGUMENT:
                raise
        asked.refused()
        return "refused", "NCCL's debug check found registrations or offsets that differ between ranks"


def gather(names: frozenset[str]) -> PathEvidence:
    """The way that this process learns paths, by the names of its world's kinds of evidence."""
    kinds: dict[str, Callable[[], PathEvidence]] = {"forced": ForcedPath, "profiler": KernelNames, "log": DebugLog}
    path = next((make for name, make in kinds.items() if name in names), Unforced)()
    if "calls" in names:
        path = ToldCalls(path)
    return Checked(path) if "check" in names else path
