"""Functions and modules that a plug-in could put others in the place of: those of the harness, of torch, of Python.

Invariant: what comes as new under a name of its own, as modules do that are imported on first use, is no change.
"""

from __future__ import annotations

import builtins
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import Any

import torch

MODULES = {"builtins", "gc", "os", "signal", "threading", "time", "torch"}
"""Whose functions are watched, besides those of the harness on its rank side."""
GENERATED = "__triton_launcher"
"""Triton loads the launcher of each kernel under this one name (3.6 on GPUs)."""
ROOMS = {"ipc", "kernels", "rank", "substrate", "system"}
FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
Names = Mapping[str, Any]


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
            if was is not found and getattr(found, "_torchdynamo_orig_callable", None) is not was:
                yield f"{self._prefix}{name}", was, found


class Watch:
    """All names that are watched in this process."""

    def __init__(self) -> None:
        self._functions = [*_namespaces()]
        self._modules = [Watched("", sys.modules, {}, _is_fixed)]
        self._values = [watched.values for watched in (*self._functions, *self._modules)]
        self._seen = [*map(list, self._values)]

    def replaced(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """What is replaced since the last look, by kind: old and new by name."""
        # One pass over all values, as lists that compare by identity first: it takes some ten nanoseconds for each. The
        # dictionaries keep their order, so that it sees what is new, replaced or gone.
        now = [*map(list, self._values)]
        if now == self._seen:
            return {}  # what is kept stays as it is: new objects would cost each of the rank's collections of garbage
        self._seen = now
        kinds = {"functions": self._functions, "modules": self._modules}
        found = {kind: [each for watched in group for each in watched.replaced()] for kind, group in kinds.items()}
        return {
            kind: ({name: was for name, was, _ in each}, {name: now for name, _, now in each})
            for kind, each in found.items()
            if each
        }


def _is_fixed(module: Any) -> bool:
    """Whether nothing right puts another module in the place of this one."""
    # by its dictionary: a module that is loaded lazily would load where an attribute of it is read
    return isinstance(module, ModuleType) and object.__getattribute__(module, "__dict__").get("__name__") != GENERATED


def _namespaces() -> Iterator[Watched]:
    """Every module and class whose functions are watched."""
    yield _of_class("torch", torch.Tensor)
    for name, module in [*sys.modules.items()]:
        is_own = name.startswith("harness.") and name.split(".")[1] in ROOMS
        if is_own or name in MODULES:
            behind: Names = {} if module is builtins else vars(builtins)
            yield Watched(f"{name}.", vars(module), behind, lambda each: isinstance(each, FUNCTIONS))
        for each in [*vars(module).values()] if is_own else ():
            if isinstance(each, type) and each.__module__ == name:
                yield _of_class(name, each)


def _of_class(module: str, owner: type) -> Watched:
    behind = ChainMap(*(dict(base.__dict__) for base in owner.__mro__[1:]))
    return Watched(f"{module}.{owner.__qualname__}.", owner.__dict__, behind, lambda each: isinstance(each, FUNCTIONS))
