"""Tables of addresses on the device, for kernels: kept from call to call.

Invariant: a table holds the numbers that were asked for. It is kept by these numbers, so none outlives what it says;
one that was written to is made again. To make one is a copy from the host, which waits for the device. Those of a graph
live as long as it does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

MOST = 256
"""Tables that are kept, of half a KiB each."""
OF_A_GRAPH = 4096
"""Numbers in the tables of one graph."""


def table(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """A new one: int64 of as many elements."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


class Tables:
    """The tables of one device, those that were used last."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: OrderedDict[tuple[int, ...], tuple[torch.Tensor, int]] = OrderedDict()

    def of(self, numbers: Sequence[int], stream: int) -> torch.Tensor:
        """The table for work on a stream, whose memory no other stream gets before that work is done."""
        key = (stream, *numbers)
        found, version = self._kept.pop(key, (None, 0))
        if found is None or found._version != version:
            with torch.inference_mode(False):  # a tensor of that mode counts no writes
                found = table(numbers, self._device)
            version = found._version
        self._kept[key] = found, version
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return found


class GraphTables:
    """The tables of one graph: handed out while it is captured, when nothing of it runs, and filled after that. So they
    cost its replays nothing."""

    def __init__(self, device: torch.device) -> None:
        """Allocates, which a capture would take for its own."""
        self._memory = torch.empty(OF_A_GRAPH, dtype=torch.int64, device=device)
        self._numbers: list[int] = []

    def of(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """The table of these numbers; None where no memory is left for it."""
        begin, end = len(self._numbers), len(self._numbers) + len(numbers)
        if end > OF_A_GRAPH:
            return None
        self._numbers += numbers
        return self._memory[begin:end]

    def fill(self) -> None:
        """Write what was handed out."""
        self._memory[: len(self._numbers)] = table(self._numbers, self._memory.device)
