"""Runs one scenario on one rank, step by step, and records what it saw.

Invariant: a rank is a deterministic function of the scenario. Garbage is collected when a buffer is dropped or a graph
is forgotten, and at no other time, so that blocks return to their pools at the same step on every rank. A rank records
events and judges nothing: it compares an output with the exact result only to record where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import torch

from harness.clock import CLOCK, Clock
from harness.rank import values
from harness.rank.buffers import Declined, LiveBuffers, ToldMemory
from harness.rank.collective import Call
from harness.rank.deferred.flight import Flight
from harness.rank.deferred.graphs import Graphs
from harness.rank.disturbances import disturb
from harness.rank.origins import Calls
from harness.rank.own import collect, empty
from harness.scenario.bases import CollectiveStep
from harness.scenario.layouts.groups import GroupId, ids_of
from harness.scenario.operands import GUARD, at
from harness.scenario.scenario import IMPLICIT, Scenario
from harness.scenario.steps import (
    Allocate,
    Ballast,
    Capture,
    Collective,
    Deny,
    EndCapture,
    GraphStep,
    InFlight,
    Prepare,
    Recreate,
    Refuse,
    Release,
    Replay,
    Stall,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.substrate.base import Substrate
from harness.system.boundary import call_back, call_system
from harness.system.context import PoolPolicy, ProcessGroup, RankContext
from harness.system.executed import forget
from harness.system.opened import Opened
from harness.system.shape import allocate, check_pool, is_captured, is_forever, pointer
from harness.system.sites import BufferSites, ImplicitSites
from harness.trace import events as trace
from harness.trace.trace import TEARDOWN


class Executor:
    """One scenario on this rank. `run` is collective over the scenario's world."""

    def __init__(
        self,
        substrate: Substrate,
        scenario: Scenario,
        make_pool: Callable[[RankContext], PoolPolicy],
        kernel: Any,
        clock: Clock = CLOCK,
    ) -> None:
        self._substrate, self._scenario, self._kernel, self._clock = substrate, scenario, kernel, clock
        self._topology, self._rank = scenario.topology, substrate.rank
        self._record = substrate.record
        self._buffers = LiveBuffers(substrate, substrate.compares_always or scenario.is_watched)
        self._opened = Opened(kernel)
        self._is_recorded = call_system("collectives", lambda: is_captured(kernel))
        self._graphs = Graphs(substrate, self._buffers, scenario.seed)
        self._calls = Calls(scenario, substrate.rank)
        self._flight = Flight(substrate, self._buffers, self._calls.explained, scenario.seed)
        self._index = 0
        self._told = ToldMemory(substrate, self._topology)
        self._policy = call_system("pool", lambda: make_pool(RankContext(substrate, scenario.world)))
        call_system("pool", lambda: check_pool(self._policy))  # a policy's attributes may be code of its own
        self._sites = self._make_sites()
        self._comm_ptr = getattr(self._policy, "comm_ptr", None)
        self._brought: set[tuple[GroupId, int]] = set()
        """Groups that the policy has brought a communicator for, with their generations."""

    def run(self) -> None:
        """Every step, then give everything back. Raises `SystemRaised` if the system under test does."""
        try:
            for index, step in enumerate(self._scenario.steps):
                self._index = index
                self._record(trace.Began(index))
                self._buffers.kept.began(index)
                self._take(step)
        except BaseException:
            self._substrate.settle()  # what the policy did wrong in a call of NCCL comes before what that led to
            self._flight.close()
            with suppress(Exception):  # the first error says more than what ending the capture may raise
                self._graphs.end()
            raise
        self._record(trace.Began(TEARDOWN))
        self._buffers.kept.began(TEARDOWN)
        self._flight.end(TEARDOWN)
        self._graphs.clear()
        self._opened.close()
        self._substrate.record_unmapped()
        for communicator in self._substrate.communicators.values():
            communicator.record_beside()
        self._buffers.release_all()
        self._told.close()

    def close(self) -> None:
        """Close the policy; after this nothing of the system under test should be left. One without a teardown is
        dropped, once its windows are gone."""
        self._substrate.give_back()
        self._substrate.part()
        if not is_forever(self._policy):
            call_system("pool", lambda: self._policy.close())  # noqa: PLW0108  (to look `close` up may raise, too)
        else:
            self._substrate.records_leaks = False
            self._substrate.take_back()
            del self._policy, self._sites, self._comm_ptr
        forget()
        collect()
        self._substrate.settle()

    def _take(self, step: Step) -> None:
        if isinstance(step, Collective) and step.via == "kernel" and not self._is_recorded:
            self._substrate.device.flush()  # on every rank, or those in flight would run in different orders
        if isinstance(step, Allocate | Collective) and self._scenario.group_of(step, self._rank) is None:
            return  # for other ranks
        match step:
            case Allocate() | Ballast() | Release() | Trim():
                self._on_memory(step)
            case CollectiveStep():
                self._collective(step)
            case Prepare() | Capture() | EndCapture() | Replay():
                self._on_graph(step)
            case Recreate():
                self._recreate(step)
            case InFlight():
                (self._flight.begin if step.begins else self._flight.end)(self._index)
            case Straggle() | Stall() | Deny() | Refuse():
                disturb(step, self._substrate, self._clock)
            case Steady():
                pass  # for the oracle

    def _on_memory(self, step: Allocate | Ballast | Release | Trim) -> None:
        match step:
            case Allocate():
                self._allocate(step)
            case Ballast() if step.rank == self._rank:
                self._ballast(step)
            case Release():
                self._buffers.release(step.buffer)
            case Trim():
                for pool in self._substrate.pools.values():
                    call_back(pool.trim)

    def _on_graph(self, step: GraphStep) -> None:
        match step:
            case Prepare():
                self._graphs.begin(step.graph)
            case Capture():
                self._graphs.capture(step.graph)
            case EndCapture():
                self._graphs.end()
            case Replay():
                self._graphs.replay(step.graph, self._index)

    def _recreate(self, step: Recreate) -> None:
        family = self._topology.ids[step.family]
        mine = ids_of(family, self._rank)
        self._graphs.forget(mine)
        self._opened.close([self._substrate.communicators[group] for group in mine])
        self._substrate.recreate(family)

    def _group(self, step: Allocate | Ballast | Collective) -> ProcessGroup:
        group = self._scenario.group_of(step, self._rank)
        assert group is not None
        return ProcessGroup(self._substrate, step.family, group)

    def _make_sites(self) -> BufferSites:
        if self._scenario.system.sites == "implicit":
            (tp,) = ids_of(self._topology.ids[IMPLICIT], self._rank)
            return ImplicitSites(
                self._policy, self._substrate.device.torch_device, ProcessGroup(self._substrate, IMPLICIT, tp)
            )
        return BufferSites(self._policy, self._substrate.device.torch_device)

    def _allocate(self, step: Allocate) -> None:
        """Allocate through a buffer site, or from ordinary memory: as the step says, or as the policy declines."""
        dtype = getattr(torch, step.dtype)

        def size_of(rank: int) -> int:
            return at(step.elements, rank) + GUARD

        mine = size_of(self._rank)
        group = self._group(step)
        named = GroupId(())

        def make() -> torch.Tensor | Declined:
            if step.role == "plain":
                return self._ordinary(mine, dtype)
            if step.registered is not None:
                return self._told.allocate(step, mine, dtype)
            if step.site == "global":
                tensor = self._sites.get_global_dp_buffer(group, mine, dtype)
            else:
                tensor = self._sites.get_local_dp_buffer(group, size_of, dtype)
            return Declined(self._ordinary(mine, dtype)) if tensor is None else tensor

        if step.role == "window":
            asked = group if step.registered is not None else self._sites.named(group)
            named = asked.id
            self._bring(asked)
        with self._on(step.stream):
            self._buffers.place(step.buffer, mine, named, make, step.stream)
        self._substrate.settle()
        if not self._substrate.device.is_in_flight:  # there it has no canaries, which are looked at on other streams
            self._substrate.device.synchronize()

    def _bring(self, group: ProcessGroup) -> None:
        """Have the collectives of a group run over the communicator that the policy has for it, if it has its own.
        Collective over the group."""
        if self._comm_ptr is None:
            return
        communicator, key = group.communicator, (group.id, group.generation)
        if key not in self._brought:
            communicator.entered("comm_ptr")  # the policy may make it now, and wait for its peers
        comm_ptr = self._comm_ptr
        ptr = call_system("pool", lambda: pointer(comm_ptr, group))
        if key not in self._brought:
            self._record(trace.Returned("comm_ptr", communicator.ident))
            self._brought.add(key)
        if communicator.is_gone or communicator.ptr != ptr:  # the policy has another now
            self._opened.close([communicator])
        self._substrate.bring(group.id, ptr)

    def _ordinary(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """So many elements outside every pool."""
        tensor = empty(size, dtype=dtype, device=self._substrate.device.torch_device)
        if self._substrate.device.is_capturing:
            self._graphs.hold(tensor)
        return tensor

    def _on(self, stream: int) -> AbstractContextManager[None]:
        """Under it, that stream is current; what names none stays on the stream of its graph, if it is for one."""
        return self._substrate.device.stream(stream) if stream else nullcontext()

    def _ballast(self, step: Ballast) -> None:
        """Allocate on this rank alone, in the pool of its group."""
        group, size = self._group(step), step.size + GUARD

        def make() -> torch.Tensor:
            return allocate(self._policy, group, size, torch.uint8, self._substrate.device.torch_device)

        self._buffers.place(step.buffer, size, group.id, make)
        self._substrate.settle()

    def _collective(self, step: Collective) -> None:
        for view in (step.source, step.output):
            if view is not None and view.buffer not in self._buffers:
                self._record(trace.Skipped(view.buffer))
                return
        group = self._group(step)
        self._bring(group)
        call = Call(self._substrate, self._buffers, step, group)
        if self._opened.is_asked and call.goes_by(self._kernel):
            call.refusal = self._opened.open(group.communicator)
        operands = [view.buffer for view in (step.whole, step.part) if view is not None]
        if self._substrate.device.is_capturing:
            self._graphs.add(call.capture(self._index, self._kernel), operands)
            return
        keys = [values.key(self._scenario.seed, self._index, rank) for rank in group.ranks]
        with self._on(step.stream):
            for buffer in (self._buffers[name] for name in operands):
                # PyTorch gives a block back to its own stream at once, unless it knows of the others that use it.
                if buffer.use_on(step.stream):
                    self._substrate.device.record_stream(buffer.body)
            if self._substrate.device.is_in_flight:
                self._flight.add(call.launch(self._index, keys, self._kernel))
                self._calls.ran(self._index)
                return
            call.run(keys, self._kernel, partial(self._calls.explained, self._index))
        self._calls.ran(self._index)
        if step.via == "kernel":
            self._substrate.record_unmapped()
            group.communicator.record_beside()
        self._buffers.check()
