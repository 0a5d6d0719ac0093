"""The harness's own calls of NCCL, which the observer of a rank is not to take for the system's.

Invariant: what is muted is a call of NCCL alone, and never code of the system under test that runs inside of it. Where
no observer stands in front of NCCL, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from nccl.bindings import nccl

from harness.machine.observer.control import Observer

P = ParamSpec("P")
T = TypeVar("T")


@cache
def observer() -> Observer | None:
    """The observer of this process, if there is one."""
    return Observer.find()


def quietly(call: Callable[P, T]) -> Callable[P, T]:
    """`call`, unseen by the observer in the thread that makes it."""

    @wraps(call)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        found = observer()
        if found is None:
            return call(*arguments, **named)
        with found.muted():
            return call(*arguments, **named)

    return run


@quietly
def allocate(size: int) -> int:
    """Address of a new segment. Raises `NCCLError`."""
    return int(nccl.mem_alloc(size))


@quietly
def free(address: int) -> None:
    """Free a segment."""
    nccl.mem_free(address)


@quietly
def register(comm: object, address: int, size: int, flags: int) -> object:
    """NCCL's window over memory, false where it gives none. Collective. Raises `NCCLError`."""
    return nccl.comm_window_register(comm, address, size, flags)


@quietly
def deregister(comm: object, window: object) -> None:
    """Give a window back. Local."""
    nccl.comm_window_deregister(comm, window)
