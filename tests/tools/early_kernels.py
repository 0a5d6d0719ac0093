"""Whether NCCL's symmetric kernels wait for the kernel before them that lets them start early: asked of NCCL itself.

    python -m tests.tools.early_kernels --ranks 2 --json early_kernels.json

Every rank needs a GPU of its own of sm_90 or later. A kernel of the harness (`harness.kernels.early`) lets the next
kernel of its stream start at once, and only then does its work:

| case    | its work                          | what a call does that does not wait             |
| ------- | --------------------------------- | ----------------------------------------------- |
| feeds   | it writes the call's source       | it sends what was there before                  |
| poisons | it writes the call's output       | it writes first, and its result is written over |
| reads   | it copies the output away         | it writes what was not yet copied               |
| witness | it writes the source of a copy | that copy does not wait, and reads old bytes    |

The witness is no call of NCCL. It shows that this GPU starts kernels early, or a right call says nothing. The case
"behind an event" is the witness with an event between the two that is done. NCCL orders its calls by events
(`ncclLaunchPrepare`), which may hide the defect. A captured call has none with `NCCL_GRAPH_MIXING_SUPPORT=0`, as SGLang
sets it for symmetric memory. Calls are tried with both.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tests.tools.operands import Rank, ask, options_of, work

MIXING = "NCCL_GRAPH_MIXING_SUPPORT"
SETTINGS = ("1", "0")
"""What `MIXING` is set to: NCCL's default, and what SGLang sets."""
ROUNDS = 20
CALLS = 2
"""Calls in a row, in a graph or without a wait between them."""
CHUNKS = (1 << 10, 64 << 10, 1 << 20)
"""Bytes of a rank's chunk."""
KINDS = ("all_gather", "reduce_scatter", "all_reduce")
CASES = ("feeds", "poisons", "reads")
MODES = ("eager", "graph")
HELD = 100_000
"""Nanoseconds that the early kernel holds its work back."""
BEHIND = 4_000_000
"""Cycles of a kernel before all others, behind which the host enqueues them: about 2 ms."""
OLD, NOTHING = -1.0, -2.0
"""What sources hold before they are fed, and outputs before a call."""
BLOCK = 1024
FOUND = "NCCL DOES NOT WAIT"


