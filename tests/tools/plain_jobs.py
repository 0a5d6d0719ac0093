"""Jobs as users have them, which know nothing of the harness: each does one thing wrong, or its twin does it right.

    torchrun --nproc-per-node 2 tests/tools/plain_jobs.py wrong-site-group

Every rank talks to NCCL by ctypes. With a GPU the memory is the GPU's; without one NCCL has to be a stand-in.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fake_torch import FakeTorch
from graph_programs import HAS_GPU, Graph, Pool, captured, other_stream
from nccl_program import POINTER, RANK, Nccl

WORLD = int(os.environ.get("WORLD_SIZE", "2"))
SEGMENT = 2 << 20
STEADY = 40
NO_SUCH_SIZE = 1 << 56


class Job:
    """One rank of a job with two communicators over all of its ranks."""

    def __init__(self) -> None:
        self.nccl = Nccl()
        self.tp, self.cp = self.nccl.world(WORLD, RANK, "tp"), self.nccl.world(WORLD, RANK, "cp")
        self.source = self.nccl.alloc()

    def segment(self, *comms: POINTER, size: int = SEGMENT) -> int:
        """A segment that is registered with each of these."""
        memory = self.nccl.alloc(size)
        for comm in comms:
            self.nccl.register(comm, memory, size)
        return memory.value or 0

    def pool(self, comm: POINTER) -> Pool:
        """A caching pool that registers what it takes with a communicator."""
        return Pool(
            lambda size: self.nccl.alloc(size).value or 0,
            lambda address, size: self.nccl.register(comm, POINTER(address), size),
        )

    def gather(self, comm: POINTER, memory: int, times: int = 1, stream: int | None = None) -> None:
        for _ in range(times):
            self.nccl.call("AllGather", self.source, POINTER(memory), 64, 9, comm, POINTER(stream))


def with_history() -> None:
    """PyTorch has a memory history; without a GPU a stand-in for it has."""
    if not HAS_GPU:
        FakeTorch().install()


def ordinary() -> int:
    """Memory that is none of NCCL's, and stays."""
    if Path("/dev/nvidiactl").exists():
        import torch

        _KEPT.append(torch.zeros(SEGMENT, dtype=torch.uint8, device="cuda"))
        return int(_KEPT[-1].data_ptr())
    _KEPT.append(ctypes.create_string_buffer(SEGMENT))
    return ctypes.addressof(_KEPT[-1])


_KEPT: list[Any] = []
JOBS: dict[str, Callable[[Job], None]] = {}


def job(call: Callable[[Job], None]) -> Callable[[Job], None]:
    JOBS[call.__name__.replace("_", "-")] = call
    return call


@job
def wrong_site_group(job: Job) -> None:
    job.gather(job.cp, job.segment(job.tp))


@job
def right_site_group(job: Job) -> None:
    job.gather(job.cp, job.segment(job.cp))


@job
def many_buffers(job: Job) -> None:
    block = job.segment(job.tp)
    for number in range(5):
        job.gather(job.cp, block + 4096 * number)


@job
def cross_group_reuse(job: Job) -> None:
    block = job.segment(job.tp)
    job.gather(job.tp, block, 3)
    job.gather(job.cp, block)


@job
def right_reuse(job: Job) -> None:
    block = job.segment(job.tp, job.cp)
    job.gather(job.tp, block, 3)
    job.gather(job.cp, block)


@job
def offset_skew(job: Job) -> None:
    job.gather(job.tp, job.segment(job.tp) + 4096 * (RANK % 2))


@job
def right_offset(job: Job) -> None:
    job.gather(job.tp, job.segment(job.tp) + 4096)


@job
def segment_skew(job: Job) -> None:
    first, second = job.segment(job.tp), job.segment(job.tp)
    job.gather(job.tp, second if RANK % 2 else first)


@job
def right_segments(job: Job) -> None:
    first, second = job.segment(job.tp), job.segment(job.tp)
    job.gather(job.tp, first)
    job.gather(job.tp, second)


