"""Which collectives a program may call: operands that hold what every rank reaches, and exact results.

Invariant: a call that passes touches nothing outside its buffers on any rank, and its result is known bit by bit, or
within a bound that shows a wrong divisor (avg over a group whose size is no power of two).
"""

from __future__ import annotations

from harness.scenario.alive import Alive, Flight, Graph
from harness.scenario.bases import CollectiveStep, is_uneven
from harness.scenario.collectives import AllToAll, Broadcast, Reduce
from harness.scenario.layouts.groups import Group, GroupIds
from harness.scenario.operands import View, at, is_averaged, is_summed_exactly
from harness.scenario.refusal import Refused, check_acting, check_one_each, counts, live_buffer


def check_call(step: CollectiveStep, alive: Alive) -> None:
    """Refuse a collective that cannot run on what is alive."""
    acting = check_acting(step, alive.topology)
    counts("count", step.count, alive.topology, acting)
    groups = [group for group, _ in acting]
    _check_groups(step, groups)
    if isinstance(step, AllToAll):
        _check_all_to_all(step, groups)
    reach = {rank: step.reach(group, rank) for group in groups for rank in group}
    dtype = _check_operand(step.whole, {rank: each[0] for rank, each in reach.items()}, alive)
    if step.part is not None:
        _check_part(step.whole, step.part, dtype, {rank: each[1] for rank, each in reach.items()}, alive)
    _check_one_place(step, groups, alive)
    if step.op is not None:
        _check_reduction(step, dtype)
    if alive.capturing is not None:
        _check_captured(step, alive.capturing, alive.likeness(step))
    if alive.flight is not None:
        _check_flying(step, acting, alive.flight)


def _check_groups(step: CollectiveStep, groups: list[Group]) -> None:
    if step.via == "kernel" and not step.has_kernels:
        raise Refused(f"{step.kind} goes by the library alone")
    if step.via == "copy-engine" and not step.has_copies:
        raise Refused(f"{step.kind} is not moved by copy engines")
    root = step.root if isinstance(step, Broadcast | Reduce) else 0
    for group in groups:
        if step.has_one_count and is_uneven(step, group):
            raise Refused(f"ranks of {step.family}{list(group)} differ in count, which {step.kind} does not take")
        if step.via == "copy-engine" and is_uneven(step, group):
            raise Refused(f"ranks of {step.family}{list(group)} differ in count, which copy engines do not move")
        if not 0 <= root < len(group):
            raise Refused(f"root {root} is no index in {step.family}{list(group)}")


def _check_all_to_all(step: AllToAll, groups: list[Group]) -> None:
    rows = step.counts
    for group in groups:
        if step.source is None and is_uneven(step, group):
            raise Refused(f"all_to_all in place, and ranks of {step.family}{list(group)} differ in count")
    if rows is None:
        return
    if step.count != 0:
        raise Refused("count and counts say both what is sent; counts goes with count 0")
    for group in groups:
        if {len(rows), *map(len, rows)} != {len(group)}:
            raise Refused(f"counts is no table of {len(group)} rows of {len(group)} for the ranks {list(group)}")
    if any(sent < 0 for row in rows for sent in row):
        raise Refused("counts has a negative number")


def _check_operand(view: View, needs: dict[int, int], alive: Alive) -> str:
    """The dtype of a view whose buffer holds what each rank needs."""
    buffer = live_buffer(view.buffer, alive)
    allocation = buffer.allocation
    if allocation.rank is not None:
        raise Refused(f"{view.buffer!r} is ballast, which one rank holds alone")
    check_one_each("offset", view.offset, alive.topology)
    for rank, need in needs.items():
        if rank not in buffer.holders:
            raise Refused(f"rank {rank} acts and does not hold {view.buffer!r}")
        offset = at(view.offset, rank)
        room = at(allocation.elements, rank) - offset
        if offset < 0 or room < need:
            raise Refused(
                f"{view.buffer!r} holds {max(room, 0)} elements behind offset {offset} on rank {rank}, needs {need}"
            )
    return allocation.dtype


def _check_one_place(step: CollectiveStep, groups: list[Group], alive: Alive) -> None:
    for view in step.views if len(step.peer_operands) > 1 else (step.whole,):
        if alive.buffers[view.buffer].allocation.role != "window":
            continue
        for group in groups:
            # NCCL's symmetric kernels apply the local offset to every peer, so a program may not ask for several;
            # no symmetric kernel of NCCL's runs a call of unequal counts
            is_checked = step.via == "kernel" or not is_uneven(step, group)
            if is_checked and len({at(view.offset, rank) for rank in group}) > 1:
                raise Refused(f"ranks of {step.family}{list(group)} reach peers at different offsets of their buffers")


def _check_part(whole: View, part: View, dtype: str, needs: dict[int, int], alive: Alive) -> None:
    if part.buffer == whole.buffer:
        raise Refused(f"both operands lie in {part.buffer!r}; leave one out to run in place")
    other = _check_operand(part, needs, alive)
    if other != dtype:
        raise Refused(f"{whole.buffer!r} is {dtype} and {part.buffer!r} is {other}")


def _check_reduction(step: CollectiveStep, dtype: str) -> None:
    if not is_summed_exactly(dtype):
        raise Refused(f"{dtype} is not reduced exactly in every order; use it in all_gather")
    if step.op == "avg" and not is_averaged(dtype):
        raise Refused(f"avg of {dtype} is not exact")


def _check_captured(step: CollectiveStep, graph: Graph, likeness: object) -> None:
    if step.via == "kernel" and likeness not in graph.warmed:
        # a kernel is compiled and loaded, and a plug-in opened, when they first run, which no capture allows
        raise Refused(f"the warm-up of graph {graph.name!r} has no kernel call like it")
    if isinstance(step, AllToAll) and step.source is None:
        raise Refused("all_to_all in place reads a copy, which is not captured")


def _check_flying(step: CollectiveStep, acting: GroupIds, flight: Flight) -> None:
    if lack := lack_in_flight(step, acting, flight):
        raise Refused(lack)


def lack_in_flight(step: CollectiveStep, acting: GroupIds, flight: Flight) -> str:
    """Why a call cannot be made while these are in flight; empty where it can.

    Nothing orders two streams, but for library calls of one communicator.
    """
    if isinstance(step, AllToAll) and step.source is None:
        return "all_to_all in place reads a copy, which is not made in flight"
    for name in sorted(step.buffers):
        if flight.buffers.get(name, step.stream) != step.stream:
            return f"{name!r} is on stream {flight.buffers[name]} in flight, and here on {step.stream}"
    for group in acting if step.via == "kernel" else ():
        if flight.groups.get(group, step.stream) != step.stream:
            named = f"{step.family}{list(group.ranks)}"
            return f"{named} has kernels in flight on stream {flight.groups[group]}, and here on {step.stream}"
    return ""
