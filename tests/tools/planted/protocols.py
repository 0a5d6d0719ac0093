"""The protocols of `examples` with one planted fault each.

Invariant: a class differs from its base in its fault alone, and its docstring says what that breaks.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from examples.protocols import BLOCK, MOST, Copies, Packets, SwappedFlags
from harness.system.collectives import CollectiveContext


class GoesOnEarly(SwappedFlags):
    """Breaks race: it leaves out the barrier behind the data."""

    def meet(self, context: CollectiveContext, number: int) -> None:
        if number == 0:
            super().meet(context, number)


class OneHalf(Packets):
    """Breaks hang, or wrong-data: the packets of a call lie where those of the call before may not have been read."""

    halves = 1


class SkipsItself(Copies):
    """Breaks wrong-data: it takes its own chunk for there, as it is in place."""

    def targets(self, context: CollectiveContext) -> list[int]:
        return super().targets(context)[:-1]


@triton.jit(do_not_specialize=("rank", "count"), do_not_specialize_on_alignment=("source",))
def send_kernel(spaces, source, word, rank, count, SEND: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr):
    """As that of the protocol, with packets that are `whole`, or `stored` by plain stores, or of which only this GPU
    sees that they are whole (`gpu`), or that are two words (`split`)."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    epoch = tl.load(word).to(tl.int64)
    slot = epoch % 2 * tl.num_programs(0) + rank
    packets = tl.load(spaces + tl.program_id(0)).to(tl.pointer_type(tl.int64)) + slot * MOST + index
    element = tl.load(source + index, mask=mask, other=0).to(tl.int64) & 0xFFFFFFFF
    if SEND == "stored":
        tl.store(packets, element | (epoch << 32), mask=mask)
    elif SEND == "gpu":
        tl.atomic_xchg(packets, element | (epoch << 32), mask=mask, sem="relaxed", scope="gpu")
    elif SEND == "split":
        halves = packets.to(tl.pointer_type(tl.int32))
        tl.store(halves, element.to(tl.int32), mask=mask)
        tl.atomic_xchg(halves + 1, epoch.to(tl.int32), mask=mask, sem="relaxed", scope="sys")
    else:
        tl.atomic_xchg(packets, element | (epoch << 32), mask=mask, sem="relaxed", scope="sys")


@triton.jit(do_not_specialize=("count",), do_not_specialize_on_alignment=("output",))
def receive_kernel(
    space, output, word, count, LOOK: tl.constexpr, CLEARS: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr
):
    """As that of the protocol, by looks that are `whole`, or loads that are `volatile` or `plain`, or `half` as wide
    as a packet. `CLEARS`: after each look it clears the output."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    epoch = tl.load(word).to(tl.int64)
    packets = space + (epoch % 2 * tl.num_programs(0) + tl.program_id(0)) * MOST + index
    halves = packets.to(tl.pointer_type(tl.int32))
    missing = 1
    while missing > 0:
        if LOOK == "half":
            seen = tl.load(halves + 1, mask=mask, other=0, volatile=True)
        elif LOOK == "whole":
            seen = tl.atomic_add(packets, 0, mask=mask, sem="relaxed", scope="sys") >> 32
        else:
            seen = tl.load(packets, mask=mask, other=0, volatile=LOOK == "volatile") >> 32
        missing = tl.max((mask & (seen != epoch)).to(tl.int32))
        if CLEARS:
            tl.store(output + tl.program_id(0) * count + index, (index * 0).to(output.dtype.element_ty), mask=mask)
    if LOOK == "half":
        packet = tl.load(halves, mask=mask, other=0, volatile=True)
    elif LOOK == "whole":
        packet = tl.atomic_add(packets, 0, mask=mask, sem="relaxed", scope="sys")
    else:
        packet = tl.load(packets, mask=mask, other=0, volatile=LOOK == "volatile")
    tl.store(output + tl.program_id(0) * count + index, packet.to(output.dtype.element_ty), mask=mask)


class LooksWhole(Packets):
    """Breaks no rule."""

    send, look, clears = "whole", "whole", False

    def move(self, context: CollectiveContext, words: torch.Tensor, into: torch.Tensor) -> None:
        (space, spaces), word, count = self.spaces[context.identity], self.word(context), words.numel()
        grid = context.size, triton.cdiv(count, BLOCK)
        send_kernel[grid](spaces, words, word, context.rank, count, SEND=self.send, MOST=MOST, BLOCK=BLOCK)
        how = {"LOOK": self.look, "CLEARS": self.clears}
        receive_kernel[grid](space, into, word, count, **how, MOST=MOST, BLOCK=BLOCK)


class ClearsMeanwhile(LooksWhole):
    """Breaks no rule: a rank writes to its own output while it waits."""

    clears = True


class LooksByVolatileLoads(LooksWhole):
    """Breaks race: of a word of 8 bytes, the compiler loads the half that is used."""

    look = "volatile"


class StoresPlainly(LooksWhole):
    """Breaks race: nothing says that a packet comes whole."""

    send = "stored"


class SendsWithinAGpu(LooksWhole):
    """Breaks race: its packets are whole at the scope of a GPU alone."""

    send = "gpu"


class LooksPlainly(LooksWhole):
    """Breaks race: a load that is not volatile may be made once, or in parts."""

    look = "plain"


class LooksAtHalves(LooksWhole):
    """Breaks race: it reads the number of the call, and then the element."""

    look = "half"


class FlagsBesideData(LooksWhole):
    """Breaks race: an element and its flag are two words, of which either may come first."""

    send, look = "split", "half"