@job
def history_coupling(job: Job) -> None:
    block, used = job.segment(job.tp, job.cp), 0
    if RANK == 0:  # only this rank had a buffer of the other group in the shared segment before
        used += 8192
    job.gather(job.tp, block + used)


@job
def register_count_skew(job: Job) -> None:
    job.segment(job.tp)
    if RANK == 0:
        job.segment(job.tp)


@job
def register_order_skew(job: Job) -> None:
    order = (job.tp, job.cp) if RANK == 0 else (job.cp, job.tp)
    job.gather(job.tp, job.segment(*order))


@job
def right_order(job: Job) -> None:
    block = job.segment(job.tp, job.cp)
    job.gather(job.tp, block)
    job.gather(job.cp, block)


@job
def one_rank_oom(job: Job) -> None:
    size = NO_SUCH_SIZE if RANK == 1 else SEGMENT
    memory = job.nccl.alloc(size)
    if job.nccl.result == 0:
        job.nccl.register(job.tp, memory)


@job
def hot_path_growth(job: Job) -> None:
    job.gather(job.tp, job.segment(job.tp), STEADY)
    job.gather(job.tp, job.segment(job.tp))


@job
def right_growth(job: Job) -> None:
    blocks = job.segment(job.tp), job.segment(job.tp)
    for _ in range(STEADY):
        for block in blocks:
            job.gather(job.tp, block)


@job
def right_warm_up(job: Job) -> None:
    """Steady in ordinary memory, as an engine profiles itself, and then in a pool."""
    job.gather(job.tp, ordinary(), STEADY)
    job.gather(job.tp, job.segment(job.tp), STEADY)


@job
def right_epochs(job: Job) -> None:
    """A pool that is given back and made again: it is never larger than before."""
    for _ in range(3):
        memory = job.nccl.alloc(SEGMENT)
        window = job.nccl.register(job.tp, memory, SEGMENT)
        job.gather(job.tp, memory.value or 0, STEADY)
        job.nccl.call("CommWindowDeregister", job.tp, window)
        job.nccl.call("MemFree", memory)


@job
def right_turns(job: Job) -> None:
    """Its source stays, and its output is given back after each call: no more memory is there than before."""
    source = job.segment(job.tp)
    for _ in range(STEADY):
        memory = job.nccl.alloc(SEGMENT)
        window = job.nccl.register(job.tp, memory, SEGMENT)
        job.nccl.call("AllGather", POINTER(source), memory, 64, 9, job.tp, None)
        job.nccl.call("CommWindowDeregister", job.tp, window)
        job.nccl.call("MemFree", memory)


@job
def stale_window(job: Job) -> None:
    block = job.segment(job.tp)
    job.gather(job.tp, block)
    job.nccl.call("CommDestroy", job.tp)
    job.tp = job.nccl.world(WORLD, RANK, "tp-again")  # its address may be the old one: an index takes it for that
    job.gather(job.tp, block)


@job
def right_recreation(job: Job) -> None:
    block = job.segment(job.tp)
    job.gather(job.tp, block)
    job.nccl.call("CommDestroy", job.tp)
    job.tp = job.nccl.world(WORLD, RANK, "tp-again")
    job.nccl.register(job.tp, POINTER(block), SEGMENT)
    job.gather(job.tp, block)


@job
def free_before_deregister(job: Job) -> None:
    block = job.segment(job.tp)
    job.gather(job.tp, block)
    job.nccl.call("MemFree", POINTER(block))


@job
def right_free(job: Job) -> None:
    memory = job.nccl.alloc(SEGMENT)
    window = job.nccl.register(job.tp, memory, SEGMENT)
    job.gather(job.tp, memory.value or 0)
    job.nccl.call("CommWindowDeregister", job.tp, window)
    job.nccl.call("MemFree", memory)


@job
def double_registration(job: Job) -> None:
    block = job.segment(job.tp)
    for _ in range(2):
        job.nccl.register(job.tp, POINTER(block), SEGMENT)
        job.gather(job.tp, block)


