"""Runs one scenario on one rank, step by step, and records what it saw.

Invariant: a rank is a deterministic function of the scenario. It records facts and judges nothing;
it compares an output with the exact result only to say where the two differ.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from harness import trace, values
from harness.collectives import CollectiveContext, NotOwned
from harness.context import PoolPolicy, ProcessGroup, RankContext
from harness.program import (
    FENCE,
    GUARD,
    AllGather,
    Allocate,
    Ballast,
    Collective,
    Deny,
    Recreate,
    ReduceScatter,
    Release,
    Scenario,
    Step,
    Straggle,
    Trim,
    View,
    at,
)
from harness.substrate.base import Substrate
from harness.trace import TEARDOWN, Operand

GUARD_SALT, FENCE_SALT = 1, 2

T = TypeVar("T")


class SystemRaised(Exception):
    """The system under test raised; `where` is pool or collectives."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.where = where


class Buffer:
    """A live buffer: its body, and the guard of canaries behind it."""

    def __init__(self, name: str, whole: torch.Tensor, elements: int) -> None:
        self.name, self.body, self._guard = name, whole[:elements], values.bits(whole[elements:])
        self._expected = values.canary(whole[elements:], GUARD_SALT)
        self._guard.copy_(self._expected)

    def guard_damage(self) -> trace.Overwritten | None:
        return _damage(self.name, "guard", self._guard, self._expected)


class Executor:
    """One scenario on this rank. `run` is collective over the scenario's world."""

    def __init__(
        self, substrate: Substrate, scenario: Scenario, make_pool: Callable[[RankContext], PoolPolicy], kernel: object
    ) -> None:
        self._substrate, self._scenario, self._kernel = substrate, scenario, kernel
        self._topology, self._rank = scenario.topology, substrate.rank
        self._record = substrate.record
        self._buffers: dict[str, Buffer] = {}
        self._index = 0
        self._policy = self._guarded("pool", lambda: make_pool(RankContext(substrate, scenario.world)))

    def run(self) -> None:
        """Every step, then give everything back. Raises `SystemRaised` if the system under test does."""
        for index, step in enumerate(self._scenario.steps):
            self._index = index
            self._record(trace.Began(index))
            self._take(step)
        self._record(trace.Began(TEARDOWN))
        self._check_guards()
        for name in list(self._buffers):
            self._drop(name)

    def close(self) -> None:
        """Close the policy; after this nothing of the system under test should be left."""
        gc.collect()  # a tensor in a reference cycle is garbage, not a leak
        self._guarded("pool", self._policy.close)

    def _take(self, step: Step) -> None:
        match step:
            case Allocate():
                elements = at(step.elements, self._rank)
                self._allocate(step.buffer, step.family if step.role == "window" else None, elements, step.dtype)
            case Ballast():
                if step.rank == self._rank:
                    self._allocate(step.buffer, step.family, step.size, "uint8")
            case Release():
                self._release(step.buffer)
            case AllGather() | ReduceScatter():
                self._collective(step)
            case Trim():
                for pool in self._substrate.pools.values():
                    pool.trim()
            case Recreate():
                self._substrate.recreate(self._topology.families[step.family])
            case Straggle():
                if step.rank == self._rank:
                    time.sleep(step.milliseconds / 1000)
            case Deny():
                self._substrate.denied |= step.rank == self._rank

    def _group(self, family: str) -> ProcessGroup:
        return ProcessGroup(self._substrate, family, self._topology.group(family, self._rank))

    def _allocate(self, name: str, family: str | None, elements: int, dtype: str) -> None:
        """Allocate from the policy's pool for `family`, or from ordinary memory."""

        def make() -> torch.Tensor:
            context = nullcontext() if family is None else self._policy.use(self._group(family))
            with context:
                return torch.empty(elements + GUARD, dtype=getattr(torch, dtype), device=self._substrate.device)

        try:
            whole = self._guarded("pool", make)
        except torch.OutOfMemoryError:
            self._record(trace.Exhausted(name, elements))
            return
        segment = self._substrate.locate(whole.data_ptr())
        size = whole.numel() * whole.element_size()
        ident = -1 if segment is None else segment.ident
        self._record(trace.Placed(name, ident, whole.data_ptr(), size))
        self._buffers[name] = Buffer(name, whole, elements)

    def _release(self, name: str) -> None:
        if name in self._buffers:
            self._check_guard(self._buffers[name])
            self._drop(name)

    def _drop(self, name: str) -> None:
        del self._buffers[name]
        self._record(trace.Dropped(name))

    def _check_guards(self) -> None:
        for buffer in self._buffers.values():
            self._check_guard(buffer)

    def _check_guard(self, buffer: Buffer) -> None:
        damage = buffer.guard_damage()
        if damage is not None:
            self._record(damage)

    def _collective(self, step: Collective) -> None:
        for view in (step.source, step.output):
            if view is not None and view.buffer not in self._buffers:
                self._record(trace.Skipped(view.buffer))
                return
        call = Call(self, step, self._group(step.family))
        call.run()
        self._check_guards()

    def _guarded(self, where: str, call: Callable[[], T]) -> T:
        """Run code of the system under test; whatever it raises but for memory ends the draw."""
        try:
            return call()
        except (torch.OutOfMemoryError, NotOwned):
            raise
        except Exception as error:
            raise SystemRaised(where, error) from error


