"""The functions with which a rank fills, poisons and compares, and gives memory back: the rank's own references.

Invariant: bound when the zygote imports them, before any plug-in is loaded. So a plug-in that puts another function in
the place of `torch.equal` cannot blind the harness. What an engine would call by its name, as `torch.empty` inside a
pool's context, is called by its name.
"""

from ctypes import CDLL
from gc import collect, freeze
from zlib import crc32

from numpy import arange as host_arange
from torch import arange, cat, empty, empty_like, equal, from_numpy, frombuffer, tensor, zeros_like

__all__ = [
    "arange",
    "cat",
    "collect",
    "crc32",
    "empty",
    "empty_like",
    "equal",
    "freeze",
    "from_numpy",
    "frombuffer",
    "host_arange",
    "tensor",
    "trim",
    "zeros_like",
]
_trim = getattr(CDLL(None), "malloc_trim", None)  # musl has none


def trim() -> None:
    """Give free pages of the heap back, which malloc keeps where anything behind them is in use. It takes 0.5 ms."""
    if _trim is not None:
        _trim(0)
