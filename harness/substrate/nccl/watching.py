"""A draw of a pool policy that calls NCCL by itself: the observer told what to do, and the segments it sees.

Invariant: the observer denies, refuses and holds back for one draw at a time. Memory goes after every window over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from nccl.bindings import nccl

from harness.machine.observer.control import Observer
from harness.substrate.communicator import Communicator
from harness.substrate.denial import Denial, Refusal
from harness.substrate.nccl import quiet
from harness.substrate.nccl.memory import handed_out
from harness.substrate.observed import NAME, Overheard
from harness.substrate.pool import Pool
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment


class ObservedPool(Pool):
    """Segments that the policy took from NCCL. Whether they go is the policy's affair."""

    def use(self) -> AbstractContextManager[None]:
        return nullcontext()

    def snapshot(self) -> list[Segment]:
        return sorted(self.segments, key=lambda segment: segment.address)

    def used(self) -> list[tuple[int, int]]:
        listed = self.listed()
        whole = [(each.address, each.size) for each in self.segments if each.address not in listed]
        return whole + handed_out(listed.values())

    def listed(self) -> dict[int, dict[str, Any]]:
        """By address, the segments of this pool that PyTorch's allocator holds. A policy may go without that."""
        own = {segment.address for segment in self.segments}
        every: list[dict[str, Any]] = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        return {each["address"]: each for each in every if each["address"] in own}

    def trim(self) -> None:
        """Nothing: engines keep their pool."""

    def close(self) -> None:
        """Nothing."""


class Watching:
    """One draw that is observed."""

    def __init__(
        self,
        observer: Observer,
        recorder: Recorder,
        denial: Denial,
        refusal: Refusal,
        communicators: Callable[[], Iterable[Communicator]],
    ) -> None:
        self._observer, self.pool = observer, ObservedPool(recorder, NAME)
        self._overheard = Overheard(self.pool, denial, refusal, observer, communicators, nccl.Window)
        self._expect_nothing()
        observer.hold_frees(True)
        observer.listen(self._overheard.hear)

    def deny(self) -> None:
        """Let NCCL refuse this rank's next segment."""
        self._observer.deny_next()

    def settle(self) -> None:
        """Raise what went wrong in a translation."""
        self._overheard.raise_pending()

    def stop(self) -> str:
        """End the draw, once all windows are gone: free what is left. Returns what cannot be freed, in words: memory
        that PyTorch's allocator still holds would be freed twice."""
        held = self.pool.listed() if self.pool.segments else {}
        self._observer.listen(None)
        self._observer.hold_frees(False)
        self._expect_nothing()
        self._observer.release_held()
        for segment in [each for each in self.pool.segments if each.address not in held]:
            quiet.free(segment.address)
        return f"{len(held)} segments that the pool took from NCCL" if held else ""

    def _expect_nothing(self) -> None:
        self._observer.deny_next(0)
        self._observer.refuse(None)
