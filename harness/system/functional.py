"""A call of a plug-in in functional form, which returns its result.

Invariant: what a plug-in returned is a result only if it is the tensor that a caller may rely on: of the shape, dtype
and device due, and contiguous. Anything else is a mistake in the plug-in's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from harness.system.boundary import Misshapen, call_system
from harness.system.collectives import REFUSALS


def returned(kernels: Any, name: str, operands: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """The result of the method of that name. Raises `REFUSALS`, and `Misshapen` where what comes back is not like the
    output that is due."""
    method = getattr(kernels, name)
    result: object = call_system("collectives", lambda: method(*operands), *REFUSALS)
    article = "an" if name.startswith("a") else "a"
    return _checked(method, f"{article} {name}()", result, output)


def _checked(method: Callable[..., object], name: str, result: object, output: torch.Tensor) -> torch.Tensor:
    if not isinstance(result, torch.Tensor):
        text = f"has {name} that returned {type(result).__name__}, which is no tensor"
        raise Misshapen("collectives", method, text)
    for what, found, due in (
        ("dtype", result.dtype, output.dtype),
        ("shape", [*result.shape], [*output.shape]),
        ("device", result.device, output.device),
        ("layout", result.layout, torch.strided),
    ):
        if found != due:
            raise Misshapen("collectives", method, f"has {name} that returned a tensor of {what} {found} and not {due}")
    if not result.is_contiguous():
        raise Misshapen("collectives", method, f"has {name} that returned a tensor that is not contiguous")
    return result
