"""What ranks asked of a pool, compared: where their allocations and releases first differ.

Invariant: the text holds what the traces show. That a difference moved a buffer is for the reader to conclude.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from harness.oracle.case import Case
from harness.oracle.history import Use
from harness.text import counted
from harness.trace.events import Dropped, Exhausted, Placed, Role


class _Request(NamedTuple):
    """An allocation or a release in a pool, the guard of canaries included in `size`."""

    step: int
    buffer: str
    size: int
    is_release: bool


def first_difference(case: Case, uses: list[Use], role: Role) -> str:
    """A sentence on the first request by which the ranks' histories differ, in the pools of one of a call's operands,
    until it was allocated. Empty where no request was seen, as in a recording."""
    asked = {use.rank: [*_requests(case, use, role)] for use in uses}
    if not any(asked.values()):
        return ""
    for requests in zip_longest(*asked.values()):
        if len(set(requests)) > 1:
            step = min(request.step for request in requests if request is not None)
            of_ranks = zip(asked, requests, strict=True)
            each = (_did(case, rank, step, request) for rank, request in of_ranks)
            return (
                f" The ranks' requests to that pool, canaries included, first differ at {case.at_step(step)}: "
                f"{', '.join(each)}."
            )
    return " Until then the ranks' allocations and releases in that pool agree in step, buffer and size."


def _requests(case: Case, use: Use, role: Role) -> Iterator[_Request]:
    """What a rank asked of the pool in which the operand of a call lies, up to the operand's buffer."""
    sight, history = use.sight(role), case.histories[use.rank]
    own = None if sight.segment is None else sight.segment.event.pool
    sizes: dict[str, int] = {}
    for step, event in history.trace.steps():
        if isinstance(event, Placed):
            segment = history.segments.get(event.segment)
            if segment is not None and segment.event.pool == own:
                sizes[event.buffer] = event.size
                yield _Request(step, event.buffer, event.size, is_release=False)
            if event.buffer == sight.operand.buffer:
                return
        elif isinstance(event, Dropped) and event.buffer in sizes:
            yield _Request(step, event.buffer, sizes[event.buffer], is_release=True)


def _did(case: Case, rank: int, step: int, request: _Request | None) -> str:
    """Such as `rank 1 allocated 'b' of 1088 bytes`."""
    if request is None or request.step > step:
        refused = any(isinstance(event, Exhausted) and at == step for at, event in case.histories[rank].trace.steps())
        return f"rank {rank} {'could not allocate' if refused else 'did nothing there'}"
    deed = "released" if request.is_release else "allocated"
    return f"rank {rank} {deed} {request.buffer!r} of {counted(request.size, 'byte')}"
