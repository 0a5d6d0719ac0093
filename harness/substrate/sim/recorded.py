"""What a plug-in launches while its work is captured or in flight: kernels and operations of torch, to be run later.

Invariant: Python runs once, as beside a real graph. What is kept of a launch is its kernel, its grid and its arguments:
numbers as they were, memory of this rank's pools by address, and other tensors as they are.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

Enqueue = Callable[[Callable[[], object]], None]
Given = Callable[[torch.Tensor], torch.Tensor]

WITHOUT_VALUES = tuple(
    f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)
"""They allocate, and run nothing on a device."""


@contextmanager
def recorded(kernel: Enqueue, operation: Enqueue, given: Given) -> Iterator[None]:
    """Under it, `kernel` and `operation` get what this thread launches, and nothing of that runs. `given` gives what is
    kept of a tensor."""
    with _launches(kernel, given), _Operations(operation, given):
        yield


@contextmanager
def _launches(enqueue: Enqueue, given: Given) -> Iterator[None]:
    """Under it, Triton's interpreter launches nothing."""
    from triton.runtime.interpreter import GridExecutor  # noqa: PLC0415  (only where kernels run)

    launch = GridExecutor.__call__

    def record(self, *args, **kwargs):
        if callable(self.grid):
            known = inspect.getfullargspec(self.fn).args
            named = {name: value for name, value in kwargs.items() if name in known}
            self.grid = self.grid(inspect.getcallargs(self.fn, *args, **named))
        args, kwargs = tree_map_only(torch.Tensor, given, (args, kwargs))
        enqueue(lambda: launch(self, *args, **kwargs))

    GridExecutor.__call__ = record
    try:
        yield
    finally:
        GridExecutor.__call__ = launch


class _Operations(TorchDispatchMode):
    """Keeps operations of torch. One that makes a tensor runs at once, for its shape, and again into that tensor."""

    def __init__(self, enqueue: Enqueue, given: Given) -> None:
        super().__init__()
        self._enqueue, self._given = enqueue, given

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the hook in `torch._dynamo.disable`, whose import alone takes 2 s a rank."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, schema = kwargs or {}, func._schema
        if schema.name in WITHOUT_VALUES or torch.Tag.inplace_view in func.tags or _is_view(schema):
            return func(*args, **kwargs)
        positional, named = tree_map_only(torch.Tensor, self._given, (args, kwargs))
        if schema.is_mutable:
            self._enqueue(partial(func, *positional, **named))
            return _written(schema, args, kwargs)
        made = func(*args, **kwargs)
        self._enqueue(lambda: _fill(made, func(*positional, **named)))
        return made


def _is_view(schema: Any) -> bool:
    """Whether all that an operation returns is memory of its arguments, and it writes nothing."""
    aliases = [each.alias_info for each in schema.returns]
    return bool(aliases) and not schema.is_mutable and None not in aliases


def _written(schema: Any, args: Any, kwargs: Any) -> Any:
    """What an operation that writes into its arguments returns: these."""
    names = [each.name for each in schema.arguments]
    values = dict(zip(names, args, strict=False)) | kwargs
    aliases = ((each.name, each.alias_info) for each in schema.arguments)
    written = [values[name] for name, alias in aliases if alias is not None and alias.is_write and name in values]
    count = len(schema.returns)
    return written[0] if count == 1 else tuple(written[:count]) or None


def _fill(made: Any, again: Any) -> None:
    """Have the tensors that an operation made hold what it makes now."""
    if isinstance(made, torch.Tensor):
        made.copy_(again)
    elif isinstance(made, tuple | list):
        for each, new in zip(made, again, strict=True):
            _fill(each, new)