@job
def stream_stranding(job: Job) -> None:
    job.gather(job.tp, job.segment(job.tp), STEADY)
    job.gather(job.tp, job.segment(job.tp))  # a pool that grew again, for another stream


@job
def register_in_capture(job: Job) -> None:
    """Warmed up in memory of its own, so that its pool is empty when the capture begins."""
    job.gather(job.tp, job.segment(job.tp), 3)
    pool = job.pool(job.tp)
    with captured() as stream:
        job.gather(job.tp, pool.block(stream), stream=stream)


@job
def stranding_in_capture(job: Job) -> None:
    """Warmed up on another stream, to which the block goes back."""
    pool = job.pool(job.tp)
    block = pool.block()
    job.gather(job.tp, block, 3)
    pool.release(block)
    with captured() as stream:
        job.gather(job.tp, pool.block(stream), stream=stream)


@job
def right_capture(job: Job) -> None:
    """Its pool has grown before the capture, and the graph keeps the block."""
    block = job.pool(job.tp).block()
    job.gather(job.tp, block)
    with captured() as stream:
        job.gather(job.tp, block, stream=stream)


@job
def right_captured_calls(job: Job) -> None:
    """Nothing but captures: many graphs, each with memory of its own, as for batch sizes."""
    blocks = [job.segment(job.tp) for _ in range(STEADY)]
    for block in blocks:
        with captured() as stream:
            job.gather(job.tp, block, stream=stream)


@job
def right_stream_after_capture(job: Job) -> None:
    """Registers for another stream when nothing is captured any more."""
    pool = job.pool(job.tp)
    block = pool.block()
    with captured() as stream:
        job.gather(job.tp, block, stream=stream)
    with other_stream() as stream:
        job.gather(job.tp, pool.block(stream), stream=stream)


@job
def right_thread_beside_capture(job: Job) -> None:
    """Another thread registers with another communicator while this one captures."""
    block = job.segment(job.tp)
    with captured() as stream:
        beside = threading.Thread(target=lambda: job.gather(job.cp, job.segment(job.cp)))
        beside.start()
        beside.join()
        job.gather(job.tp, block, stream=stream)


def gather_in_graph(job: Job) -> tuple[Pool, Graph, int]:
    """A graph over a call in a block of a pool."""
    with_history()
    pool, graph = job.pool(job.tp), Graph()
    block = pool.block()
    with graph.captured() as stream:
        job.gather(job.tp, block, stream=stream)
    return pool, graph, block


@job
def captured_block_reuse(job: Job) -> None:
    """The block of a graph goes back to its pool, and another tensor gets it before the graph runs."""
    pool, graph, block = gather_in_graph(job)
    pool.release(block)
    assert pool.block() == block
    graph.launch(2)


@job
def captured_block_reuse_later(job: Job) -> None:
    """The same after the graph has run rightly."""
    pool, graph, block = gather_in_graph(job)
    graph.launch(3)
    pool.release(block)
    assert pool.block() == block
    graph.launch()


@job
def graph_uses_eager_pool(job: Job) -> None:
    """The capture takes a block from the free list of eager work, which gets it again."""
    with_history()
    pool, graph = job.pool(job.tp), Graph()
    with graph.beside() as stream:
        block = pool.block(stream)
        pool.release(block, stream)
    with graph.captured() as stream:
        assert pool.block(stream) == block
        job.gather(job.tp, block, stream=stream)
    pool.release(block, stream)
    with graph.beside() as stream:
        assert pool.block(stream) == block
    graph.launch()


@job
def right_static_buffer(job: Job) -> None:
    """A buffer that is there before the capture, and stays. Eager work has other blocks."""
    pool, graph, block = gather_in_graph(job)
    assert pool.block() != block
    graph.launch(2)


@job
def right_graph_pool(job: Job) -> None:
    """Graphs share memory of their own: what a capture left free the next one takes, on the same stream."""
    with_history()
    pool, first = job.pool(job.tp), Graph()
    graphs = (first, Graph(first))
    with graphs[0].beside() as stream:
        pool.release(pool.block(stream), stream)
    for graph in graphs:
        with graph.captured() as stream:
            block = pool.block(stream)
            job.gather(job.tp, block, stream=stream)
            if graph is graphs[0]:
                pool.release(block, stream)
    for graph in graphs:
        graph.launch()


