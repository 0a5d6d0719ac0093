"""Which sends NCCL loses where one side is registered and the other is not: asked of NCCL itself.

    python -m tests.tools.sends --ranks 2 --json sends.json

Every rank is a process; ranks may share a GPU. A row is one call, its bytes from one rank to another, and where its
operands lie:

| place  | memory                                                  |
| ------ | ------------------------------------------------------- |
| window | in a window of the communicator                         |
| apart  | of NCCL's allocator (`ncclMemAlloc`), and in no window  |
| plain  | of PyTorch's allocator (`cudaMalloc`), and in no window |

The call is made at once, or captured and replayed twice. It is `right`, `wrong` on some rank, or a `hang`. After one
that was not right, new processes go on. In the rows of `after`, a communicator makes such a call and is destroyed. Then
one that shares its connections (`splitShare`) makes calls with both sides in a window. What came of all is given in
their order.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import torch

from tests.tools.operands import SEGMENT, Rank, ask, options_of, work

CALLS = ("all_to_all", "grouped", "send_receive")
"""NCCL's own all-to-all; one of sends and receives in a group; and a ring of these."""
PLACES = ("window", "apart", "plain")
MODES = ("captured", "eager")
SMALL, LARGE = 16_384, 16_400
REPLAYS = 2
PATIENCE = 3.0
"""Seconds after which a call has not returned."""
SECONDS = 240
TURNS = 40
"""Calls of the communicator that shares connections."""
FAULT = "illegal memory access"
BAD = ("wrong", "hang", FAULT)
CASES = {
    f"{call} {mode}": [(call, mode, nbytes, *places) for nbytes in (LARGE, SMALL) for places in product(PLACES, PLACES)]
    for mode in MODES
    for call in CALLS
}
AFTER = [
    ("grouped", "eager", "plain", "window"),
    ("grouped", "eager", "window", "plain"),
    ("all_to_all", "captured", "plain", "window"),
    ("all_to_all", "captured", "window", "plain"),
]
LAST = "after"
TURN = 25
"""Seconds that ranks have until they are replaced."""
KIND = "SYMM_SENDS_KIND"
"""The variable that says which cases are asked."""
DONE = "SYMM_SENDS_DONE"
"""The variable that says how many cases were asked before."""


