"""The outputs of a draw that came out wrong: which chunks are right, and whose data lies in those that are not.

Invariant: a chunk is called right or wrong only where the trace says so. Behind the first run of wrong elements it may
be unsure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from harness.oracle.case import Case, ranks_text
from harness.oracle.history import Use
from harness.oracle.rules.data import origin_text
from harness.report.pages.account import Chunk, Output
from harness.scenario.bases import CollectiveStep, counts_in
from harness.trace.draw import Draw
from harness.trace.events import Mismatch, Replayed


def outputs(case: Case, draw: Draw) -> tuple[Output, ...]:
    """Every wrong output, by step and rank."""
    found = [(step, each) for history in case.histories for step, each in _of_rank(case, draw, history.rank)]
    return tuple(each for _, each in sorted(found, key=lambda entry: (entry[0], entry[1].rank)))


def _of_rank(case: Case, draw: Draw, rank: int) -> Iterator[tuple[int, Output]]:
    captured: dict[int, int] = {}
    for step, event in case.histories[rank].trace.steps():
        if isinstance(event, Replayed):
            captured[step] = event.captured
        elif isinstance(event, Mismatch):
            called = captured.get(step, step)
            use = next((use for use in case.histories[rank].uses if use.step == called), None)
            if use is not None:
                yield step, _output(case, draw, use, event)


def _output(case: Case, draw: Draw, use: Use, event: Mismatch) -> Output:
    return Output(
        use.rank,
        event.buffer,
        case.call(use),
        event.of,
        event.elements,
        event.index,
        event.expected,
        event.found,
        origin_text(case, use, event),
        tuple(_chunks(draw, use, event)),
    )


def _chunks(draw: Draw, use: Use, event: Mismatch) -> Iterator[Chunk]:
    """The parts of the output by sender, each cut where the first wrong run begins and ends."""
    first, run = event.index, 1 if event.origin is None else max(1, event.origin.wrong)
    if event.elements in (event.of, event.of - first):  # all behind the first one are wrong
        run = event.of - first
    last = first + run
    bounds = _bounds(draw, use, event.of)
    cuts = sorted({0, event.of, first, last, *(start for start, _, _ in bounds), *(end for _, end, _ in bounds)})
    left = event.elements - run
    for start, end in pairwise(cut for cut in cuts if 0 <= cut <= event.of):
        sender = next((name for begin, stop, name in bounds if begin <= start < stop), "")
        if end <= first:
            yield Chunk(start, end, sender, "right")
        elif start < last:
            yield Chunk(start, end, sender, "wrong")
        else:
            yield Chunk(start, end, sender, "unsure" if left > 0 else "right")


def _bounds(draw: Draw, use: Use, of: int) -> list[tuple[int, int, str]]:
    """Where the part of each sender begins and ends; one part of all where ranks are reduced."""
    group, step = use.comm.group, draw.scenario.steps[use.step]
    if use.called.op is not None:
        return [(0, of, f"{use.called.op} of {ranks_text(group)}")]
    if use.called.kind not in ("all_gather", "all_to_all") or not isinstance(step, CollectiveStep):
        return [(0, of, use.called.kind)]
    counts = [*counts_in(step, group)]
    if sum(counts) != of:
        counts = [of // len(group)] * len(group) if of % len(group) == 0 else [of]
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    senders = [f"from rank {rank}" for rank in group] if len(counts) == len(group) else [f"from {len(group)} ranks"]
    return [(end - count, end, name) for end, count, name in zip(ends, counts, senders, strict=True)]