@job
def right_handed_back(job: Job) -> None:
    """Another tensor has the block of a graph between its launches, and never at one."""
    pool, graph, block = gather_in_graph(job)
    for _ in range(3):
        pool.release(block)
        assert pool.block() == block
        pool.release(block)
        graph.launch()
        assert pool.block() == block


@job
def right_graph_that_never_runs(job: Job) -> None:
    pool, _graph, block = gather_in_graph(job)
    pool.release(block)
    assert pool.block() == block


@job
def summed_elsewhere(job: Job) -> None:
    """An all-reduce whose output lies in a window of another communicator than its source."""
    source, output = POINTER(job.segment(job.tp)), POINTER(job.segment(job.cp))
    job.nccl.call("AllReduce", source, output, 64, 9, 0, job.tp, POINTER(None))


@job
def summed_in_place_elsewhere(job: Job) -> None:
    """An all-reduce in place on memory of another communicator."""
    memory = POINTER(job.segment(job.cp))
    job.nccl.call("AllReduce", memory, memory, 64, 9, 0, job.tp, POINTER(None))


@job
def leak(job: Job) -> None:
    for _ in range(STEADY):
        job.gather(job.tp, job.segment(job.tp))


@job
def null_window_ignored(job: Job) -> None:
    """Runs where registrations give no windows."""
    job.gather(job.tp, job.segment(job.tp))


@job
def lazy_communicator(job: Job) -> None:
    job.gather(job.tp, job.segment())


class LivesOn:
    """A pool that lives as long as its process, and gives its memory back when Python ends: as engines' pools do."""

    def __init__(self, job: Job) -> None:
        self._memory, self._free = POINTER(job.segment(job.tp)), job.nccl.library.ncclMemFree
        job.gather(job.tp, self._memory.value or 0)

    def __del__(self) -> None:
        self._free(self._memory)


class GoesOn(LivesOn):
    """Frees as Python ends, and calls once more, in other memory."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._call = job.nccl.library.ncclAllGather, job.source, POINTER(ordinary()), 64, 9, job.tp, None

    def __del__(self) -> None:
        super().__del__()
        call, *arguments = self._call
        call(*arguments)


@job
def work_after_a_free_at_the_end(job: Job) -> None:
    _KEPT.append(GoesOn(job))


@job
def right_free_at_the_end(job: Job) -> None:
    _KEPT.append(LivesOn(job))


@job
def right_without_windows(job: Job) -> None:
    """Ordinary memory, and a pool beside it that is used."""
    job.gather(job.tp, job.segment(job.tp))
    job.gather(job.cp, job.segment(job.cp))


@job
def uneven_tokens(job: Job) -> None:
    job.segment(job.tp)
    if RANK == 1:  # more tokens here, so the pool grows here alone
        job.segment(job.tp, size=2 * SEGMENT)


STAGED, LARGE = 8192, 8200
"""Elements of two bytes: as many as NCCL sends through buffers of its own, and more."""


def send(job: Job, source: int, output: int, comm: POINTER | None = None, count: int = LARGE, sender: int = 0) -> None:
    """One of two ranks sends to the other."""
    comm, peer = comm or job.tp, 1 - RANK
    if sender == RANK:
        job.nccl.call("Send", POINTER(source), count, 9, peer, comm, None)
    else:
        job.nccl.call("Recv", POINTER(output), count, 9, peer, comm, None)


def pooled(job: Job) -> int:
    """Memory in a window, in which an all-gather has run."""
    block = job.segment(job.tp)
    job.gather(job.tp, block)
    return block


@job
def half_registered_send(job: Job) -> None:
    """The receiver's buffer is outside of the pool."""
    send(job, pooled(job), ordinary())


