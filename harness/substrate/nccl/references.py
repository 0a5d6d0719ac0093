"""References to Python objects that C code gives up without holding them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept(*objects: object) -> Iterator[None]:
    """Take back the references to `objects` that a C function called under this gives up. The caller holds some.

    Without it an object is freed while its owner still has it. That damages the interpreter's heap, and the
    process dies at some later time, elsewhere.
    """
    before = _counts(objects)
    try:
        yield
    finally:
        for each, then, now in zip(objects, before, _counts(objects), strict=True):
            for _ in range(then - now):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def _counts(objects: tuple[object, ...]) -> list[int]:
    return [sys.getrefcount(each) for each in objects]
