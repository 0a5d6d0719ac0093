"""Runs one scenario on one rank, step by step, and records what it saw.

Invariant: a rank is a deterministic function of the scenario. Garbage is collected when a buffer is
dropped and at no other time, so that blocks return to their pools at the same step on every rank. A
rank records facts and judges nothing; it compares an output with the exact result only to say where
the two differ.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any

import torch

from harness.rank import values
from harness.rank.buffers import Buffer
from harness.rank.collective import Call
from harness.rank.graphs import CapturedGraph
from harness.scenario.layout import Group
from harness.scenario.operands import GUARD, at
from harness.scenario.scenario import IMPLICIT, Scenario
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Collective,
    Deny,
    EndCapture,
    GraphStep,
    Prepare,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.system.boundary import call_system
from harness.system.context import PoolPolicy, ProcessGroup, RankContext
from harness.system.sites import BufferSites, ImplicitSites
from harness.trace import events as trace
from harness.trace.trace import TEARDOWN

GRAPH_STREAM = STREAMS
"""The stream on which graphs are warmed up and captured."""


class Executor:
    """One scenario on this rank. `run` is collective over the scenario's world."""

    def __init__(
        self, substrate: Substrate, scenario: Scenario, make_pool: Callable[[RankContext], PoolPolicy], kernel: Any
    ) -> None:
        self._substrate, self._scenario, self._kernel = substrate, scenario, kernel
        self._topology, self._rank = scenario.topology, substrate.rank
        self._record = substrate.record
        self._buffers: dict[str, Buffer] = {}
        self._graphs: dict[str, CapturedGraph] = {}
        self._graph_stream = ExitStack()
        self._index = 0
        self._policy = call_system("pool", lambda: make_pool(RankContext(substrate, scenario.world)))
        self._sites = self._make_sites()

    def run(self) -> None:
        """Every step, then give everything back. Raises `SystemRaised` if the system under test does."""
        try:
            for index, step in enumerate(self._scenario.steps):
                self._index = index
                self._record(trace.Began(index))
                self._take(step)
        except BaseException:
            with suppress(Exception):  # what went wrong before says more
                self._end_capture()
            raise
        self._record(trace.Began(TEARDOWN))
        self._graphs.clear()
        self._check_guards()
        for name in list(self._buffers):
            self._drop(name)

    def close(self) -> None:
        """Close the policy; after this nothing of the system under test should be left."""
        call_system("pool", self._policy.close)

    def _take(self, step: Step) -> None:  # noqa: PLR0912  (one case for each kind)
        match step:
            case Allocate():
                self._allocate(step)
            case Ballast():
                if step.rank == self._rank:
                    self._ballast(step)
            case Release():
                self._release(step.buffer)
            case AllGather() | ReduceScatter():
                self._collective(step)
            case Trim():
                for pool in self._substrate.pools.values():
                    pool.trim()
            case Recreate():
                self._forget_graphs(self._topology.group(step.family, self._rank))
                self._substrate.recreate(self._topology.families[step.family])
            case Straggle():
                if step.rank == self._rank:
                    time.sleep(step.milliseconds / 1000)
            case Steady():
                pass  # a word for the oracle
            case Deny():
                self._substrate.denial.is_due |= step.rank == self._rank
            case Prepare() | Capture() | EndCapture() | Replay():
                self._on_graph(step)

    def _on_graph(self, step: GraphStep) -> None:
        match step:
            case Prepare():
                self._begin_graph(step.graph)
            case Capture():
                self._begin_graph(step.graph)
                self._graphs[step.graph] = CapturedGraph(self._substrate)
            case EndCapture():
                self._end_capture()
            case Replay():
                self._replay(self._graphs[step.graph])

    def _group(self, family: str) -> ProcessGroup:
        return ProcessGroup(self._substrate, family, self._topology.group(family, self._rank))

    def _make_sites(self) -> BufferSites:
        if self._scenario.system.sites == "implicit":
            return ImplicitSites(self._policy, self._substrate.device.torch_device, self._group(IMPLICIT))
        return BufferSites(self._policy, self._substrate.device.torch_device)

    def _allocate(self, step: Allocate) -> None:
        """Allocate through a buffer site, or from ordinary memory."""
        dtype = getattr(torch, step.dtype)

        def size_of(rank: int) -> int:
            return at(step.elements, rank) + GUARD

        mine = size_of(self._rank)
        group = self._group(step.family)
        named: Group = ()

        def make() -> torch.Tensor:
            if step.role == "plain":
                return torch.empty(mine, dtype=dtype, device=self._substrate.device.torch_device)
            if step.site == "global":
                return self._sites.get_global_dp_buffer(group, mine, dtype)
            return self._sites.get_local_dp_buffer(group, size_of, dtype)

        if step.role == "window":
            named = self._sites.named(group).ranks
        with self._on(step.stream):
            self._place(step.buffer, mine, named, make, step.stream)
        if step.stream:  # its canaries are looked at on stream 0
            self._substrate.device.synchronize()

    def _on(self, stream: int) -> AbstractContextManager[None]:
        """Under it, that stream is current; what names none stays on the stream of its graph, if it is for one."""
        return self._substrate.device.stream(stream) if stream else nullcontext()

    def _ballast(self, step: Ballast) -> None:
        """Allocate on this rank alone, in the pool of its group."""
        group, size = self._group(step.family), step.size + GUARD

        def make() -> torch.Tensor:
            with self._policy.use(group):
                return torch.empty(size, dtype=torch.uint8, device=self._substrate.device.torch_device)

        self._place(step.buffer, size, group.ranks, make)

    def _place(self, name: str, size: int, named: Group, make: Callable[[], torch.Tensor], stream: int = 0) -> None:
        """Keep what the system under test allocated as a buffer of `size` elements, the guard included."""
        try:
            whole = call_system("pool", make)
        except torch.OutOfMemoryError:
            self._record(trace.Exhausted(name, size - GUARD))
            return
        segment = self._substrate.locate(whole.data_ptr())
        ident = -1 if segment is None else segment.ident
        nbytes = whole.numel() * whole.element_size()
        self._record(trace.Placed(name, ident, whole.data_ptr(), nbytes, named))
        is_guarded = not self._substrate.device.is_capturing
        self._buffers[name] = Buffer(name, whole[:size], size - GUARD, stream=stream, guarded=is_guarded)

    def _release(self, name: str) -> None:
        if name in self._buffers:
            self._check_guard(self._buffers[name])
            self._drop(name)

    def _drop(self, name: str) -> None:
        is_shared = self._buffers[name].is_shared
        del self._buffers[name]
        gc.collect()  # Triton's interpreter holds operands in cycles; the block must return now, on every rank
        if is_shared and not self._substrate.device.is_capturing:
            self._substrate.device.reclaim()
        self._record(trace.Dropped(name))

    def _check_guards(self) -> None:
        for buffer in self._buffers.values():
            self._check_guard(buffer)

    def _check_guard(self, buffer: Buffer) -> None:
        if buffer.guard is None or self._substrate.device.is_capturing:  # when nothing can be looked at
            return
        damage = buffer.guard.damage()
        if damage is not None:
            self._record(damage)

    def _collective(self, step: Collective) -> None:
        for view in (step.source, step.output):
            if view is not None and view.buffer not in self._buffers:
                self._record(trace.Skipped(view.buffer))
                return
        group = self._group(step.family)
        call = Call(self._substrate, self._buffers, step, group)
        if self._substrate.device.is_capturing:
            graph = self._graphs[self._substrate.graph or ""]
            graph.calls.append(call.capture(self._index))
            graph.buffers |= {view.buffer for view in (step.whole, step.part) if view is not None}
            return
        keys = [values.key(self._scenario.seed, self._index, rank) for rank in group.ranks]
        with self._on(step.stream):
            for view in filter(None, (step.whole, step.part)):
                if self._buffers[view.buffer].use_on(step.stream):
                    self._substrate.device.record_stream(self._buffers[view.buffer].body)
            call.run(keys, self._kernel)
        self._check_guards()

    def _begin_graph(self, name: str) -> None:
        """From here on, everything is for a graph, on the stream that captures it: blocks stay with their stream."""
        if self._substrate.graph is None:
            self._substrate.device.synchronize()
            self._substrate.graph = name
            self._graph_stream.enter_context(self._substrate.device.stream(GRAPH_STREAM))

    def _end_capture(self) -> None:
        """End the capture under way, if one is."""
        graph = self._graphs.get(self._substrate.graph or "")
        if graph is not None:
            graph.end()
        self._substrate.device.synchronize()
        self._graph_stream.close()
        self._substrate.graph = None

    def _forget_graphs(self, group: Group) -> None:
        """Drop the graphs that hold calls of a group: its communicator cannot be destroyed while they are there."""
        kept = {n: graph for n, graph in self._graphs.items() if all(call.ranks != group for call in graph.calls)}
        self._graphs = kept
        gc.collect()

    def _replay(self, graph: CapturedGraph) -> None:
        """Run a graph on new values, and look at its results and at all other buffers."""
        others = {name: buffer for name, buffer in self._buffers.items() if name not in graph.buffers}
        before = {name: bits(buffer.body).clone() for name, buffer in others.items()}
        exact = []
        for number, call in enumerate(graph.calls):
            keys = [values.key(self._scenario.seed, self._index, number, rank) for rank in call.ranks]
            exact.append(call.fill(keys))
        self._substrate.device.synchronize()
        for call in graph.calls[:1]:
            self._record(trace.Entered("replay", self._substrate.communicator(call.ranks).ident))
        graph.replay()
        self._substrate.device.synchronize()
        for call, expected in zip(graph.calls, exact, strict=True):
            self._record(trace.Replayed(call.index))
            if (mismatch := call.compare(expected)) is not None:
                self._record(mismatch)
        for name, was in before.items():
            changed = (bits(others[name].body) != was).nonzero().flatten()
            if changed.numel():
                self._record(trace.Overwritten(name, "replay", int(changed[0]), changed.numel()))
        self._check_guards()
