"""Triton's interpreter under a witness: every load, store and atomic operation of a kernel passes through here.

Invariant: without a witness nothing of the interpreter is replaced; under one, kernels compute what they do without.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import basename, dirname
from types import FrameType
from typing import Any

import numpy as np

from harness.substrate.sim.schedules.witness import Order, Site, Witness
from harness.substrate.sim.spins import lanes

ORDERS = {
    "RELAXED": Order(False, False, True, "relaxed"),
    "ACQUIRE": Order(False, True, True),
    "RELEASE": Order(True, False, True),
    "ACQUIRE_RELEASE": Order(True, True, True),
}


@contextmanager
def watched(witness: Witness) -> Iterator[None]:
    """Under it, this process's kernels run with the witness."""
    import triton  # noqa: PLC0415  (only where kernels run)
    from triton.runtime import interpreter  # noqa: PLC0415

    builder, executor = interpreter.interpreter_builder, interpreter.GridExecutor
    hooks = _Hooks(witness, builder, dirname(triton.__file__))
    launch = executor.__call__

    def launched(self, *args, **kwargs):
        before, hooks.kernel = hooks.kernel, self.fn.__name__
        witness.launched()
        try:
            launch(self, *args, **kwargs)
        finally:
            hooks.kernel = before
        witness.launched()

    replaced = {name: getattr(hooks, name) for name in METHODS}
    executor.__call__ = launched
    vars(builder).update(replaced)
    try:
        yield
    finally:
        executor.__call__ = launch
        for name in replaced:
            delattr(builder, name)


METHODS = ("create_masked_load", "create_masked_store", "create_atomic_rmw", "create_atomic_cas")
"""The interpreter makes every other access by these."""


class _Hooks:
    """What stands in for methods of the interpreter's builder."""

    def __init__(self, witness: Witness, builder: Any, library: str) -> None:
        self._witness, self._library, self.kernel = witness, library, ""
        self._load, self._store, self._rmw, self._cas = (getattr(builder, name) for name in METHODS)

    def create_masked_load(self, ptrs, mask, other, *rest):
        places = self._witness.places(ptrs.data, mask.data)
        self._witness.switch(places, is_atomic=False)
        loaded = self._load(ptrs, mask, other, *rest)
        if (places >= 0).any():
            is_volatile = bool(rest[-1])  # as the interpreter's own create_load passes it
            self._witness.loaded(places, _width(ptrs), bytes(lanes(loaded, mask.data)), is_volatile, self._site())
        return loaded

    def create_masked_store(self, ptrs, value, mask, *rest):
        places = self._witness.places(ptrs.data, mask.data)
        self._witness.switch(places, is_atomic=False)
        self._store(ptrs, value, mask, *rest)
        if (places >= 0).any():
            self._witness.stored(places, _width(ptrs), self._site())

    def create_atomic_rmw(self, operation, ptr, val, mask, sem, scope):
        return self._atomic(lambda: self._rmw(operation, ptr, val, mask, sem, scope), ptr, mask.data, sem, scope)

    def create_atomic_cas(self, ptr, cmp, val, sem, scope):
        every = np.ones_like(ptr.data, dtype=bool)
        return self._atomic(lambda: self._cas(ptr, cmp, val, sem, scope), ptr, every, sem, scope)

    def _atomic(self, operation, ptr, mask, sem, scope):
        places, width = self._witness.places(ptr.data, mask), _width(ptr)
        self._witness.switch(places, is_atomic=True)
        if not (places >= 0).any():
            return operation()
        was = self._witness.held(places[places >= 0], width)
        found = operation()
        self._witness.updated(places, width, was, bytes(lanes(found, mask)), _order(sem, scope), self._site())
        return found

    def _site(self) -> Site:
        """The innermost line that is not Triton's own."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name != __file__ and not name.startswith(self._library):
                return Site(self.kernel, f"{basename(name)}:{frame.f_lineno}")
            frame = frame.f_back
        return Site(self.kernel, "")


def _width(ptrs: Any) -> int:
    return max(1, int(ptrs.get_element_ty().primitive_bitwidth) // 8)


def _order(sem: Any, scope: Any) -> Order:
    """What an operation orders with other ranks: nothing, if it is not at the scope of the system."""
    named = _name(scope)
    return ORDERS[_name(sem)] if named == "SYSTEM" else Order(False, False, False, f"at {named.lower()} scope")


def _name(member: Any) -> str:
    return str(member.name if hasattr(member, "name") else member).rpartition(".")[2]
