"""Which operands of a collective NCCL wants in a window, and what it runs then: asked of NCCL itself, on one GPU.

    python -m tests.tools.operands --ranks 2 --json operands.json

Every rank is a process. All make the same calls, each forced to one kernel, with each operand inside or outside a
window of the communicator. NCCL runs a call or refuses it with `ncclInvalidArgument`. Then it is asked for copy
engines, call by call, and what it ran is its own word to the profiler plug-in. Averages over owned memory come last, as
they fail.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

KERNELS = ("SYMK_LL", "SYMK_ST", "SYMK_LD", "SYMK_AGxLL_R", "SYMK_RSxLD_AGxST")
PLACES = ("neither", "source", "output", "both")
"""Which operands lie in a window."""
COUNT = 256
"""Elements of one chunk."""
KINDS = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "reduce", "gather", "scatter")
ROOTED = ("gather", "scatter")
"""nccl4py gives NCCL no memory on ranks that are not the root, so ranks would take different paths and wait."""
REDUCTIONS = {"reduce_scatter": "SYMK_LD", "all_reduce": "SYMK_RSxLD_AGxST"}
DTYPES = (
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float64",
    "int32",
    "int64",
    "int8",
    "uint8",
)
SEGMENT = 2 << 20
SIZES = (64, 1 << 18)
"""Elements of the averages."""
AVERAGES = (
    ("legacy", "^symk"),
    ("left to NCCL", ""),
    ("forced AGxLL_R", "SYMK_AGxLL_R"),
    ("forced RSxLD_AGxST", "SYMK_RSxLD_AGxST"),
)
"""How they are made; the last ones end NCCL's use of the communicator, which is a new one each time."""
INVALID_ARGUMENT = 4
"""`ncclInvalidArgument`."""


