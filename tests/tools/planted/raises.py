"""Systems under test that raise, named `tests.tools.planted.raises:Name`.

Invariant: each breaks the rule raised, and no other unless its docstring says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl

from harness.system.context import ProcessGroup, RankContext
from harness.system.planted.kernels import SoundKernels
from harness.system.planted.sound import Sound
from tests.tools.planted.ends import Dies

ROOM = 100
"""Elements for which `AssertsSize` has room."""


class Raises(Dies):
    """Rank 0 raises the second time it allocates, and has a cause for it."""

    def die(self) -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no room\nfor details see below") from error


class RaisesApart(Sound):
    """Each rank raises at another place."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        if self.context.rank:
            raise ValueError("not on this rank")
        raise ValueError("not on that rank")
        yield


class NoRoomToBuild(Sound):
    def __init__(self, context: RankContext) -> None:
        raise torch.OutOfMemoryError("no room to build")


class NoRoomToClose(Sound):
    def close(self) -> None:
        raise torch.OutOfMemoryError("no room to close")


class FailsToTrim(Sound):
    """Its callback raises where a segment goes."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            yield
        for pool in self.context.pools():
            pool.on_freed[:] = [self.forget]

    def forget(self, segment: object) -> None:
        raise LookupError("no such segment")


class AssertsSize(SoundKernels):
    """Its room is fixed, and nothing at the door says so."""

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        assert source.numel() <= ROOM
        super().all_gather(context, output, source)


class NoRoomInKernel(SoundKernels):
    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        raise torch.OutOfMemoryError("no room in the kernel")


class FailsToBuild(SoundKernels):
    """Where it is not known beforehand: on ranks alone."""

    def __init__(self) -> None:
        raise OSError("no such device")


class RaisesInTorch(SoundKernels):
    """The innermost frames are of PyTorch."""

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        torch.nn.functional.softmax(torch.empty(2, 2), dim=7)


class RaisesInTriton(SoundKernels):
    """The innermost frames are of Triton, which raises an error of its own."""

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        _out_of_bounds[(1,)](output)


@triton.jit
def _out_of_bounds(output):  # type: ignore[no-untyped-def]
    places = (1, 2)
    tl.store(output + places[7], 0)


class RaisesAmongTheHasty(SoundKernels):
    """Rank 0 raises in its call. Its peers wait for nobody, and look at an output that it never wrote."""

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        if context.rank == 0:
            raise ValueError("not today")


class WritesNothingThenRaises(AssertsSize):
    """Breaks wrong-data first: it does nothing while there is room."""

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        assert source.numel() <= ROOM
