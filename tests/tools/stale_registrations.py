"""Whether NCCL uses a graph's registration of memory that has been freed since: asked of NCCL itself, on two GPUs.

    python -m tests.tools.stale_registrations --ranks 2 --json stale_registrations.json

Every rank needs a GPU of its own. Each round makes memory, calls, and frees the memory. Then it makes memory again,
mostly at the same address, and calls again. Every result is compared bit for bit. The cases differ in these points:

| column | value  | meaning                                                                        |
| ------ | ------ | ------------------------------------------------------------------------------ |
| first  | graph  | the first call is captured, replayed, and its graph destroyed                  |
| first  | eager  | the control: the first call is not captured                                    |
| gap    | number | small calls on the communicator between the graph's end and that of its memory |
| memory | plain  | in no window                                                                   |
| memory | window | in a window; calls are forced to the legacy path (NCCL 2.31 and later)         |
| then   | graph  | the second call is captured and replayed                                       |
| then   | eager  | the second call is not captured                                                |

A plain call is captured at once. In a window `SETTLED` small calls come first, so nothing of the first graph is due.

By the source of NCCL 2.30.7 (2.27.7, 2.28.9 and 2.29.7 are alike):

- A captured call of the legacy path registers its operands: `ncclIpcGraphRegisterBuffer` (`src/transport/p2p.cc`), by
  `ncclRegisterCollBuffers` (`src/register/coll_reg.cc`). Ring calls do so with the Simple protocol, but for
  reduce-scatters, and all-reduces in place.
- The record goes by the address of the allocation. It holds where peers have mapped the physical memory.
- The graph's destructor only puts a callback into a queue. `groupLaunch` (`src/group.cc`) empties it at the end of each
  eleventh group of the communicator (`GROUP_MAX_RECLAIM_STEPS`).
- Until then `ncclRegister` (`src/register/register.cc`) finds that record for new memory at the address. Peers then
  write into the old physical memory, which their mapping keeps.
- A window registers as well (`ncclDevrWindowRegisterInGroup`, `src/dev_runtime.cc`). It holds the record that it finds,
  so the callback no longer removes it. Eager calls use it, too, for as long as the window lives.

With `NCCL_GRAPH_REGISTER=0` in the environment no captured call registers memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from tests.tools.operands import Rank, ask, options_of, work

KINDS = ("all_reduce", "all_gather", "reduce_scatter")
BYTES = 4 << 20
"""Of the larger operand."""
SEGMENT = 20 << 20
"""What PyTorch asks an allocator for, where operands have 1 to 10 MiB."""
FIRSTS = (("graph", 0), ("graph", 5), ("graph", 30), ("eager", 0))
"""The first call, and the gap after it."""
THENS = {"plain": ("graph",), "window": ("eager", "graph")}
"""The second calls, by memory."""
FORCED = (2, 31)
"""The first NCCL whose calls can be forced to the legacy path in a window."""
ROUNDS = 4
REPLAYS = 2
SETTLED = 30
"""Small calls after which no callback is left."""
SLEPT = 0.01
"""Seconds in which CUDA calls a graph's destructors, which it does on a thread of its own."""
SECONDS = 20
"""After which the ranks are stopped, with what they saw until then."""
FOUND = "NCCL USED A REGISTRATION OF FREED MEMORY"
COLUMNS = ("call", "bytes", "first", "gap", "memory", "then", "path")


class Row(NamedTuple):
    """What one rank saw in the rounds of a case. The first fields are those of `COLUMNS`; `path` is NCCL's word."""

    call: str
    bytes: str
    first: str
    gap: str
    memory: str
    then: str
    path: str
    same: str
    """Rounds in which the address was the same again."""
    wrong: str
    """Rounds in which a second call was wrong."""
    wrong_before: str
    """Rounds in which a first call was wrong."""


class Memory(NamedTuple):
    """A segment with the operands of a call, and its window if it has one."""

    address: int
    window: Any
    operands: Any


