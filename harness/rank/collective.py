"""One collective on one rank: fill the source, poison and fence the output, run, compare.

Invariant: the ranks of a group make the same call and differ only in what they read and write. Inputs and exact results
follow from (seed, step, rank, index).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from harness.rank import cross_checks, values
from harness.rank.buffers import Canary, LiveBuffers
from harness.rank.deferred.calls import DeferredCall
from harness.rank.exact import ExactData, changed, shared, source_changed
from harness.scenario.bases import Role, is_uneven
from harness.scenario.operands import View, at
from harness.scenario.steps import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Collective,
    Reduce,
    ReduceScatter,
    SendReceive,
)
from harness.substrate.base import Substrate
from harness.substrate.bits import bits, place
from harness.system.boundary import call_system
from harness.system.collectives import REFUSALS, CollectiveContext, Unsupported
from harness.system.context import ProcessGroup
from harness.system.functional import returned
from harness.system.layouts import in_rank_order, rows_of, spread
from harness.system.opened import Refusal
from harness.system.shape import gathers_along, is_captured, is_functional, method_of, pulls, runs, takes_strides
from harness.trace import events as trace
from harness.trace.events import Operand

Explained = Callable[[trace.Mismatch, torch.Tensor, torch.Tensor, bool], trace.Mismatch]


def as_it_is(mismatch: trace.Mismatch, *_: object) -> trace.Mismatch:
    return mismatch


class Call:
    """A collective step about to run on this rank. `keys` are the input keys of the group's ranks."""

    def __init__(self, substrate: Substrate, buffers: LiveBuffers, step: Collective, group: ProcessGroup) -> None:
        self._substrate, self._buffers, self._step = substrate, buffers, step
        self._communicator = group.communicator
        self._exact = ExactData(step, group.ranks, group.rank, substrate.device.torch_device, substrate.recorder.beat)
        self._is_uneven = is_uneven(step, group.ranks)
        self._is_by_kernel = self._is_unsupported = self._pulls = False
        self.refusal: Refusal | None = None
        """What the plug-in, when it was opened, has refused all calls of this communicator by."""
        self._returned: torch.Tensor | None = None
        """What a plug-in in functional form has given as the result, element behind element."""
        self._rows = 1
        """Of the matrix that it gathered along its columns."""
        source, output = self._exact.lengths[group.rank]
        is_into_whole = step.whole_operand == "output"
        sizes = (output, source) if is_into_whole else (source, output)
        whole = self._view(step.whole, sizes[0])
        if step.part is None:
            start = step.part_in_whole(group.ranks, self._substrate.rank)
            part = whole[start : start + sizes[1]]
        else:
            part = self._view(step.part, sizes[1])
        names = step.whole.buffer, (step.part or step.whole).buffer
        self._output, self._source = (whole, part) if is_into_whole else (part, whole)
        self._into, self._from = names if is_into_whole else names[::-1]

    def _view(self, view: View, count: int) -> torch.Tensor:
        start = at(view.offset, self._substrate.rank)
        return self._buffers[view.buffer].body[start : start + count]

    def run(self, keys: list[int], kernel: Any, explained: Explained = as_it_is) -> None:
        """Collective over the group. `kernel` is the system under test for steps that go through one; `explained` adds
        to a mismatch of what was found with the exact result where it came from."""
        memory, kept = self._buffers.memory, self._buffers.kept
        kept.before(self._source, *self._written())
        fences = [] if self._step.output is None else self._fences(self._step.output)
        self._is_by_kernel = self.goes_by(kernel)
        is_wide = self._is_by_kernel
        filled, expected = self._fill(keys, is_wide)
        if "stamps" in self._substrate.evidence and self._is_library:
            for name, operand in self._peer_addressed:
                cross_checks.stamp(self._communicator, name, operand)
        memory.before(self._output, self._source, *(fence.region for fence in fences))
        self._record_call()
        run: Callable[[], tuple[str, str]] = partial(self._dispatch, kernel)
        try:
            path, evidence = run()
        except REFUSALS as refusal:  # an engine falls back to the library here, and so does the harness
            self._is_unsupported = isinstance(refusal, Unsupported)
            run, is_wide = self._library, False
            filled, expected = self._fill(keys, is_wide)
            path, evidence = run()
        self._substrate.device.synchronize()
        result = self._output if self._returned is None else self._returned
        self._substrate.touched("looks at", result, self._output, self._source)
        seen = result.clone()  # one look, and one verdict: a peer that runs on may change what lies there
        is_along = self._returned is not None and self._rows > 1
        found = in_rank_order(seen, self._rows, self._communicator.size) if is_along else seen
        left = self._source.clone()
        digest = self._exact.digest(found) if "digests" in self._substrate.evidence else None
        self._substrate.record(
            trace.Ran(path, evidence, digest, self._is_free(path), self._exact.alike(found), self._is_unsupported)
        )
        if (mismatch := self._exact.compare(self._into, found, expected, self._fed)) is not None:
            self._substrate.record(explained(mismatch, found, expected, path == "kernel"))
        if (spoiled := self._spoiled(filled, left)) is not None:
            self._substrate.record(spoiled)
        if self._returned is not None:
            self._output.copy_(found)  # where later steps look for it
            kept.came(self._returned)
        memory.after("call", self._output, self._source)
        for damage in filter(None, (fence.damage() for fence in fences)):
            self._substrate.record(damage)
        if (change := changed(self._into, seen, result.clone())) is not None:
            self._substrate.record(change)
        kept.after("call")
        is_kept = mismatch is None and change is None
        if is_kept and self._returned is not None:
            kept.hold_returned(self._returned, seen)
        if not self._exact.is_exact:
            self._run_again(keys, is_wide, run, seen, found)
        found = self._run_by_legacy(keys, path, found)
        if is_kept:
            kept.hold("output", self._into, self._output, found)
        if spoiled is None:
            kept.hold_source(self._from, self._source, left, self._output)

    def capture(self, index: int, kernel: Any) -> DeferredCall:
        """Capture the call, made at step `index`. Local; what is captured is collective."""
        call = self._deferred(index)
        self._is_by_kernel = self.goes_by(kernel)
        call.before()
        self._made(call, kernel)
        return call

    def launch(self, index: int, keys: list[int], kernel: Any) -> DeferredCall:
        """Make the call at step `index` and do not wait for it. Collective over the group, as it is for `run`."""
        call, device = self._deferred(index), self._substrate.device
        self._buffers.kept.before(*call.operands)
        self._is_by_kernel = self.goes_by(kernel)
        call.fill(keys, wide=self._is_by_kernel)
        call.before()
        if self._is_by_kernel and not self._is_recorded(kernel):
            device.flush()
        self._made(call, kernel, keys)
        return call

    def _made(self, call: DeferredCall, kernel: Any, keys: list[int] | None = None) -> None:
        """Make a call that is looked at later. `keys`: of the values that feed it, if it has any yet."""
        self._record_call()
        try:
            path, evidence = self._dispatch(kernel)
        except REFUSALS as refusal:
            self._is_unsupported = isinstance(refusal, Unsupported)
            if keys is not None:
                call.fill(keys)
                call.before()
            path, evidence = self._library()
        self._ran_later(path, evidence)
        call.returned, call.is_by_kernel = self._returned, path == "kernel"
        call.after()

    def _is_recorded(self, kernel: Any) -> bool:
        """Whether what the kernel under test launches is kept until it runs, where that is not now."""
        return call_system("collectives", lambda: is_captured(kernel))

    def _deferred(self, index: int) -> DeferredCall:
        call = DeferredCall(self._substrate, self._communicator.id, self._exact, index, self._into, self._from)
        call.take(self._output, self._source)
        return call

    def _ran_later(self, path: str, evidence: str) -> None:
        is_free, is_unsupported = self._is_free(path), self._is_unsupported
        self._substrate.record(trace.Ran(path, evidence, is_free=is_free, is_unsupported=is_unsupported))

    def _record_call(self) -> None:
        step, counts = self._step, self._exact.counts
        if isinstance(step, AllToAll):
            counts = self._given_away
        # in place a gather's source lies in the output, and an all-to-all gets a copy
        is_pulled = self._is_pulled and (step.part is not None or isinstance(step, Broadcast))
        pulled: tuple[Role, ...] = ("source",) if is_pulled else ()
        reached = dict.fromkeys((*step.reached, *pulled))
        self._substrate.record(
            trace.Called(
                self._communicator.ident,
                _operand(self._from, self._source, is_pulled),
                _operand(self._into, self._output, self._is_split),
                kind=step.kind,  # type: ignore[arg-type]
                dtype=str(self._output.dtype).removeprefix("torch."),
                op=step.op,
                counts=counts if len({*counts}) > 1 else counts[0],
                via="kernel" if self._is_by_kernel else "library" if self._step.via == "kernel" else self._step.via,
                family=step.family,
                meant=tuple(role for role in reached if self._buffers[self._names[role]].is_for_window),
                claims=step.claim,
                sent=step.sends(self._exact.group, self._substrate.rank),
                pulls=is_pulled,
            )
        )

    @property
    def _is_pulled(self) -> bool:
        """Whether peers read sources: all have an address then, also those of ranks without elements."""
        return self._pulls and any(each.source for each in self._exact.lengths)

    @property
    def _given_away(self) -> tuple[int, ...]:
        """The elements of each rank's source."""
        return tuple(each.source for each in self._exact.lengths)

    @property
    def _counts(self) -> tuple[int, ...]:
        """What a plug-in sees of how much each rank contributes. A table says so of an all-to-all: what each sends to
        every rank, or in all where that differs."""
        if not isinstance(self._step, AllToAll):
            return tuple(self._exact.counts)
        size = 1 if self._is_uneven else self._communicator.size
        return tuple(each // size for each in self._given_away)

    @property
    def _is_split(self) -> bool:
        """Whether a kernel moves what `splits` say: ranks that get nothing have an output all the same."""
        return self._is_by_kernel and isinstance(self._step, AllToAll) and self._is_uneven

    @property
    def _is_library(self) -> bool:
        return self._step.via != "kernel"

    @property
    def _names(self) -> dict[Role, str]:
        return {"source": self._from, "output": self._into}

    @property
    def _peer_addressed(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The operands through which ranks reach each other, once where both are one in place."""
        operands = {"source": self._source, "output": self._output}
        roles = self._step.reached
        return ((self._names[role], operands[role]) for role in (roles[:1] if self._step.part is None else roles))

    def _run_again(
        self, keys: list[int], wide: bool, run: Callable[[], object], seen: torch.Tensor, found: torch.Tensor
    ) -> None:
        """The same call on the same buffers once more, which owes the same bits. The output then holds `found`, as
        before."""
        first, kept = self._returned, self._buffers.kept
        self._buffers.memory.forget()
        self._fill(keys, wide)
        try:
            run()
            self._substrate.device.synchronize()
            second = self._output if self._returned is None else self._returned
            cross_checks.compare(self._communicator, self._into, seen, second, by_path=False)
            if first is not None:  # a ring of results has turned once more
                kept.write_again(first, second)
                kept.hold_returned(second, second.clone())
        except REFUSALS:  # the library may round otherwise
            pass
        self._returned = first
        self._output.copy_(found)

    def _run_by_legacy(self, keys: list[int], path: str, found: torch.Tensor) -> torch.Tensor:
        """The same call on the same buffers by the legacy path, if that is evidence and every rank took the symmetric
        one. Returns what the output holds then."""
        is_due = "differential" in self._substrate.evidence and self._is_library and self._exact.is_exact
        if not is_due or not cross_checks.agree_on(self._communicator, path):
            return found
        symmetric = self._output.clone()
        self._buffers.memory.forget()
        self._fill(keys, wide=False)
        with self._communicator.on_legacy_path():
            self._library()
        self._substrate.device.synchronize()
        cross_checks.compare(self._communicator, self._into, symmetric, self._output, by_path=True)
        return self._output.clone()

    def _spoiled(self, filled: torch.Tensor, left: torch.Tensor) -> trace.SourceChanged | None:
        return source_changed(self._from, filled, left, shared(self._source, self._output))

    def _written(self) -> list[torch.Tensor]:
        """Where the call's result goes, and its fences."""
        if self._step.output is None:
            return [self._output]
        start = at(self._step.output.offset, self._substrate.rank)
        return [self._buffers[self._step.output.buffer].fenced(start, start + self._output.numel())]

    @property
    def _fed(self) -> slice:
        """The elements of the result that held no poison before the call: the source's, or all of the plug-in's own."""
        return shared(self._output, self._source) if self._returned is None else slice(None)

    def _fences(self, view: View) -> list[Canary]:
        start = at(view.offset, self._substrate.rank)
        return self._buffers[view.buffer].fences(start, start + self._output.numel())

    def _fill(self, keys: list[int], wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Poison the output and fill this rank's source. Returns what it was filled with, and the exact result."""
        self._substrate.touched("fills", self._output, self._source)
        values.poison(self._output)
        mine, expected = self._exact.inputs(keys, self._source.dtype, wide)
        bits(self._source).copy_(bits(mine))
        return mine, expected

    def _dispatch(self, kernel: Any) -> tuple[str, str]:
        if not self._is_by_kernel:
            return self._library()
        if self.refusal is not None:
            raise self.refusal
        recorded = self._substrate.device.recorded(partial(call_system, "collectives"))
        with recorded if self._is_recorded(kernel) else nullcontext():
            return self._by_kernel(kernel)

    def _by_kernel(self, kernel: Any) -> tuple[str, str]:
        step, device = self._step, self._substrate.device
        entered = partial(self._communicator.entered, f"{step.kind} kernel")
        if device.is_in_flight:
            device.take_part(entered)
        else:
            entered()
        returns = call_system("collectives", lambda: is_functional(kernel))  # an attribute may be code of its own
        is_apart = (returns or self._pulls) and step.part is None and isinstance(step, AllGather)
        apart = self._source if is_apart else None
        context = CollectiveContext(self._communicator, self._counts, apart, self._is_pulled or self._is_split)
        method = method_of(step.kind, self._is_uneven)
        more: tuple[object, ...] = () if step.op is None else (step.op,)
        if self._is_split and isinstance(step, AllToAll):
            more = (step.sent(self._exact.group),)
        if returns:
            source, due = self._given(kernel), self._output
            if isinstance(step, AllGather) and gathers_along(kernel):
                source, due, more = self._as_matrix(source)
            self._returned = returned(kernel, method, (context, source, *more), due).view(-1)
            return "kernel", "the kernel under test"
        if isinstance(step, Broadcast):
            more = (step.root,)
        given = (context, self._output, self._given(kernel), *more)
        call_system("collectives", lambda: getattr(kernel, method)(*given), *REFUSALS)
        return "kernel", "the kernel under test"

    def goes_by(self, kernel: Any) -> bool:
        """Whether a kernel runs the call."""
        step = self._step
        if self._is_library or (self._substrate.device.is_capturing and not self._may_be_captured(kernel)):
            return False
        runs_it = call_system(
            "collectives", lambda: runs(kernel, step.kind, step.op, self._is_uneven, self._output.element_size())
        )
        self._pulls = runs_it and call_system("collectives", lambda: pulls(kernel, step.kind))
        return runs_it

    def _may_be_captured(self, kernel: Any) -> bool:
        # ranks that share a GPU meet on the host, which no graph does
        return self._substrate.device.has_barrier and self._is_recorded(kernel)

    def _given(self, kernel: Any = None) -> torch.Tensor:
        """The source that the call gets: a copy where the operation has no form in place, or where the plug-in takes
        one that is not contiguous."""
        step, source = self._step, self._source
        if step.part is None:
            return source.clone() if isinstance(step, AllToAll) else source
        is_read_by_peers = self._buffers[self._from].is_for_window
        if self._substrate.device.does_later or is_read_by_peers or not takes_strides(kernel, step.kind):
            return source
        return spread(source)

    def _as_matrix(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[object, ...]]:
        """Source, output and dimension of a gather along columns, or of one along the only dimension."""
        if self._is_uneven or self._substrate.device.does_later:
            return source, self._output, (0,)
        self._rows = rows_of(source.numel())
        if self._rows == 1:
            return source, self._output, (0,)
        return source.reshape(self._rows, -1), self._output.view(self._rows, -1), (1,)

    def _is_free(self, path: str) -> bool:
        """Whether the library might have taken the other path."""
        return path in ("symmetric", "legacy") and self._substrate.chooses_freely and not self._is_uneven

    def _library(self) -> tuple[str, str]:
        path, evidence = self._called()
        is_empty = not any(each.source for each in self._exact.lengths)  # NCCL returns at once
        return ("copy", "no elements") if is_empty else (path, evidence)

    def _called(self) -> tuple[str, str]:
        if self._step.via != "copy-engine":
            return self._issued()
        with self._communicator.by_copy_engine():
            return self._issued()

    def _issued(self) -> tuple[str, str]:
        step, communicator, output, source = self._step, self._communicator, self._output, self._source
        counts = self._exact.counts if self._is_uneven else None
        match step:
            case AllGather():
                ran = communicator.all_gather(output, source, counts)
            case ReduceScatter():
                ran = communicator.reduce_scatter(output, source, step.op, counts)
            case AllReduce():
                ran = communicator.all_reduce(output, source, step.op)
            case AllToAll():
                ran = communicator.all_to_all(output, self._given(), step.sent(self._exact.group))
            case Broadcast():
                ran = communicator.broadcast(output, source, step.root)
            case Reduce():
                ran = communicator.reduce(output, source, step.op, step.root)
            case SendReceive():
                ran = communicator.send_receive(output, source, step.shift)
        return ran


def _operand(buffer: str, view: torch.Tensor, is_reached: bool = False) -> Operand:
    return Operand(buffer, place(view) if is_reached else view.data_ptr(), view.numel() * view.element_size())
