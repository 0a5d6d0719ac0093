"""Functions and modules that a plug-in could put others in the place of: those of the harness, of torch, of Python.

Invariant: what comes as new under a name of its own, as modules do that are imported on first use, is no change. Values
are compared by identity alone: a plug-in may put a tensor there, or an object whose `==` raises.
"""

from __future__ import annotations

import builtins
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import Any

import numpy as np
import torch
from numpy import fromiter
from torch import _compile

MODULES = {"builtins", "gc", "os", "signal", "threading", "time", "torch"}
"""Whose functions are watched, besides those of the harness on its rank side."""
GENERATED = "__triton_launcher"
"""Triton loads the launcher of each kernel under this one name (3.6 on GPUs)."""
ROOMS = {"ipc", "kernels", "rank", "substrate", "system"}
FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
Names = Mapping[str, Any]
Objects = np.ndarray[Any, np.dtype[np.object_]]


class Watched:
    """The names of one module or class that stand for what `counts`, as they were when last looked at.

    `behind` has what is found under a name that is not among them: a class's bases, a module's built-ins.
    """

    def __init__(self, prefix: str, names: Names, behind: Names, counts: Callable[[Any], bool]) -> None:
        self.values = names.values()
        self._prefix, self._names, self._behind, self._counts = prefix, names, behind, counts
        self._look()

    def _look(self) -> None:
        self._every = frozenset(self._names)
        self._known = {name: each for name, each in [*self._names.items()] if self._counts(each)}

    def replaced(self) -> Iterator[tuple[str, Any, Any]]:
        """Each name that stands for another thing now: with what it was and what it is, or `None`."""
        known, hidden = self._known, self._names.keys() - self._every & self._behind.keys()
        self._look()
        for name in (*known, *hidden):
            was, found = known.get(name, self._behind.get(name)), self._names.get(name, self._behind.get(name))
            if was is not found and not _is_wrapped_by_compiler(found, was):
                yield f"{self._prefix}{name}", was, found


class Watch:
    """All names that are watched in this process."""

    def __init__(self) -> None:
        self._functions = [*_namespaces()]
        self._modules = [Watched("", sys.modules, {}, _is_fixed)]
        self._values = [watched.values for watched in (*self._functions, *self._modules)]
        self._seen = self._every_value()
        self._identities = self._seen.tobytes()

    def _every_value(self) -> Objects:
        return fromiter(chain.from_iterable(self._values), object)

    def replaced(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """What is replaced since the last look, by kind: old and new by name."""
        # One pass over all values, as bytes: those of an array of objects are their addresses. It takes some thirty
        # nanoseconds for each, and `is` in Python twice that. The dictionaries keep their order, so that it sees what
        # is new, replaced or gone.
        now = self._every_value()
        identities = now.tobytes()
        if identities == self._identities:
            return {}  # what is kept stays as it is: new objects would cost each of the rank's collections of garbage
        self._seen, self._identities = now, identities  # an address is one object's as long as that is kept
        kinds = {"functions": self._functions, "modules": self._modules}
        found = {kind: [each for watched in group for each in watched.replaced()] for kind, group in kinds.items()}
        return {
            kind: ({name: was for name, was, _ in each}, {name: now for name, _, now in each})
            for kind, each in found.items()
            if each
        }


def _is_function(each: Any) -> bool:
    # not `isinstance`, which asks an object for its `__class__`
    return issubclass(type(each), FUNCTIONS)


def _is_wrapped_by_compiler(found: Any, was: Any) -> bool:
    """Whether torch's compiler has put a wrapper in the place of a function, as it does when it is first imported."""
    if type(found) is not FunctionType:
        return False
    names = vars(found)
    is_lazy = found.__code__.co_filename == _compile.__file__
    return names.get("_torchdynamo_orig_callable") is was or (is_lazy and names.get("__wrapped__") is was)


def _is_fixed(module: Any) -> bool:
    """Whether nothing right puts another module in the place of this one."""
    # by its dictionary: a module that is loaded lazily would load where an attribute of it is read
    return (
        issubclass(type(module), ModuleType)
        and object.__getattribute__(module, "__dict__").get("__name__") != GENERATED
    )


def _namespaces() -> Iterator[Watched]:
    """Every module and class whose functions are watched."""
    yield _of_class("torch", torch.Tensor)
    for name, module in [*sys.modules.items()]:
        is_own = name.startswith("harness.") and name.split(".")[1] in ROOMS
        if is_own or name in MODULES:
            behind: Names = {} if module is builtins else vars(builtins)
            yield Watched(f"{name}.", vars(module), behind, _is_function)
        for each in [*vars(module).values()] if is_own else ():
            if isinstance(each, type) and each.__module__ == name:
                yield _of_class(name, each)


def _of_class(module: str, owner: type) -> Watched:
    behind = ChainMap(*(dict(base.__dict__) for base in owner.__mro__[1:]))
    return Watched(f"{module}.{owner.__qualname__}.", owner.__dict__, behind, _is_function)