@job
def half_registered_exchange(job: Job) -> None:
    """Ranks receive into the pool what others send from outside of it, in one group."""
    source, output = ordinary(), pooled(job)
    for times in range(3):
        job.nccl.call("GroupStart")
        send(job, source, output + 4096 * times, sender=0)
        send(job, source, output + 4096 * times, sender=1)
        job.nccl.call("GroupEnd")


@job
def half_registered_later(job: Job) -> None:
    """Both sides are in the pool at first, and ever more sends go before one from outside of it."""
    block = pooled(job)
    for times in range(STEADY):
        send(job, block, block)
        send(job, block, block, sender=1, count=times + 1)
    send(job, ordinary(), block)
    send(job, block, block, sender=1)


@job
def half_registered_all_to_all(job: Job) -> None:
    """One rank has its output outside of the pool, and NCCL's all-to-all asks each rank for both operands."""
    source, output = pooled(job), job.segment(job.tp)
    job.nccl.call("AlltoAll", POINTER(source), POINTER(ordinary() if RANK else output), LARGE, 9, job.tp, None)


@job
def right_sends(job: Job) -> None:
    """Both sides in the pool, or neither."""
    block = pooled(job)
    send(job, block, block)
    send(job, ordinary(), ordinary())


@job
def right_small_send(job: Job) -> None:
    send(job, pooled(job), ordinary(), count=STAGED)


@job
def right_send_to_itself(job: Job) -> None:
    block = pooled(job)
    job.nccl.call("GroupStart")
    job.nccl.call("Send", POINTER(block), LARGE, 9, RANK, job.tp, None)
    job.nccl.call("Recv", POINTER(ordinary()), LARGE, 9, RANK, job.tp, None)
    job.nccl.call("GroupEnd")


@job
def right_send_elsewhere(job: Job) -> None:
    """From memory that is registered with another communicator alone."""
    send(job, pooled(job), ordinary(), job.cp)


@job
def right_captured_send(job: Job) -> None:
    """What a graph registers is not all known, and replays are not seen."""
    block, other = pooled(job), ordinary()
    with captured() as stream:
        if RANK == 0:
            job.nccl.call("Send", POINTER(block), LARGE, 9, 1, job.tp, POINTER(stream))
        else:
            job.nccl.call("Recv", POINTER(other), LARGE, 9, 0, job.tp, POINTER(stream))
        sides = (block, other) if RANK else (other, block)
        job.nccl.call("AlltoAll", *map(POINTER, sides), LARGE, 9, job.tp, POINTER(stream))


@job
def right_locally_registered_send(job: Job) -> None:
    """One side in a window, and the other registered without one."""
    block, other = pooled(job), ordinary()
    job.nccl.made("CommRegister", (job.tp, POINTER(other), SEGMENT))
    send(job, block, other)
    send(job, other, block, sender=1)


@job
def right_all_to_all(job: Job) -> None:
    """No rank has both operands in the pool, so NCCL sends through buffers of its own."""
    job.nccl.call("AlltoAll", POINTER(ordinary()), POINTER(pooled(job)), LARGE, 9, job.tp, None)


@job
def right_gather_and_scatter(job: Job) -> None:
    """NCCL sends these through buffers of its own, whatever is registered."""
    block, other = pooled(job), ordinary()
    job.nccl.call("Gather", POINTER(block), POINTER(other), LARGE, 9, 0, job.tp, None)
    job.nccl.call("Scatter", POINTER(other), POINTER(block), LARGE, 9, 0, job.tp, None)


@job
def right_send_without_receive(job: Job) -> None:
    """The receiver ends before it receives: the send meets nothing."""
    block = pooled(job)
    if RANK == 0:
        job.nccl.call("Send", POINTER(block), LARGE, 9, 1, job.tp, None)


def main() -> None:
    if not Path("/dev/nvidiactl").exists():
        JOBS[sys.argv[1]](Job())
        return
    import torch

    torch.cuda.set_device(RANK % torch.cuda.device_count())
    torch.zeros(1, device="cuda")
    JOBS[sys.argv[1]](Job())
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
