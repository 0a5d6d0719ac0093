"""Which kernel in CUDA C++ runs a call, on which grid, with which arguments: the same choice on all ranks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from harness.kernels.cuda.collectives import (
    BLOCKS,
    COPIED,
    HERE,
    NEAR,
    SMALL,
    STAGING,
    THREADS,
    CudaCollectives,
    Ranks,
)
from harness.kernels.cuda.queued import QUEUED, QUEUERS, SLOTS, STAGES, QueuedCollectives, has_room
from harness.system.collectives import NotOwned, Unsupported

KIB, MIB = 1 << 10, 1 << 20
KINDS = "all_gather", "reduce_scatter", "all_reduce"


class Copied(Exception):
    """A copy engine is about to be asked."""


class Recorded:
    """In place of a source: what is launched."""

    def __init__(self, file: str, launches: list[tuple[Any, ...]]) -> None:
        self._file, self._launches = file, launches

    def launch(
        self, kernel: str, grid: int, block: int, *arguments: object, shared: int = 0, early: bool = False
    ) -> None:
        self._launches.append((self._file, kernel, grid, block, arguments))


class Context:
    """A rank on a GPU that is not there."""

    identity, shares_gpu, aligned, can_provide = "it", False, 128, True

    def __init__(self, rank: int, counts: Sequence[int], max_blocks: int) -> None:
        self.rank, self.size, self.counts, self.max_blocks = rank, len(counts), tuple(counts), max_blocks

    def workspace(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device="meta")

    def flags(self, words: int) -> torch.Tensor:
        return torch.empty(words, dtype=torch.int32, device="meta")

    def peer_pointers(self, tensor: torch.Tensor) -> list[int]:
        return [0] * self.size

    def alignment(self, tensor: torch.Tensor) -> int:
        return self.aligned

    def peer_addresses(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(self.size, dtype=torch.int64, device="meta")


def launches(
    kind: str,
    counts: Sequence[int],
    dtype: torch.dtype = torch.bfloat16,
    max_blocks: int = 132,
    op: str = "sum",
    make: Callable[..., Any] = Context,
    is_hopper: bool = False,
) -> list[list[tuple[Any, ...]]]:
    """What each rank launches for a call."""
    found = []
    for rank in range(len(counts)):
        kernels: Any = QueuedCollectives()
        made: list[tuple[Any, ...]] = []
        for name, file in (("ll", "ll.cu"), ("queued", "queues.cu"), ("fused", "fused.cu")):
            setattr(kernels, name, Recorded(file, made))
        context = make(rank, counts, max_blocks)
        kernels.open(context)
        whole, part = (
            torch.empty(each, dtype=dtype, device="meta")
            for each in (counts[0] if kind == "all_reduce" else sum(counts), counts[rank])
        )
        output, source = (whole, part) if kind == "all_gather" else (part, whole)
        more = () if kind == "all_gather" else (op,)
        with patch("harness.kernels.cuda.queued.has_room", return_value=is_hopper):
            getattr(kernels, kind)(context, output, source, *more)
        found.append(made)
    return found


@pytest.mark.parametrize("size", [1, 2, 4, 8, 17])
@pytest.mark.parametrize("nbytes", [2, 4 * KIB, 256 * KIB, SMALL, SMALL + 2, MIB, 16 * MIB, 100 * MIB])
@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_launch_the_same_with_as_many_arguments_as_the_kernel_has(kind: str, nbytes: int, size: int) -> None:
    first, *others = launches(kind, [nbytes // 2] * size)
    assert all([each[:4] for each in other] == [each[:4] for each in first] for other in others)
    ((file, kernel, grid, block, arguments),) = first
    name = kernel.partition("<")[0]
    (parameters,) = re.findall(rf"^(?:__global__ void|KERNEL) {name}\((.*?)\)", (HERE / file).read_text(), re.M | re.S)
    assert len(arguments) == len(parameters.split(","))
    for argument, parameter in zip(arguments, parameters.split(","), strict=True):
        kind_of = {"int": np.int32, "i64": np.int64, "float": np.float32, "GIVEN": Ranks}.get(parameter.split()[0])
        assert isinstance(argument, torch.Tensor if "*" in parameter else kind_of or object), parameter
    assert 1 <= grid <= BLOCKS
    assert block >= size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [2, 33, 1000])
def test_no_more_blocks_are_launched_than_run_at_one_time(kind: str, most: int) -> None:
    for nbytes in (4 * KIB, SMALL, MIB, 64 * MIB):
        for rank in launches(kind, [nbytes // 2] * 2, max_blocks=most):
            assert all(grid <= most for _, _, grid, _, _ in rank)


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_counts_that_differ_are_no_small_call_on_any_rank(kind: str) -> None:
    found = launches(kind, [5, 0, 7])
    assert {(file, grid) for rank in found for file, _, grid, _, _ in rank} == {("fused.cu", 1)}


def test_small_calls_of_many_ranks_end_where_their_slots_do() -> None:
    files = {size: launches("all_gather", [SMALL // 2] * size)[0][0][0] for size in (2, 4, 8)}
    assert files == {2: "ll.cu", 4: "fused.cu", 8: "fused.cu"}


def test_an_all_reduce_of_many_ranks_is_small_only_where_its_data_may_go_to_all_of_them() -> None:
    files = {size: launches("all_reduce", [MIB // 2] * size)[0][0][0] for size in (2, 4, 8)}
    assert files == {2: "ll.cu", 4: "ll.cu", 8: "fused.cu"}


@pytest.mark.parametrize(("dtype", "op"), [("float8_e4m3fn", "sum"), ("float64", "sum"), ("int32", "avg")])
@pytest.mark.parametrize("kind", ["reduce_scatter", "all_reduce"])
def test_a_reduction_without_a_kernel_is_left_to_the_library(kind: str, dtype: str, op: str) -> None:
    with pytest.raises(Unsupported):
        launches(kind, [8, 8], getattr(torch, dtype), op=op)


def test_ranks_that_cannot_run_side_by_side_are_left_to_the_library() -> None:
    class Shared(Context):
        shares_gpu = True

    context: Any = Shared(0, (8, 8), 1)
    with pytest.raises(Unsupported):
        CudaCollectives().open(context)


def test_the_largest_gathers_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def copies(*given: object) -> None:
        raise Copied

    monkeypatch.setattr(CudaCollectives, "_copy", copies)
    with pytest.raises(Copied):
        launches("all_gather", [COPIED // 2] * 2)


class Unaligned(Context):
    aligned = 8


class Busy(Context):
    """Work is captured or in flight."""

    can_provide = False


@pytest.mark.parametrize(
    ("kind", "size", "nbytes", "make", "file"),
    [
        ("reduce_scatter", 2, QUEUED["reduce_scatter"], Context, "queues.cu"),
        ("reduce_scatter", 2, QUEUED["reduce_scatter"] - 16, Context, "fused.cu"),
        ("reduce_scatter", 2, QUEUED["reduce_scatter"] + 2, Context, "fused.cu"),  # the second slice is not aligned
        ("reduce_scatter", 2, QUEUED["reduce_scatter"], Unaligned, "fused.cu"),
        ("reduce_scatter", 2, QUEUED["reduce_scatter"], Busy, "fused.cu"),
        ("reduce_scatter", 3, QUEUED["reduce_scatter"], Context, "fused.cu"),
        ("reduce_scatter", 1, QUEUED["reduce_scatter"], Context, "fused.cu"),
        ("all_reduce", 2, 2 * QUEUED["all_reduce"] + 2, Context, "queues.cu"),
        ("all_reduce", 2, 2 * QUEUED["all_reduce"] - 64, Context, "fused.cu"),
        ("all_gather", 2, COPIED - 2, Context, "fused.cu"),
    ],
)
def test_queues_take_large_reductions_of_two_ranks(
    kind: str, size: int, nbytes: int, make: Callable[..., Any], file: str
) -> None:
    for ((found, kernel, grid, block, arguments),) in launches(kind, [nbytes // 2] * size, make=make, is_hopper=True):
        (parameters,) = re.findall(rf"^KERNEL {kind}\((.*?)\)", (HERE / found).read_text(), re.M | re.S)
        assert (found, len(arguments)) == (file, len(parameters.split(","))), kernel
        for argument, parameter in zip(arguments, parameters.split(","), strict=True):
            assert isinstance(argument, torch.Tensor) is ("*" in parameter), parameter
        assert grid <= BLOCKS
        assert block == (QUEUERS if file == "queues.cu" else THREADS)


@pytest.mark.parametrize(("capability", "has"), [((8, 0), False), ((9, 0), True), ((10, 0), False), ((12, 0), False)])
def test_queues_are_for_gpus_with_their_shared_memory(
    capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    on_a_gpu: Any = OnGpu()
    assert has_room(on_a_gpu) is has


def test_queues_are_made_by_the_first_call_that_needs_them_and_go_with_the_communicator() -> None:
    class Counted(Context):
        asked = 0

        def workspace(self, nbytes: int) -> torch.Tensor:
            self.asked += 1
            return super().workspace(nbytes)

    context: Any = Counted(0, (8, 8), 132)
    kernels: Any = QueuedCollectives()
    kernels.open(context)
    seen = [context.asked]
    context.can_provide = False
    seen.append(kernels.has_queues(context))
    context.can_provide = True
    seen += [kernels.has_queues(context), context.asked]
    context.can_provide = False
    seen += [kernels.has_queues(context), context.asked]
    kernels.close(context)
    seen.append(kernels.has_queues(context))
    assert seen == [1, False, True, 2, True, 2, False]


def test_slots_of_queues_are_as_the_kernels_say() -> None:
    said = dict(re.findall(r"\b(SLOTS|STAGES|PUSHER) = (\d+)", (HERE / "queues.cu").read_text()))
    assert {"SLOTS": str(SLOTS), "STAGES": str(STAGES)}.items() <= said.items()
    assert f"__launch_bounds__({QUEUERS}, 2)" in (HERE / "queues.cu").read_text()
    assert f"NEAR = {NEAR};" in (HERE / "signals.cuh").read_text()


class OutputsApart(Context):
    """The output of an all-reduce lies in no window: after three tensors of the plug-in's own, and the source."""

    asked = 0

    def peer_pointers(self, tensor: torch.Tensor) -> list[int]:
        self.asked += 1
        if self.asked == 5:
            raise NotOwned
        return super().peer_pointers(tensor)


