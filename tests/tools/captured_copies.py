"""Whether a captured call by copy engines waits for its peers: asked of NCCL itself, on one GPU or several.

    python -m tests.tools.captured_copies --ranks 2 --json captured_copies.json

Each case has a new communicator, whose every call is made by copy engines. Some calls come first, then one is captured
and replayed. Before each replay a rank fills its output with what no rank sends, and all ranks but the first do so
late. An all-gather that waits for its peers leaves every output right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import torch

from tests.tools.operands import SEGMENT, Rank, ask, options_of, work

BEFORE = (0, 1, 2)
"""Calls before the captured one."""
REPLAYS = 3
COUNT = 4096
"""Elements that a rank sends."""
LATE = 0.2
"""Seconds."""
NOTHING = -1.0
"""What outputs hold before a call. Rank r sends r + 1."""


def answers(one: Rank) -> Iterator[tuple[str, ...]]:
    """(calls before, replay, what this rank's output held then)."""
    from harness.substrate.nccl.device import tensor_at

    for before in BEFORE:
        comm = one.communicator(one.nc.NCCLConfig(cta_policy=one.nc.CTAPolicy.ZERO))
        # The flags that calls by copy engines wait for are memory of the communicator, made at its first such call.
        source = tensor_at(one.other, COUNT * 4).view(torch.float32).fill_(one.rank + 1)
        output = tensor_at(one.address, COUNT * 4 * one.ranks).view(torch.float32)
        meeting = tensor_at(one.other + SEGMENT, 4).view(torch.float32)

        def gather(comm: object = comm, source: torch.Tensor = source, output: torch.Tensor = output) -> None:
            comm.allgather(source, output, stream=int(torch.cuda.current_stream().cuda_stream))  # type: ignore[attr-defined]

        told = one.told.written
        for _ in range(before):
            gather()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="relaxed"):
            gather()
        path = str(one.told.last_since(told))
        for replay in range(REPLAYS):
            torch.cuda.synchronize()
            comm.allreduce(meeting, meeting, one.nc.SUM, stream=int(torch.cuda.current_stream().cuda_stream))
            torch.cuda.synchronize()
            if one.rank:
                time.sleep(LATE)
            output.fill_(NOTHING)
            graph.replay()
            torch.cuda.synchronize()
            # a late copy of a peer's is over by then, too
            time.sleep(LATE)
            wrong = [int((output[COUNT * r : COUNT * (r + 1)] != r + 1).sum()) for r in range(one.ranks)]
            yield str(before), str(replay), "right" if not any(wrong) else f"wrong elements by sender: {wrong}", path
        # Such a communicator is left alone: a graph of it is alive.


def main() -> None:
    options = options_of()
    work(options, answers)
    seen = ask(options.ranks, options.seconds, "tests.tools.captured_copies")
    if options.json:
        options.json.write_text(json.dumps(seen))
    for rank, lines in enumerate(seen):
        for line in lines:
            print(f"rank {rank}:", *line, sep=" | ")


if __name__ == "__main__":
    main()