class Stage(Rank):
    """A rank that can tell its peers what it saw, and lose a communicator."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.meetings = self.seed = 0
        self.kept: list[Any] = []
        """Graphs that hang, so that nothing waits for their end."""

    def meet(self, said: str) -> str:
        """What any rank saw: the worst. Collective, past NCCL."""
        self.meetings += 1
        path = self.folder / f"met-{self.meetings}-{self.rank}"
        path.with_suffix(".new").write_text(said)
        path.with_suffix(".new").rename(path)
        everyone = [self.folder / f"met-{self.meetings}-{rank}" for rank in range(self.ranks)]
        while not all(each.exists() for each in everyone):
            time.sleep(0.001)
        return max((each.read_text() for each in everyone), key=("", "right", *BAD).index)

    def at(self, place: str, index: int, nbytes: int) -> torch.Tensor:
        """uint8[nbytes], the source (0) or the output (1)."""
        from harness.substrate.nccl.device import tensor_at

        if place == "plain":
            return torch.empty(nbytes, dtype=torch.uint8, device="cuda")
        return tensor_at((self.address if place == "window" else self.other) + index * SEGMENT, nbytes)

    def filled(self, call: str, source: torch.Tensor, output: torch.Tensor, nbytes: int, seed: int) -> torch.Tensor:
        """New inputs, and the result that is due."""

        def sent(sender: int, receiver: int) -> torch.Tensor:
            made = torch.Generator("cuda").manual_seed(1000 * seed + 10 * sender + receiver)
            return torch.randint(0, 255, (nbytes,), generator=made, device="cuda", dtype=torch.uint8)

        others = range(self.ranks)
        if call == "send_receive":
            source.copy_(sent(self.rank, 0))
            due = sent((self.rank - 1) % self.ranks, 0)
        else:
            source.copy_(torch.cat([sent(self.rank, other) for other in others]))
            due = torch.cat([sent(other, self.rank) for other in others])
        output.fill_(255)
        return due

    def calls(self, comm: Any, call: str, source: torch.Tensor, output: torch.Tensor, nbytes: int) -> None:
        stream = int(torch.cuda.current_stream().cuda_stream)
        if call == "all_to_all":
            comm.alltoall(source, output, stream=stream)
            return
        ring = call == "send_receive"
        gives = [(self.rank + 1) % self.ranks] if ring else [*range(self.ranks)]
        takes = [(self.rank - 1) % self.ranks] if ring else [*range(self.ranks)]
        with self.nc.group():
            for index, peer in enumerate(gives):
                comm.send(source[index * nbytes :][:nbytes], peer, stream=stream)
            for index, peer in enumerate(takes):
                comm.recv(output[index * nbytes :][:nbytes], peer, stream=stream)

    def outcome(self, run: Callable[[], None], output: torch.Tensor, due: torch.Tensor) -> str:
        """Collective."""
        torch.cuda.synchronize()
        self.meet("")
        run()
        done, end = torch.cuda.Event(), time.monotonic() + PATIENCE  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream())
        try:
            while not done.query() and time.monotonic() < end:
                time.sleep(0.001)
            said = "" if done.query() else "hang"
        except torch.AcceleratorError:
            said = FAULT
        return self.meet(said) or self.meet("right" if torch.equal(output, due) else "wrong")

    def tried(self, comm: Any, call: str, mode: str, nbytes: int, places: tuple[str, str]) -> str:
        """What becomes of a call. Collective."""
        whole = nbytes * (1 if call == "send_receive" else self.ranks)
        source, output = (self.at(place, index, whole) for index, place in enumerate(places))
        self.seed += 1
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            if mode == "eager":
                due = self.filled(call, source, output, nbytes, self.seed)
                return self.outcome(lambda: self.calls(comm, call, source, output, nbytes), output, due)
            graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            graph.capture_begin(capture_error_mode="thread_local")
            self.calls(comm, call, source, output, nbytes)
            graph.capture_end()
            said = "right"
            for _ in range(REPLAYS):
                self.seed += 1
                due = self.filled(call, source, output, nbytes, self.seed)
                said = self.outcome(graph.replay, output, due)
                if said in BAD:
                    break
            if said == "hang":
                self.kept.append(graph)
            return said

    def sends(self) -> Iterator[tuple[str, ...]]:
        """(call, mode, bytes, where the source lies, where the output does, what came of it), up to the first call that
        was not right."""
        for call, mode, nbytes, source, output in CASES[os.environ[KIND]][int(os.environ[DONE]) :]:
            said = self.tried(self.comm, call, mode, nbytes, (source, output))
            yield call, mode, str(nbytes), source, output, said
            if said in BAD:
                self.meet("")  # a rank that ends may end the call of another
                return

    def after(self) -> Iterator[tuple[str, ...]]:
        """What becomes of right calls by a communicator that shares connections with one that lost a send."""
        config = self.nc.NCCLConfig(split_share=True)
        for call, mode, *places in AFTER[int(os.environ[DONE]) :]:
            base = self.communicator(config)
            whole, self.address = self.address, self.other
            one = base.split(0, self.rank, config)
            window = self.nccl.comm_window_register(one._comm, self.address, 2 * SEGMENT, 1)
            first = self.tried(one, call, mode, LARGE, (places[0], places[1]))
            said = [first]
            if first != "hang":
                self.nccl.comm_window_deregister(one._comm, window)
                one.destroy()
                self.address = whole
                said += self.later(base)
            yield call, mode, "after", *places, "/".join(dict.fromkeys(said))
            if said[-1] in BAD[1:]:
                return

    def later(self, base: Any) -> Iterator[str]:
        """What becomes of right calls, up to one that never returns."""
        for _ in range(TURNS):
            said = self.tried(base, "all_to_all", "eager", LARGE, ("window", "window"))
            yield said
            if said in BAD[1:]:
                return


def asked(ranks: int, end: float, kind: str, cases: int) -> list[list[str]]:
    """The answers of rank 0 to all cases of a kind, in as many turns as it takes; fewer where the time is up."""
    rows: list[list[str]] = []
    while len(rows) < cases and time.monotonic() < end - TURN:
        seen = ask(ranks, TURN, "tests.tools.sends", {DONE: str(len(rows)), KIND: kind})
        if not seen or len(seen[0]) < 2:
            break
        print(*seen[0], sep="\n", flush=True)
        rows.extend(seen[0][1:])
    return rows


def table(rows: list[list[str]]) -> Iterator[str]:
    """A line for each call and mode and size: what came of it by place."""
    found: dict[tuple[str, ...], list[str]] = {}
    for call, mode, nbytes, source, output, said in rows:
        found.setdefault((call, mode, nbytes), []).append(f"{source}>{output}={said}")
    for key, said in found.items():
        yield f"{' '.join(key)} | {' '.join(said)}"


def main() -> None:
    from harness.machine import gpus

    options = options_of(seconds=SECONDS)
    work(options, Stage.after if os.environ.get(KIND) == LAST else Stage.sends, Stage)
    sizes = {**{name: len(cases) for name, cases in CASES.items()}, LAST: len(AFTER)}
    # ranks that share a GPU would wait for those of other kinds
    at_once = len(sizes) if len(gpus.inventory()) >= options.ranks else 1
    end = time.monotonic() + options.seconds
    with ThreadPoolExecutor(at_once) as pool:
        asks = [pool.submit(asked, options.ranks, end, kind, cases) for kind, cases in sizes.items()]
    rows = [row for each in asks for row in each.result()]
    if options.json:
        options.json.write_text(json.dumps(rows))
    print(*table(rows), sep="\n")
    if len(rows) < sum(sizes.values()):
        sys.exit("not all was asked")


if __name__ == "__main__":
    main()