class Call:
    """One collective on this rank: fill, fence, run, compare."""

    def __init__(self, executor: Executor, step: Collective, group: ProcessGroup) -> None:
        self._executor, self._step, self._group = executor, step, group
        self._substrate = executor._substrate
        self._communicator = group.communicator
        self._count = at(step.count, group.ranks[group.rank])
        self._keys = [values.key(executor._scenario.seed, executor._index, rank) for rank in group.ranks]
        self._in_place = step.source is None or step.output is None
        self.source, self.output = self._operands()
        self._name = step.output.buffer if step.output is not None else step.source.buffer  # type: ignore[union-attr]

    def _operands(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Source and output views on this rank; in place, the part is this rank's chunk of the whole."""
        size, mine = len(self._group.ranks), self._group.rank
        whole_view = self._step.output if isinstance(self._step, AllGather) else self._step.source
        part_view = self._step.source if isinstance(self._step, AllGather) else self._step.output
        assert whole_view is not None
        whole = self._view(whole_view, size * self._count)
        if part_view is None:
            part = whole[mine * self._count : (mine + 1) * self._count]
        else:
            part = self._view(part_view, self._count)
        return (part, whole) if isinstance(self._step, AllGather) else (whole, part)

    def _view(self, view: View, count: int) -> torch.Tensor:
        return self._executor._buffers[view.buffer].body[view.offset : view.offset + count]

    def run(self) -> None:
        fences = [] if self._step.output is None else self._fences(self._step.output)
        expected = self._fill(wide=self._step.via == "kernel")
        try:
            path, evidence = self._dispatch()
        except NotOwned:  # an engine falls back to the library here, and so does the harness
            expected = self._fill(wide=False)
            path, evidence = self._library()
        self._substrate.synchronize()
        self._executor._record(trace.Ran(self._communicator.ident, path, evidence, *self._where()))
        self._compare(expected)
        for region, pattern in fences:
            damage = _damage(self._name, "fence", region, pattern)
            if damage is not None:
                self._executor._record(damage)

    def _where(self) -> tuple[Operand, Operand]:
        names = [view.buffer if view is not None else self._name for view in (self._step.source, self._step.output)]
        if self._step.source is None and self._step.output is not None:
            names[0] = self._step.output.buffer
        return tuple(  # type: ignore[return-value]
            Operand(name, tensor.data_ptr(), tensor.numel() * tensor.element_size())
            for name, tensor in zip(names, (self.source, self.output), strict=True)
        )

    def _fences(self, view: View) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Canaries on both sides of the output view, as far as its buffer reaches."""
        body = self._executor._buffers[view.buffer].body
        end = view.offset + self.output.numel()
        regions = [body[max(0, view.offset - FENCE) : view.offset], body[end : end + FENCE]]
        fences = []
        for region in regions:
            if region.numel():
                pattern = values.canary(region, FENCE_SALT)
                values.bits(region).copy_(pattern)
                fences.append((values.bits(region), pattern))
        return fences

    def _fill(self, wide: bool) -> torch.Tensor:
        """Poison the output, fill this rank's source, and return the exact result."""
        step, device = self._step, self._substrate.device
        mine, dtype = self._group.rank, self.source.dtype
        values.poison(self.output)
        if isinstance(step, AllGather):
            inputs = values.gather_values(self._keys, self._count, dtype, device)
            values.bits(self.source).copy_(values.bits(inputs[mine]))
            return inputs.view(-1)
        size = len(self._keys)
        inputs = values.reduce_values(self._keys, size * self._count, dtype, step.op, wide, device)
        self.source.copy_(inputs[mine])
        chunk = inputs[:, mine * self._count : (mine + 1) * self._count]
        return values.reduce_result(chunk, step.op)

    def _dispatch(self) -> tuple[str, str]:
        if self._step.via == "library" or self._communicator.size == 1:
            return self._library()
        context, kernel = CollectiveContext(self._communicator), self._executor._kernel
        self._communicator.entered(f"{self._step.kind} kernel")
        if isinstance(self._step, AllGather):
            call = lambda: kernel.all_gather(context, self.output, self.source)  # type: ignore[attr-defined]  # noqa: E731
        else:
            op = self._step.op
            call = lambda: kernel.reduce_scatter(context, self.output, self.source, op)  # type: ignore[attr-defined]  # noqa: E731
        self._executor._guarded("collectives", call)
        return "kernel", "kernel"

    def _library(self) -> tuple[str, str]:
        if isinstance(self._step, AllGather):
            return self._communicator.all_gather(self.output, self.source)
        return self._communicator.reduce_scatter(self.output, self.source, self._step.op)

    def _compare(self, expected: torch.Tensor) -> None:
        """Record where the output differs from the exact result, bit for bit."""
        found, exact = values.bits(self.output), values.bits(expected)
        if torch.equal(found, exact):
            return
        wrong = (found != exact).nonzero().flatten()
        index = int(wrong[0])
        chunk = index // self._count if isinstance(self._step, AllGather) else self._group.rank
        self._executor._record(
            trace.Mismatch(
                self._name,
                wrong.numel(),
                found.numel(),
                index,
                chunk,
                _shown(expected, index),
                _shown(self.output, index),
            )
        )


def _shown(tensor: torch.Tensor, index: int) -> str:
    """One element as value and bits."""
    mask = (1 << 8 * tensor.element_size()) - 1
    return f"{tensor[index].item()!r} (0x{int(values.bits(tensor)[index]) & mask:0{2 * tensor.element_size()}x})"


def _damage(name: str, where: str, region: torch.Tensor, expected: torch.Tensor) -> trace.Overwritten | None:
    if torch.equal(region, expected):
        return None
    changed = (region != expected).nonzero().flatten()
    return trace.Overwritten(name, where, int(changed[0]), changed.numel())