class Rank:
    """One process, with memory inside and outside of a window of its communicator."""

    def __init__(self, rank: int, ranks: int, folder: Path) -> None:
        import nccl.core as nc
        from nccl.bindings import nccl

        from harness.substrate.nccl.calls import Calls

        self.nc, self.nccl, self.rank, self.ranks, self.folder = nc, nccl, rank, ranks, folder
        torch.cuda.set_device(rank % torch.cuda.device_count())
        torch.empty(1, device="cuda")
        self.told = Calls()
        self.communicators = 0
        self.comm = self.communicator()

    def communicator(self, config: Any = None) -> Any:
        """A new communicator over all ranks, with a window over a segment of its own."""
        self.communicators += 1
        path = self.folder / f"id-{self.communicators}"
        if self.rank == 0:
            path.with_suffix(".new").write_bytes(bytes(self.nc.get_unique_id().as_bytes))
            path.with_suffix(".new").rename(path)
        while not path.exists():
            time.sleep(0.01)
        comm = self.nc.Communicator.init(self.ranks, self.rank, self.nc.UniqueId.from_bytes(path.read_bytes()), config)
        self.address = int(self.nccl.mem_alloc(2 * SEGMENT))
        self.window = self.nccl.comm_window_register(comm._comm, self.address, 2 * SEGMENT, 1)
        self.other = int(self.nccl.mem_alloc(2 * SEGMENT))
        return comm

    def operands(self, place: str, source: int, output: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Source and output of so many elements."""
        from harness.substrate.nccl.device import tensor_at

        made = []
        for index, (name, count) in enumerate((("source", source), ("output", output))):
            base = self.address if place in (name, "both") else self.other
            made.append(tensor_at(base + index * SEGMENT, count * dtype.itemsize).view(dtype))
        made[0].copy_(torch.ones(source).to(dtype))
        made[1].zero_()
        return made[0], made[1]

    def call(self, kind: str, place: str, dtype: str, op: str, config: Any, count: int = COUNT) -> str:
        """What comes of one call: `runs`, `refused`, or NCCL's own error."""
        try:
            self.make(kind, place, getattr(torch, dtype), op, config, count)
            torch.cuda.synchronize()
        except self.nccl.NCCLError as error:
            return "refused" if int(error.status) == INVALID_ARGUMENT else str(error).splitlines()[0]
        return "runs"

    def make(self, kind: str, place: str, dtype: torch.dtype, op: str, config: Any, count: int) -> None:
        all_of = count * self.ranks
        sizes = {"all_gather": (count, all_of), "reduce_scatter": (all_of, count), "all_to_all": (all_of, all_of)}
        sizes |= {"gather": (count, all_of), "scatter": (all_of, count)}
        source, output = self.operands(place, *sizes.get(kind, (count, count)), dtype)
        comm, how = self.comm, {"stream": int(torch.cuda.current_stream().cuda_stream), "config": config}
        reduction = getattr(self.nc, op.upper())
        calls: dict[str, Callable[[], None]] = {
            "all_gather": lambda: comm.allgather(source, output, **how),
            "reduce_scatter": lambda: comm.reduce_scatter(source, output, reduction, **how),
            "all_reduce": lambda: comm.allreduce(source, output, reduction, **how),
            "all_to_all": lambda: comm.alltoall(source, output, **how),
            "broadcast": lambda: comm.broadcast(source, output, 0, **how),
            "reduce": lambda: comm.reduce(source, output, reduction, 0, **how),
            "gather": lambda: comm.gather(source, output, 0, **how),
            "scatter": lambda: comm.scatter(source, output, 0, **how),
        }
        calls[kind]()

    def word(self, act: Callable[[], str]) -> str:
        """What NCCL told of the call that `act` makes, after what came of it."""
        before = self.told.written
        outcome = act()
        told = self.told.last_since(before)
        return f"{outcome}: {told}" if told else outcome

    def forced(self, kernel: str) -> Any:
        from harness.substrate.nccl.binding import CollectiveConfig

        return CollectiveConfig(alg_selection=kernel, force_alg_selection=True)

    def by_copy_engine(self) -> Any:
        from harness.substrate.nccl.binding import CollectiveConfig

        return CollectiveConfig(cta_policy=self.nc.CTAPolicy.ZERO)

    def answers(self) -> Iterator[tuple[str, str, str, str, str]]:
        """(what was asked, kind, op or dtype, place, what came of it)."""
        for kind in KINDS:
            for place in PLACES:
                for kernel in KERNELS:
                    yield "forced", kind, kernel, place, self.call(kind, place, "float32", "sum", self.forced(kernel))
        for kind, kernel in REDUCTIONS.items():
            for dtype in DTYPES:
                for op in ("sum", "max", "min", *(["avg"] if kind == "reduce_scatter" else [])):
                    said = self.call(kind, "both", dtype, op, self.forced(kernel))
                    yield "reduces", kind, f"{dtype} {op}", "both", said
        for kind in (kind for kind in KINDS if kind not in ROOTED):
            for place in PLACES:
                said = self.word(lambda k=kind, p=place: self.call(k, p, "float32", "sum", self.by_copy_engine()))  # type: ignore[misc]
                yield "copy engines", kind, "", place, said
        for name, selection in AVERAGES:
            for count in SIZES:
                self.comm = self.communicator()
                config = self.forced(selection) if selection else None
                said = self.word(lambda c=config, n=count: self.call("all_reduce", "both", "float32", "avg", c, n))  # type: ignore[misc]
                yield "averages", "all_reduce", f"{name} {count}", "both", said


def work(
    options: argparse.Namespace, answers: Callable[[Any], Iterable[tuple[str, ...]]], kind: type[Rank] = Rank
) -> None:
    """In the process of a rank: write what it sees, and end the process. Elsewhere do nothing."""
    if options.rank is None:
        return
    one = kind(options.rank, options.ranks, options.folder)
    with (one.folder / f"answers-{one.rank}").open("w") as file:
        device = torch.cuda.get_device_name()
        print(json.dumps(["version", str(int(one.nccl.get_version())), device]), file=file, flush=True)
        for answer in answers(one):
            print(json.dumps(answer), file=file, flush=True)
    os._exit(0)  # a communicator whose call failed is not destroyed in time


def ask(
    ranks: int, seconds: float = 200, module: str = "tests.tools.operands", variables: Mapping[str, str] | None = None
) -> list[list[list[str]]]:
    """The answers of every rank of a module's `main`, up to where they were stopped. `variables` are for the ranks'
    environment."""
    from harness.machine import gpus, mps, profiler

    session = mps.Mps({}, "a GPU a rank") if len(gpus.inventory()) >= ranks else mps.start()
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = {
            **os.environ, **session.environment, profiler.VARIABLE: profiler.library(),
            "NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "8",
            **(variables or {}),
        }  # fmt: skip
        command = [sys.executable, "-m", module, "--ranks", str(ranks), "--folder", name, "--rank"]
        running = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(ranks)]
        end = time.monotonic() + seconds
        try:
            for one in running:
                one.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"stopped after {seconds} s")
        finally:
            for one in running:
                one.kill()
                one.wait()
            session.close()
        written = [(folder / f"answers-{rank}") for rank in range(ranks)]
        return [[json.loads(line) for line in each.read_text().splitlines()] for each in written if each.exists()]


def options_of(arguments: Sequence[str] | None = None, seconds: float = 200) -> argparse.Namespace:
    """What such a tool takes: for a rank, its number and the folder that all share. `seconds` is its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--folder", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    work(options, Rank.answers)
    answers = ask(options.ranks, options.seconds)
    if options.json:
        options.json.write_text(json.dumps(answers))
    same = all(each == answers[0] for each in answers)
    if not answers or not answers[0]:
        sys.exit("no rank answered")
    print(*answers[0][0], "all ranks alike" if same else "RANKS DIFFER")
    rows: dict[tuple[str, str, str], list[str]] = {}
    for what, kind, detail, place, said in answers[0][1:]:
        key = (what, kind, detail if what != "reduces" else f"{detail.split()[1]} {said}")
        rows.setdefault(key, []).append(f"{place}={said}" if what != "reduces" else detail.split()[0])
    for key, said in rows.items():
        print(*key, "|", " ".join(said))


if __name__ == "__main__":
    main()
