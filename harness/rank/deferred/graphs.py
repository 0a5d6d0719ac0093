"""Graphs on a rank: what was captured, and how it is replayed on new values.

Invariant: ordinary memory that was allocated in a capture stays with the graph, as with PyTorch. A pool's does not
(`harness.rank.deferred.calls`).
"""

from __future__ import annotations

from contextlib import ExitStack

import torch

from harness.rank import values
from harness.rank.buffers import LiveBuffers
from harness.rank.deferred.calls import DeferredCall, record_beside
from harness.rank.own import collect
from harness.scenario.layouts.groups import GroupIds
from harness.scenario.steps import STREAMS
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.trace import events as trace

GRAPH_STREAM = STREAMS
"""The stream on which graphs are warmed up and captured: one more than programs may use."""


class CapturedGraph:
    """A graph from the beginning of its capture. Local; `replay` is collective."""

    def __init__(self, substrate: Substrate) -> None:
        self.calls: list[DeferredCall] = []
        self.buffers: set[str] = set()
        """Operands, which a replay may change."""
        self.held: list[torch.Tensor] = []
        self._capturing = ExitStack()
        self._work = self._capturing.enter_context(substrate.device.capture())

    def end(self) -> None:
        """End the capture; a second call does nothing."""
        self._capturing.close()

    def replay(self) -> None:
        self._work.replay()


class Graphs:
    """The graphs of a draw on this rank, and the one that is being prepared or captured."""

    def __init__(self, substrate: Substrate, buffers: LiveBuffers, seed: int) -> None:
        self._substrate, self._buffers, self._seed = substrate, buffers, seed
        self._by_name: dict[str, CapturedGraph] = {}
        self._stream = ExitStack()

    def begin(self, name: str) -> None:
        """From here on, everything is for a graph, on the stream that captures it: blocks stay with their stream."""
        if self._substrate.graph is None:
            self._substrate.device.synchronize()
            self._substrate.graph = name
            self._stream.enter_context(self._substrate.device.stream(GRAPH_STREAM))

    def capture(self, name: str) -> None:
        """Begin the capture of a graph."""
        self.begin(name)
        self._by_name[name] = CapturedGraph(self._substrate)

    def add(self, call: DeferredCall, operands: list[str]) -> None:
        """Note a call that was captured for the graph under way."""
        graph = self._by_name[self._substrate.graph or ""]
        graph.calls.append(call)
        graph.buffers.update(operands)

    def hold(self, tensor: torch.Tensor) -> None:
        """Keep ordinary memory, allocated in the capture under way, for as long as its graph: that writes it at every
        replay. (PyTorch's graphs have a private pool for it.)"""
        self._by_name[self._substrate.graph or ""].held.append(tensor)

    def end(self) -> None:
        """End the capture under way, if one is."""
        graph = self._by_name.get(self._substrate.graph or "")
        if graph is not None:
            graph.end()
        self._substrate.device.synchronize()
        self._stream.close()
        self._substrate.graph = None

    def forget(self, groups: GroupIds) -> None:
        """Drop the graphs that hold calls of these groups."""
        # NCCL does not destroy a communicator while a graph holds a call of it.
        self._by_name = {
            name: graph
            for name, graph in self._by_name.items()
            if all(call.group not in groups for call in graph.calls)
        }
        collect()

    def clear(self) -> None:
        """Drop every graph."""
        self._by_name.clear()

    def replay(self, name: str, index: int) -> None:
        """Run a graph at step `index` on new values, and look at its results and at all other buffers."""
        graph, memory = self._by_name[name], self._buffers.memory
        before = {
            name: bits(buffer.body).clone() for name, buffer in self._buffers.items() if name not in graph.buffers
        }
        for number, call in enumerate(graph.calls):
            keys = [values.key(self._seed, index, number, rank) for rank in call.group.ranks]
            call.fill(keys, wide=call.is_by_kernel)
        self._substrate.device.synchronize()
        for call in graph.calls[:1]:
            self._substrate.record(trace.Entered("replay", self._substrate.communicator(call.group).ident))
        operands = [operand for call in graph.calls for operand in call.operands]
        memory.before()
        self._buffers.kept.before(*operands)
        for call in graph.calls:
            if call.returned is not None:
                self._buffers.kept.write_again(call.returned)
        graph.replay()
        self._substrate.device.synchronize()
        self._substrate.record_unmapped()
        memory.after("replay", *operands)
        self._buffers.kept.after("replay")
        self._compare(graph)
        self._look_at_others(before)
        record_beside(self._substrate, graph.calls)

    def _compare(self, graph: CapturedGraph) -> None:
        for call in graph.calls:
            self._substrate.record(trace.Replayed(call.index))
            self._buffers.kept.let_go(*call.operands)  # what an earlier call of the graph left there
            if (mismatch := call.compare()) is not None:
                self._substrate.record(mismatch)
            else:
                call.keep(self._buffers, call.index)
            if (spoiled := call.spoiled()) is not None:
                self._substrate.record(spoiled)

    def _look_at_others(self, before: dict[str, torch.Tensor]) -> None:
        """Record which buffers of no operand of the graph have changed."""
        for name, was in before.items():
            differs = bits(self._buffers[name].body) != was
            if differs.any():
                changed = differs.nonzero().flatten()
                self._substrate.record(trace.Overwritten(name, "replay", int(changed[0]), changed.numel()))
        self._buffers.check()