@pytest.mark.parametrize(("make", "kernel"), [(Context, "all_reduce"), (OutputsApart, "all_reduce_staged")])
def test_an_all_reduce_stages_where_peers_do_not_reach_the_outputs(make: Callable[..., Any], kernel: str) -> None:
    for ((file, name, grid, _, arguments),) in launches("all_reduce", [8 * MIB] * 2, make=make):
        (parameters,) = re.findall(rf"^KERNEL {kernel}\((.*?)\)", (HERE / file).read_text(), re.M | re.S)
        assert (name.partition("<")[0], len(arguments)) == (kernel, len(parameters.split(",")))
        assert grid == (STAGING if kernel == "all_reduce_staged" else BLOCKS)


class OnGpu:
    """Flags on a GPU, of which only the words are used."""

    is_cuda = True

    def __getitem__(self, words: slice) -> torch.Tensor:
        return torch.empty(0, dtype=torch.int32, device="meta")


class Early:
    """In place of a source: whether its kernels start early."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def launch(self, *_: object, early: bool = False) -> None:
        self.seen.append(early)


@pytest.mark.parametrize(
    ("capability", "shares_gpu", "nbytes", "early"),
    [
        ((9, 0), False, 4 * KIB, True),
        ((9, 0), False, SMALL, False),  # so many blocks leave no room for another communicator's kernel
        ((9, 0), True, 4 * KIB, False),  # nor do those of several ranks
        ((8, 9), False, 4 * KIB, False),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_few_blocks_that_have_a_gpu_to_themselves_start_early(
    kind: str,
    capability: tuple[int, int],
    shares_gpu: bool,
    nbytes: int,
    early: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    context: Any = Context(0, [nbytes // 2] * 2, 132)
    context.shares_gpu, context.flags = shares_gpu, lambda words: OnGpu()
    kernels: Any = CudaCollectives()
    kernels.ll = Early()
    kernels.open(context)
    part, whole = (torch.empty(count, dtype=torch.bfloat16, device="meta") for count in (nbytes // 2, nbytes))
    operands = {"all_gather": (whole, part), "reduce_scatter": (part, whole, "sum"), "all_reduce": (part, part, "sum")}
    getattr(kernels, kind)(context, *operands[kind])
    assert kernels.ll.seen == [early]
