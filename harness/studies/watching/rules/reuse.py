"""Memory of a graph that belongs to another tensor when the graph is launched, as PyTorch's allocator hands it out.

Invariant: times decide only where they differ by more than they may be wrong by. A tensor that was there when the
capture ended, that came in a capture, or that went before the launch, is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.machine.observer.records import Call, Graph, Held, History, Process
from harness.oracle.case import Case, ranks_text
from harness.oracle.findings import CapturedReuse, Finding
from harness.oracle.spans import Spans
from harness.studies.watching.callsites import place_of
from harness.studies.watching.members import Members, Team
from harness.studies.watching.telling import KINDS, sizes_of
from harness.text import counted
from harness.trace.events import Role

WHY_NOT = {
    "not-asked": "symm watch --graph-memory judges that",
    "no-torch": "the program has no PyTorch with CUDA",
    "own": "the program keeps a memory history of its own",
    "switched-off": "the program switched PyTorch's memory history off",
    "cannot": "PyTorch gave no memory history",
    "on": "the process has not ended by itself, so PyTorch's memory history was not read",
    "": "PyTorch's memory history could not be switched on",
}
"""By the state of a history that was not read."""


class Reused(NamedTuple):
    """A call of a graph, its operand, and who has the memory at a launch: `launch` is its number, from 1 on."""

    call: int
    graph: Graph
    role: Role
    held: Held
    launch: int


def reuse(members: Members, case: Case, told: Mapping[tuple[int, int], int]) -> Iterator[Finding]:
    """A finding for each call of a graph whose memory is another tensor's at the first or the last launch. `told`: by
    rank and step, the fact that is told there."""
    steps = {(rank, index): step for (rank, step), index in sorted(told.items(), reverse=True)}
    for rank, process in enumerate(members.processes):
        for found in _reused(process, {comm: team for (of, comm), team in members.by_end.items() if of == rank}):
            step = steps.get((rank, found.call), 0)
            call = process.facts[found.call]
            assert isinstance(call, Call)
            what = case.at_step(step) if step else f"{KINDS[call.function]} ({place_of(call.site)})"
            text = _text(found, f"{what} on {members.by_end[rank, call.comm].label}", rank, _rate(process))
            yield CapturedReuse(text, step=step, ranks=(rank,))


def _reused(process: Process, teams: Mapping[int, Team]) -> Iterator[Reused]:
    """The first operand of each call of a graph that another tensor has at a launch."""
    tensors = _tensors(process)
    for graph, index in _captured(process):
        call = process.facts[index]
        if isinstance(call, Call) and call.comm in teams:
            found = next(_of_call(index, call, teams[call.comm].size, graph, tensors), None)
            if found is not None:
                yield found


def _tensors(process: Process) -> Spans[list[Held]]:
    """The tensors that it told of, by their memory."""
    found: Spans[list[Held]] = Spans()
    for fact in process.facts:
        if isinstance(fact, Held):
            span = fact.address, fact.address + fact.size
            found.put(span, [*(found.get(span) or ()), fact])
    return found


def _captured(process: Process) -> Iterator[tuple[Graph, int]]:
    """Each graph that was launched, with each of its calls, as a number of a fact. The graph of a captured call is the
    last that came before it."""
    facts = process.facts
    told = [isinstance(fact, Graph) or (isinstance(fact, Call) and fact.captured) for fact in facts]
    order = np.asarray(process.order, np.int64)
    indexes = order[np.asarray(told, np.bool_)[order]] if len(order) else order
    known = set[tuple[int, int]]()
    current = -1
    for index in indexes.tolist():
        graph = facts[index]
        current = index if isinstance(graph, Graph) else current
        at = facts[current] if current >= 0 else None
        if isinstance(graph, Call) and isinstance(at, Graph) and _is_judged(at) and (current, index) not in known:
            known.add((current, index))
            yield at, index


def _is_judged(graph: Graph) -> bool:
    return graph.capture > 0 and graph.ended > 0 and graph.launches > 0


def _of_call(index: int, call: Call, ranks: int, graph: Graph, tensors: Spans[list[Held]]) -> Iterator[Reused]:
    source, output = sizes_of(call, ranks)
    operands: tuple[tuple[Role, int, int], ...] = ("output", call.receive, output), ("source", call.send, source)
    for role, address, size in operands:
        there = (held for _, alike in tensors.meeting(address, address + size) for held in alike)
        for held in sorted(there, key=lambda each: each.since):
            if launch := _launch_with(graph, held):
                yield Reused(index, graph, role, held, launch)


def _launch_with(graph: Graph, held: Held) -> int:
    """The first launch known to find a tensor that came after the capture; 0 if none is."""
    if held.since <= graph.ended + held.margin:
        return 0
    for number, when in ((1, graph.first), (graph.launches, graph.last)):
        if held.since + held.margin < when and (not held.until or when < held.until - held.margin):
            return number
    return 0


def _rate(process: Process) -> int:
    return next((fact.rate for fact in reversed(process.facts) if isinstance(fact, History) and fact.rate), 0)


def _text(found: Reused, call: str, rank: int, rate: int) -> str:
    graph, held = found.graph, found.held
    does = "writes" if found.role == "output" else "reads"
    launch = f"launch {found.launch} of {graph.launches}{_at(graph.launched_at) if found.launch == 1 else ''}"
    later = f" {_duration((held.since - graph.ended) / rate)} after the capture" if rate else " after the capture"
    return (
        f"the graph of capture {graph.capture}{_at(graph.site)} {does}, at {launch}, the {found.role} that {call} was "
        f"captured with on rank {rank}; a tensor of {counted(held.size, 'byte')} that was allocated{later}"
        f"{_at(held.site)} has this memory."
    )


def _at(site: str) -> str:
    place = place_of(site)
    return f" ({place})" if place else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def unjudged(processes: Sequence[Process]) -> Iterator[str]:
    """What is not known of the memory of graphs, a sentence for each reason."""
    reasons: dict[str, list[int]] = {}
    for rank, process in enumerate(processes):
        if _of_windows(process):
            reasons.setdefault(_reason(process), []).append(rank)
    for reason, ranks in reasons.items():
        if reason:
            yield f"Whether other tensors got memory of graphs on {ranks_text(tuple(ranks))}: {reason}."


def _of_windows(process: Process) -> list[Graph]:
    """The graphs that were launched and reach memory that may have windows."""
    graphs = (fact for fact in process.facts if isinstance(fact, Graph))
    return [graph for graph in graphs if graph.is_for_window and _is_judged(graph)]


def _reason(process: Process) -> str:
    """Why the memory of a process's graphs is not judged, or not all of it; empty where it is."""
    last = next((fact for fact in reversed(process.facts) if isinstance(fact, History)), History(""))
    if last.state not in ("read", "part"):
        return WHY_NOT.get(last.state, WHY_NOT["cannot"])
    first = min(graph.ended for graph in _of_windows(process))
    is_lost = last.state == "part" and last.since > first
    return "PyTorch's memory history no longer has the tensors that came early" if is_lost else ""