@triton.jit(do_not_specialize=("target", "source", "count"))
def hasty_kernel(target, source, count: tl.int64, BLOCK: tl.constexpr):  # noqa: N803  (as Triton writes them)
    """float32[count]: a copy that does not wait for the kernel before it."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < count), mask=at < count)


class Call(NamedTuple):
    """The operands of a call in a window, what feeds its source, and where its output is copied to."""

    source: torch.Tensor
    output: torch.Tensor
    fresh: torch.Tensor
    tap: torch.Tensor


class Streamed:
    """What one rank enqueues on the stream of its calls."""

    def __init__(self, one: Rank) -> None:
        self.one, self.stream, self.beside = one, torch.cuda.Stream(), torch.cuda.Stream()
        size = 2 * CALLS * one.ranks * CHUNKS[-1]
        self.window = int(one.nccl.mem_alloc(size))
        one.nccl.comm_window_register(one.comm._comm, self.window, size, 1)

    def calls(self, kind: str, chunk: int) -> list[Call]:
        """The operands of calls in a row. They share no memory."""
        from harness.substrate.nccl.device import tensor_at

        whole = chunk * self.one.ranks
        source, output = {"all_gather": (chunk, whole), "reduce_scatter": (whole, chunk)}.get(kind, (chunk, chunk))
        made = []
        for index in range(CALLS):
            at = self.window + 2 * index * whole
            placed = [tensor_at(at, source), tensor_at(at + whole, output)]
            operands = [each.view(torch.float32) for each in placed]
            made.append(Call(*operands, *map(torch.empty_like, operands)))
        return made

    def early(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """A copy by a kernel that lets the next one start first."""
        from harness.kernels import early

        count = target.numel() * target.element_size()
        programs = -(-count // early.BLOCK)
        early.early_move_kernel[(programs,)](
            target.view(torch.uint8), source.view(torch.uint8), count, HELD, early.BLOCK
        )

    def hasty(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """A copy by a kernel that starts early and does not wait."""
        count = target.numel()
        hasty_kernel[(-(-count // BLOCK),)](target, source, count, BLOCK, launch_pdl=True)

    def nccl(self, kind: str, call: Call) -> None:
        comm, nc, stream = self.one.comm, self.one.nc, int(torch.cuda.current_stream().cuda_stream)
        if kind == "all_gather":
            comm.allgather(call.source, call.output, stream=stream)
        elif kind == "reduce_scatter":
            comm.reduce_scatter(call.source, call.output, nc.SUM, stream=stream)
        else:
            comm.allreduce(call.source, call.output, nc.SUM, stream=stream)

    def expected(self, kind: str, number: int, turn: int) -> float:
        """What every element of a reduction's output is, or the first of an all-gather's."""
        sent = [value(rank, number, turn) for rank in range(self.one.ranks)]
        return sent[0] if kind == "all_gather" else sum(sent)


def value(rank: int, number: int, turn: int) -> float:
    """What a rank sends in a call. Sums of it are exact."""
    return 1.0 + rank + 16.0 * number + 64.0 * turn


def prepare(streamed: Streamed, calls: list[Call], case: str, turn: int) -> None:
    """Fill the memory of calls before a round."""
    for number, call in enumerate(calls):
        sent = value(streamed.one.rank, number, turn)
        call.fresh.fill_(sent)
        call.source.fill_(OLD if case in ("feeds", "witness", "behind an event") else sent)
        call.output.fill_(NOTHING)
        call.tap.fill_(NOTHING if case == "poisons" else 0)
    torch.cuda.synchronize()


def enqueue(streamed: Streamed, calls: list[Call], kind: str, case: str) -> None:
    """Each call, right behind its early kernel."""
    for call in calls:
        if case == "poisons":
            streamed.early(call.output, call.tap)
        elif case == "reads":
            streamed.early(call.tap, call.output)
        else:
            streamed.early(call.source, call.fresh)
        if case == "behind an event":
            streamed.stream.wait_event(streamed.beside.record_event())
        if case in CASES:
            streamed.nccl(kind, call)
        else:
            streamed.hasty(call.output, call.source)


def is_wrong(streamed: Streamed, call: Call, kind: str, case: str, number: int, turn: int) -> bool:
    """Whether this rank sees another result than of calls in the order of the stream."""
    ranks, rank = streamed.one.ranks, streamed.one.rank
    if case not in CASES:
        return bool((call.output != value(rank, number, turn)).any())
    if kind == "all_gather":
        rows = call.output.view(ranks, -1)
        result = any(bool((rows[peer] != value(peer, number, turn)).any()) for peer in range(ranks))
    else:
        result = bool((call.output != streamed.expected(kind, number, turn)).any())
    return result or (case == "reads" and bool((call.tap != NOTHING).any()))


def rounds(streamed: Streamed, kind: str, case: str, calls: list[Call], run: Callable[[], object]) -> Counter[int]:
    """How often each of the calls was wrong."""
    wrong: Counter[int] = Counter()
    for turn in range(ROUNDS):
        prepare(streamed, calls, case, turn)
        meet(streamed)
        with torch.cuda.stream(streamed.stream):
            torch.cuda._sleep(BEHIND)  # type: ignore[no-untyped-call]
            run()
        torch.cuda.synchronize()
        for number, call in enumerate(calls):
            wrong[number] += is_wrong(streamed, call, kind, case, number, turn)
        meet(streamed)
    return wrong


def meet(streamed: Streamed) -> None:
    """Wait for all ranks, by a call outside of every window."""
    from harness.substrate.nccl.device import tensor_at

    meeting = tensor_at(streamed.one.other, 4).view(torch.float32)
    stream = int(torch.cuda.current_stream().cuda_stream)
    streamed.one.comm.allreduce(meeting, meeting, streamed.one.nc.SUM, stream=stream)
    torch.cuda.synchronize()


def captured(streamed: Streamed, calls: list[Call], kind: str, case: str) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=streamed.stream, capture_error_mode="thread_local"):
        enqueue(streamed, calls, kind, case)
    return graph


def tried(mode: str) -> list[tuple[str, str]]:
    """Cases and calls, each of which is tried with every chunk."""
    copies = ["witness"] if mode == "graph" else ["witness", "behind an event"]
    return [(case, kind) for case in CASES for kind in KINDS] + [(copy, "all_gather") for copy in copies]


def answers(one: Rank) -> Iterator[tuple[str, ...]]:
    """(mode, case, call, bytes of a chunk, NCCL's kernel, wrong rounds of each call in a row)."""
    streamed = Streamed(one)
    kept = []  # NCCL counts on graphs that live
    for mode in MODES:
        for case, kind in tried(mode):
            for chunk in CHUNKS:
                calls = streamed.calls("all_reduce" if case not in CASES else kind, chunk)
                prepare(streamed, calls, case, 0)
                told = one.told.written
                with torch.cuda.stream(streamed.stream):
                    enqueue(streamed, calls, kind, case)  # compiled and loaded here
                torch.cuda.synchronize()
                kernel = str(one.told.last_since(told)) if case in CASES else "of the harness"
                run: Callable[[], object] = partial(enqueue, streamed, calls, kind, case)
                if mode == "graph":
                    kept.append(captured(streamed, calls, kind, case))
                    run = kept[-1].replay
                wrong = rounds(streamed, kind, case, calls, run)
                seen = [str(wrong[number]) for number in range(CALLS)]
                yield mode, case, kind if case in CASES else "copy", str(chunk), kernel, *seen


def wrong(ranks: list[list[list[str]]], *cases: str, mode: str = "") -> int:
    """Rounds that were wrong in these cases, of any call and rank."""
    rows = (row for lines in ranks for row in lines[1:] if row[1] in cases and row[0] in (mode or MODES))
    return sum(int(number) for row in rows for number in row[5:])


def verdict(seen: list[list[list[list[str]]]], size: int) -> tuple[str, int]:
    """The last line, and the exit status, of what so many ranks saw with each setting."""
    if any(wrong(ranks, *CASES) for ranks in seen):
        return FOUND, 1
    due = [sum(len(tried(mode)) * len(CHUNKS) for mode in MODES)] * size
    if any([len(lines) - 1 for lines in ranks] != due for ranks in seen):
        return "a rank did not answer in time", 2
    if not all(wrong(ranks, "witness", mode=mode) for ranks in seen for mode in MODES):
        return "no kernel started early: this shows nothing", 2
    return "no call of NCCL was wrong", 0


def main() -> None:
    options = options_of()
    work(options, answers)
    seen = {
        setting: ask(options.ranks, options.seconds, "tests.tools.early_kernels", {MIXING: setting})
        for setting in SETTINGS
    }
    if options.json:
        options.json.write_text(json.dumps(seen))
    if not all(ranks and all(ranks) for ranks in seen.values()):
        sys.exit("a rank did not answer")
    print(*seen[SETTINGS[0]][0][0], f"wrong rounds of {ROUNDS}: most of a rank, for each of {CALLS} calls in a row")
    for setting, ranks in seen.items():
        for rows in zip(*(lines[1:] for lines in ranks), strict=False):
            worst = [max(int(row[at]) for row in rows) for at in range(5, 5 + CALLS)]
            print(f"{MIXING}={setting}", *rows[0][:5], *worst, sep=" | ")
        print(f"{MIXING}={setting}: rows by rank {[len(lines) - 1 for lines in ranks]}")
    text, status = verdict(list(seen.values()), options.ranks)
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
