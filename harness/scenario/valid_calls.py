"""Which collectives a program may call: operands that hold what every rank reaches, and exact results.

Invariant: a call that passes touches nothing outside its buffers on any rank, and its result is known bit by bit.
"""

from __future__ import annotations

from harness.scenario.alive import Alive, Graph
from harness.scenario.bases import CollectiveStep, is_uneven
from harness.scenario.operands import View, at, divides_exactly, is_summed_exactly
from harness.scenario.refusal import Refused, check_one_each, counts, live_buffer


def check_call(step: CollectiveStep, alive: Alive) -> None:
    """Refuse a collective that cannot run on what is alive."""
    counts("count", step.count, alive.topology)
    _check_kernel(step, alive)
    world = range(alive.topology.world)
    reach = [step.reach(alive.topology.group(step.family, rank), rank) for rank in world]
    dtype = _check_operand(step.whole, [each[0] for each in reach], alive)
    _check_one_place(step, alive)
    if step.part is not None:
        _check_part(step.whole, step.part, dtype, [each[1] for each in reach], alive)
    if step.op is not None:
        _check_reduction(step, dtype, [len(group) for group in alive.topology.families[step.family]])
    if alive.capturing is not None:
        _check_captured(step, alive.capturing)


def _check_kernel(step: CollectiveStep, alive: Alive) -> None:
    for group in alive.topology.families[step.family]:
        if step.via == "kernel" and is_uneven(step, group):
            raise Refused(f"ranks of {step.family}{list(group)} differ in count, which kernels do not take")


def _check_operand(view: View, needs: list[int], alive: Alive) -> str:
    """The dtype of a view whose buffer holds what each rank needs."""
    allocation = live_buffer(view.buffer, alive).allocation
    if allocation.rank is not None:
        raise Refused(f"{view.buffer!r} is ballast, which one rank holds alone")
    check_one_each("offset", view.offset, alive.topology)
    for rank, need in enumerate(needs):
        offset = at(view.offset, rank)
        room = at(allocation.elements, rank) - offset
        if offset < 0 or room < need:
            raise Refused(
                f"{view.buffer!r} holds {max(room, 0)} elements behind offset {offset} on rank {rank}, needs {need}"
            )
    return allocation.dtype


def _check_one_place(step: CollectiveStep, alive: Alive) -> None:
    if alive.buffers[step.whole.buffer].allocation.role != "window":
        return
    for group in alive.topology.families[step.family]:
        # NCCL's symmetric kernels apply the local offset to every peer, so a program may not ask for several;
        # no symmetric kernel runs a call of unequal counts
        if not is_uneven(step, group) and len({at(step.whole.offset, rank) for rank in group}) > 1:
            raise Refused(f"ranks of {step.family}{list(group)} reach peers at different offsets of their buffers")


def _check_part(whole: View, part: View, dtype: str, needs: list[int], alive: Alive) -> None:
    if part.buffer == whole.buffer:
        raise Refused(f"both operands lie in {part.buffer!r}; leave one out to run in place")
    other = _check_operand(part, needs, alive)
    if other != dtype:
        raise Refused(f"{whole.buffer!r} is {dtype} and {part.buffer!r} is {other}")


def _check_reduction(step: CollectiveStep, dtype: str, sizes: list[int]) -> None:
    if not is_summed_exactly(dtype):
        raise Refused(f"{dtype} is not reduced exactly in every order; use it in all_gather")
    if step.op == "avg" and dtype == "int32":
        raise Refused("avg of int32 is not exact")
    for size in sizes if step.op == "avg" else ():
        if not divides_exactly(dtype, size):
            raise Refused(f"avg over a group of {size} is not exact; the size must be a power of two")
    if step.op == "max" and step.via == "kernel":
        raise Refused("kernels reduce with sum or avg, not max")


def _check_captured(step: CollectiveStep, graph: Graph) -> None:
    if step.via == "kernel":
        raise Refused("kernels are not captured")
