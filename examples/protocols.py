"""Collectives as libraries design them, each with what it needs of a context: flags, a workspace, peers as tensors.

    symm fuzz --collectives examples.protocols:SwappedFlags
    symm fuzz --collectives examples.protocols:Packets
    symm fuzz --collectives examples.protocols:Copies

Each gathers by itself, and leaves the other operations to the built-in kernels. With ranks that share a GPU, where
kernels cannot wait for each other, the first two leave all calls to the library.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators

from collections.abc import Hashable

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext, TritonCollectives, Unsupported, bits

BLOCK = 1024
BLOCKS = 4
"""Blocks of a grid whose programs wait for other ranks, at most."""
MOST = 4096
"""Packets that a rank sends in a call."""


@triton.jit(do_not_specialize=("rank", "size", "row"))
def swap_kernel(flags, rank, size, row):
    """Program b meets program b of every peer at words `row + b · size + sender`: it swaps 0 for 1 where the peer
    waits, and 1 for 0 where it waits itself."""
    at = row + tl.program_id(0) * size
    mine = tl.load(flags + rank).to(tl.pointer_type(tl.int32))
    peer = rank * 0
    while peer < size:
        theirs = tl.load(flags + peer).to(tl.pointer_type(tl.int32))
        while tl.atomic_cas(theirs + at + rank, 0, 1, sem="release", scope="sys") != 0:
            pass
        peer += 1
    sender = rank * 0
    while sender < size:
        while tl.atomic_cas(mine + at + sender, 1, 0, sem="acquire", scope="sys") != 1:
            pass
        sender += 1


@triton.jit(do_not_specialize=("rank", "count"), do_not_specialize_on_alignment=("source",))
def push_kernel(outputs, source, rank, count, size, BLOCK: tl.constexpr):
    """Program b stores every so many blocks of `source`, from block b on, to chunk `rank` of every output."""
    block = tl.program_id(0)
    while block * BLOCK < count:
        index = block * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(source + index, mask=index < count)
        peer = rank * 0
        while peer < size:
            output = tl.load(outputs + peer).to(source.dtype)
            tl.store(output + rank.to(tl.int64) * count + index, value, mask=index < count)
            peer += 1
        block += tl.num_programs(0)


@triton.jit(do_not_specialize=("rank", "count"), do_not_specialize_on_alignment=("source",))
def send_kernel(spaces, source, word, rank, count, HALVES: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr):
    """Program (p, b) sends block b of `source` to peer p: an element beside the number of the call, which `word` has.

    A packet is stored whole, by an atomic operation at system scope: relaxed, as it announces nothing but itself."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    epoch = tl.load(word).to(tl.int64)
    slot = epoch % HALVES * tl.num_programs(0) + rank
    packets = tl.load(spaces + tl.program_id(0)).to(tl.pointer_type(tl.int64)) + slot * MOST + index
    element = tl.load(source + index, mask=mask, other=0).to(tl.int64) & 0xFFFFFFFF
    tl.atomic_xchg(packets, element | (epoch << 32), mask=mask, sem="relaxed", scope="sys")


@triton.jit(do_not_specialize=("count",), do_not_specialize_on_alignment=("output",))
def receive_kernel(space, output, word, count, HALVES: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr):
    """Program (p, b) waits for block b of peer p, and stores its elements.

    A packet is read whole, too. Of a volatile load, Triton's compiler makes one of four bytes where it takes half."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    epoch = tl.load(word).to(tl.int64)
    packets = space + (epoch % HALVES * tl.num_programs(0) + tl.program_id(0)) * MOST + index
    missing = 1
    while missing > 0:
        seen = tl.atomic_add(packets, 0, mask=mask, sem="relaxed", scope="sys") >> 32
        missing = tl.max((mask & (seen != epoch)).to(tl.int32))
    packet = tl.atomic_add(packets, 0, mask=mask, sem="relaxed", scope="sys")  # a loop may not carry it
    tl.store(output + tl.program_id(0) * count + index, packet.to(output.dtype.element_ty), mask=mask)


class Equal(TritonCollectives):
    """Gathers chunks of one size, with at least one element; the library makes the other calls."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if len({*context.counts}) > 1 or not source.numel():
            raise Unsupported
        self.gather(context, output, source)

    def gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        raise NotImplementedError


class SwappedFlags(Equal):
    """Barriers by compare-and-swap, of several blocks. A flag is zero again when its barrier is over, so there are no
    epochs, and a graph may hold such a barrier."""

    def open(self, context: CollectiveContext) -> None:
        if context.shares_gpu:
            raise Unsupported
        context.flags(self.words(context))

    def words(self, context: CollectiveContext) -> int:
        return 2 * self.blocks(context) * context.size

    def blocks(self, context: CollectiveContext) -> int:
        return min(BLOCKS, context.max_blocks)

    def gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs = context.peer_addresses(output)
        self.meet(context, 0)
        push_kernel[(self.blocks(context),)](
            outputs, bits(source), context.rank, source.numel(), context.size, BLOCK=BLOCK
        )
        self.meet(context, 1)

    def meet(self, context: CollectiveContext, number: int) -> None:
        """The barrier before the data or the one behind it: each has flags of its own."""
        flags = context.peer_addresses(context.flags(self.words(context)))
        blocks = self.blocks(context)
        swap_kernel[(blocks,)](flags, context.rank, context.size, number * blocks * context.size, num_warps=1)


class Packets(Equal):
    """No barrier: an element travels in one word with the number of its call, and the receiver polls for that.

    Two halves take turns. A rank sends the call after next only once all peers have sent the next one, and so have read
    this one.
    """

    halves = 2

    def __init__(self) -> None:
        self.spaces: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}

    def open(self, context: CollectiveContext) -> None:
        if context.shares_gpu:
            raise Unsupported
        space = context.workspace(2 * context.size * MOST * 8)
        context.flags(1)
        self.spaces[context.identity] = space.view(torch.int64), context.peer_addresses(space).clone()

    def close(self, context: CollectiveContext) -> None:
        del self.spaces[context.identity]

    def gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        words, into = _words(source), _words(output)
        if words.numel() > MOST:
            raise Unsupported
        self.move(context, words, into)

    def move(self, context: CollectiveContext, words: torch.Tensor, into: torch.Tensor) -> None:
        (space, spaces), word, count = self.spaces[context.identity], self.word(context), words.numel()
        grid, sizes = (context.size, triton.cdiv(count, BLOCK)), {"HALVES": self.halves, "MOST": MOST, "BLOCK": BLOCK}
        send_kernel[grid](spaces, words, word, context.rank, count, **sizes)
        receive_kernel[grid](space, into, word, count, **sizes)

    def word(self, context: CollectiveContext) -> torch.Tensor:
        """The number of this call, on the device: a graph raises it at every replay."""
        return context.flags(1).add_(1)


class Copies(Equal):
    """Copies of torch into the outputs of the peers, between barriers: copy engines move them, and no kernel does."""

    def gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, count = context.peer_tensors(output), source.numel()
        context.barrier()
        for peer in self.targets(context):
            outputs[peer][context.rank * count : (context.rank + 1) * count].copy_(source)
        context.barrier()

    def targets(self, context: CollectiveContext) -> list[int]:
        """Every rank, this one last: no two ranks begin with the same peer."""
        return [(context.rank + 1 + step) % context.size for step in range(context.size)]


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """Integers of at most four bytes."""
    return tensor.view(torch.int32) if tensor.element_size() == 8 else bits(tensor)
