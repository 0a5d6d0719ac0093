"""Copies to peers on a GPU: what goes where, on which stream, and how streams wait for each other."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from harness.rank.probes.speed.contenders import BESIDE, IN_TURN, PeerCopies, PeerCopy
from harness.rank.probes.speed.operands import Operands
from harness.substrate.communicator import Communicator
from harness.system.collectives import Unsupported

SOURCE, NBYTES = 7, 256
OUTPUTS = [0x1000, 0x2000, 0x3000, 0x4000]
"""By rank, where its output begins."""


class Gpu:
    """What a rank asked of CUDA: copies as (target, source, bytes, stream), and waits as (stream, for stream)."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.streams: list[SimpleNamespace] = []
        self.fails = False

    def stream(self) -> SimpleNamespace:
        made = SimpleNamespace(cuda_stream=len(self.streams))
        made.wait_stream = lambda other: self.asked.append((made.cuda_stream, "waits for", other.cuda_stream))
        self.streams.append(made)
        return made

    def copy(self, target: int, source: int, nbytes: int, kind: object, stream: int) -> tuple[object]:
        self.asked.append((target, source, nbytes, stream))
        return (SimpleNamespace(name="cudaErrorInvalidValue") if self.fails else None,)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found, bindings = Gpu(), ModuleType("cuda.bindings")
    current = found.stream()
    kinds, errors = SimpleNamespace(cudaMemcpyDefault=4), SimpleNamespace(cudaSuccess=None)
    runtime = SimpleNamespace(cudaMemcpyAsync=found.copy, cudaMemcpyKind=kinds, cudaError_t=errors)
    bindings.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(torch.cuda, "Stream", found.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    return found


def contender(kind: type[PeerCopy], rank: int, chunks: int, *, unreached: int | None = None) -> PeerCopy:
    """Of one of four ranks, which reaches all but one of them. Its output has so many chunks, and lies at an offset of
    16 in its window."""
    communicator = SimpleNamespace(
        rank=rank,
        size=len(OUTPUTS),
        find_window=lambda address: SimpleNamespace(address=address - 16),
        peer_pointers=lambda window, offset: [
            0 if peer == unreached else each + offset - 16 for peer, each in enumerate(OUTPUTS)
        ],
    )
    output = SimpleNamespace(data_ptr=lambda: OUTPUTS[rank], nbytes=chunks * NBYTES, is_cuda=True)
    source = SimpleNamespace(data_ptr=lambda: SOURCE, nbytes=NBYTES)
    operands = SimpleNamespace(output=output, source=source)
    return kind(cast(Communicator, communicator), cast(Operands, operands))


def test_one_copy_goes_to_the_next_rank(gpu: Gpu) -> None:
    contender(PeerCopy, 3, chunks=1).run("")
    assert gpu.asked == [(0x1000, SOURCE, NBYTES, 0)]


def test_every_peer_gets_a_copy_and_the_nearest_is_the_first(gpu: Gpu) -> None:
    contender(PeerCopies, 1, chunks=3).run(IN_TURN)
    assert gpu.asked == [
        (0x3000, SOURCE, NBYTES, 0),
        (0x4000 + NBYTES, SOURCE, NBYTES, 0),
        (0x1000 + 2 * NBYTES, SOURCE, NBYTES, 0),
    ]


def test_copies_of_all_ranks_fill_every_output_and_none_is_written_twice(gpu: Gpu) -> None:
    for rank in range(len(OUTPUTS)):
        contender(PeerCopies, rank, chunks=3).run(IN_TURN)
    places = {output + index * NBYTES for output in OUTPUTS for index in range(3)}
    assert sorted(target for target, *_ in gpu.asked) == sorted(places)


def test_copies_side_by_side_begin_after_what_was_before_and_end_before_what_follows(gpu: Gpu) -> None:
    copies = contender(PeerCopies, 0, chunks=3)
    assert copies.variants == (IN_TURN, BESIDE)
    copies.run(BESIDE)
    assert gpu.asked == [
        (1, "waits for", 0),
        (2, "waits for", 0),
        (0x2000, SOURCE, NBYTES, 0),
        (0x3000 + NBYTES, SOURCE, NBYTES, 1),
        (0x4000 + 2 * NBYTES, SOURCE, NBYTES, 2),
        (0, "waits for", 1),
        (0, "waits for", 2),
    ]


@pytest.mark.parametrize("kind", [PeerCopy, PeerCopies])
def test_ranks_that_do_not_reach_every_peer_refuse_to_copy(gpu: Gpu, kind: type[PeerCopy]) -> None:
    for rank, unreached in (0, 2), (2, 0):
        with pytest.raises(Unsupported, match="do not reach each other's memory"):
            contender(kind, rank, 3, unreached=unreached)


def test_a_copy_that_cuda_refuses_is_an_error(gpu: Gpu) -> None:
    gpu.fails = True
    with pytest.raises(RuntimeError, match="256 bytes to a peer: cudaErrorInvalidValue"):
        contender(PeerCopies, 0, chunks=3).run(BESIDE)
