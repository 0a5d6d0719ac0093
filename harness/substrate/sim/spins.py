"""A rank whose kernel waits for another gives the processor away.

Invariant: kernels compute what they do without. Ranks wait in loops as they do on GPUs, where each has processors of
its own. Here, eight ranks may share two cores, and a wait takes the time of those it waits for. A loop over loads, or
over two flags in turn, does not yield.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from os import sched_yield

import numpy as np


def give_way() -> None:
    """From now on, an atomic operation that finds what the last one of this process found at the same place yields."""
    from triton.runtime import interpreter  # noqa: PLC0415  (only where kernels run)

    # methods of the class: a schedule puts its own into the one builder for a while, and takes them out again
    builder = type(interpreter.interpreter_builder)
    rmw, cas, looks = builder.create_atomic_rmw, builder.create_atomic_cas, _Looks()

    def create_atomic_rmw(self, operation, ptr, val, mask, *rest):
        found = rmw(self, operation, ptr, val, mask, *rest)
        looks.note(ptr.data, lanes(found, mask.data))
        return found

    def create_atomic_cas(self, ptr, *rest):
        found = cas(self, ptr, *rest)
        looks.note(ptr.data, found.data)
        return found

    builder.create_atomic_rmw, builder.create_atomic_cas = create_atomic_rmw, create_atomic_cas


def lanes(found, mask):
    """What an operation read. The lanes that its mask leaves out differ from look to look: the interpreter never writes
    those of an atomic operation."""
    return found.data[np.broadcast_to(mask.astype(bool), found.data.shape)]


class _Looks:
    """Where the last atomic operation looked, and what it found."""

    def __init__(self) -> None:
        self._last = b"", b""

    def note(self, pointers, found) -> None:
        look = pointers.tobytes(), found.tobytes()
        if look == self._last:
            sched_yield()
        self._last = look