class Stage:
    """One rank with two communicators: `comm`, whose groups are counted, and one by which ranks meet."""

    def __init__(self, one: Rank) -> None:
        self.one, self.meeting, self.stream, self.seed = one, one.comm, torch.cuda.Stream(), 0
        self.comm = one.communicator()
        self.path = ""
        """NCCL's word for what the last of these calls ran."""

    def meet(self) -> None:
        """Wait for all ranks and their GPUs."""
        torch.cuda.synchronize()
        self.meeting.allreduce(self._small(0), self._small(0), self.one.nc.SUM, stream=self._current())
        torch.cuda.synchronize()

    def small_calls(self, count: int) -> None:
        """So many groups of the communicator."""
        for _ in range(count):
            self.comm.allreduce(self._small(1), self._small(1), self.one.nc.SUM, stream=self._current())
        torch.cuda.synchronize()

    def _small(self, index: int) -> torch.Tensor:
        from harness.substrate.nccl.device import tensor_at

        return tensor_at(self.one.other + 4096 * index, 4).view(torch.float32)

    @staticmethod
    def _current() -> int:
        return int(torch.cuda.current_stream().cuda_stream)

    def allocate(self, kind: str, is_in_window: bool) -> Memory:
        """Collective."""
        from harness.rank.probes.speed.operands import Operands
        from harness.substrate.nccl import quiet
        from harness.substrate.nccl.device import tensor_at
        from harness.substrate.nccl.handle import WINDOW_SYMMETRIC

        address = quiet.allocate(SEGMENT)
        rank, ranks = self.one.rank, self.one.ranks
        count = BYTES // 4 // (1 if kind == "all_reduce" else ranks)
        operands = Operands(kind, rank, ranks, count, torch.float32, torch.device("meta"))
        source, output = 4 * operands.source.numel(), 4 * operands.output.numel()
        operands.source = tensor_at(address, source).view(torch.float32)
        operands.output = tensor_at(address + SEGMENT // 2, output).view(torch.float32)
        self.meet()
        window = quiet.register(self.comm._comm, address, SEGMENT, WINDOW_SYMMETRIC) if is_in_window else None
        if is_in_window and not window:
            raise RuntimeError("NCCL gives no window here")
        self.meet()
        return Memory(address, window, operands)

    def free(self, memory: Memory) -> None:
        """Free memory that no live graph uses. Collective, as ranks may still reach it."""
        from harness.substrate.nccl import quiet

        self.meet()
        if memory.window is not None:
            quiet.deregister(self.comm._comm, memory.window)
        self.meet()
        quiet.free(memory.address)
        self.meet()

    def call(self, memory: Memory) -> None:
        """On the stream of the calls."""
        from harness.substrate.nccl.evidence import LEGACY

        told = self.one.told.written
        operands, stream = memory.operands, int(self.stream.cuda_stream)
        config = None if memory.window is None else self.one.forced(LEGACY)
        if operands.op == "all_gather":
            self.comm.allgather(operands.source, operands.output, stream=stream, config=config)
        elif operands.op == "reduce_scatter":
            self.comm.reduce_scatter(operands.source, operands.output, self.one.nc.SUM, stream=stream, config=config)
        else:
            self.comm.allreduce(operands.source, operands.output, self.one.nc.SUM, stream=stream, config=config)
        self.path = str(self.one.told.last_since(told))

    def captured(self, memory: Memory) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(capture_error_mode="thread_local")
            self.call(memory)
            graph.capture_end()
        return graph

    def replay(self, graph: torch.cuda.CUDAGraph) -> None:
        with torch.cuda.stream(self.stream):
            graph.replay()

    def is_wrong(self, memory: Memory, run: Callable[[], None]) -> bool:
        """Whether `run` leaves another result than is due, of new inputs. Collective."""
        from harness.rank.probes.speed.operands import is_same

        self.seed += 1
        due = memory.operands.fill(self.seed)
        self.meet()
        run()
        self.meet()
        return not is_same(memory.operands.output, due)

    def is_graph_wrong(self, memory: Memory) -> bool:
        """The same, of a captured call in any of its replays. The graph is gone then. Collective."""
        graph = self.captured(memory)
        wrong = [self.is_wrong(memory, partial(self.replay, graph)) for _ in range(REPLAYS)]
        del graph
        torch.cuda.synchronize()
        time.sleep(SLEPT)
        self.meet()
        return any(wrong)

    def first(self, memory: Memory, is_captured: bool) -> bool:
        """Whether the first calls were wrong."""
        wrong = self.is_wrong(memory, partial(self.call, memory))
        return (self.is_graph_wrong(memory) if is_captured else False) or wrong

    def second(self, memory: Memory) -> dict[str, bool]:
        """Whether the second calls were wrong."""
        if memory.window is None:
            return {"graph": self.is_graph_wrong(memory)}
        self.small_calls(SETTLED)
        return {"eager": self.is_wrong(memory, partial(self.call, memory)), "graph": self.is_graph_wrong(memory)}


def case(stage: Stage, kind: str, memory: str, first: str, gap: int) -> Iterator[Row]:
    """The rounds of a case, a row for each of its second calls. Collective."""
    seen: Counter[str] = Counter()
    for _ in range(ROUNDS):
        made = stage.allocate(kind, memory == "window")
        seen["wrong before"] += stage.first(made, first == "graph")
        stage.small_calls(gap)
        stage.free(made)
        again = stage.allocate(kind, memory == "window")
        seen["same"] += again.address == made.address
        for then, is_wrong in stage.second(again).items():
            seen[then] += is_wrong
        stage.small_calls(SETTLED)  # no round inherits from the one before
        stage.free(again)
    for then in THENS[memory]:
        counts = [str(seen[name]) for name in ("same", then, "wrong before")]
        yield Row(kind, str(BYTES), first, str(gap), memory, then, stage.path, *counts)


def answers(one: Rank) -> Iterator[Row]:
    """The rows of all cases."""
    stage = Stage(one)
    for kind in KINDS:
        for memory in memories(int(one.nccl.get_version())):
            for first, gap in FIRSTS:
                yield from case(stage, kind, memory, first, gap)
    stage.meet()


def memories(version: int) -> tuple[str, ...]:
    """Those that cases differ in, with an NCCL of this number."""
    from harness.machine.nccl import taken_apart

    return ("plain", "window") if taken_apart(version) >= FORCED else ("plain",)


def all_rows(version: int) -> int:
    """How many rows a rank has in the end."""
    return len(KINDS) * len(FIRSTS) * sum(len(THENS[memory]) for memory in memories(version))


def rows(seen: list[list[list[str]]]) -> list[list[Row]]:
    """The rows of every rank, without its first line."""
    return [[Row(*line) for line in lines[1:]] for lines in seen]


def table(ranks: list[list[Row]]) -> Iterator[str]:
    """A line for each case that all ranks have finished."""
    yield " | ".join((*COLUMNS, f"same address in rounds of {ROUNDS}, by rank", f"wrong rounds of {ROUNDS}, by rank"))
    for case in zip(*ranks, strict=False):
        counts = ("/".join(getattr(row, name) for row in case) for name in ("same", "wrong"))
        yield " | ".join((*case[0][: len(COLUMNS)], *counts))


def wrong(ranks: list[list[Row]], first: str) -> int:
    """Rounds in which a second call was wrong on a rank."""
    return sum(int(row.wrong) for rank in ranks for row in rank if row.first == first)


def verdict(ranks: list[list[Row]], is_whole: bool) -> tuple[str, int]:
    """The last line, and the exit status."""
    if wrong(ranks, "eager") or any(int(row.wrong_before) for rank in ranks for row in rank):
        return "calls were wrong that came after no graph: this shows nothing of registrations", 2
    if wrong(ranks, "graph"):
        return FOUND, 1
    if not is_whole:
        return "a rank did not answer in time", 2
    if not any(int(row.same) for rank in ranks for row in rank if row.first == "graph"):
        return "no address came again: this shows nothing", 2
    return "no call was wrong", 0


def main() -> None:
    options = options_of(seconds=SECONDS)
    work(options, answers)
    seen = ask(options.ranks, options.seconds, "tests.tools.stale_registrations")
    if options.json:
        options.json.write_text(json.dumps(seen))
    if len(seen) < options.ranks or not all(seen):
        sys.exit("a rank did not answer")
    ranks = rows(seen)
    print(*seen[0][0])
    print(*table(ranks), sep="\n")
    expected = all_rows(int(seen[0][0][1]))
    text, status = verdict(ranks, all(len(rank) == expected for rank in ranks))
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
