"""Collectives as systems under test: the built-in Triton kernels, or a user's own.

Invariant: a collective sees only a `CollectiveContext` and its two tensors. It adds partial sums in
at least fp32, and rounds once, to the nearest. The tensors behind `peer_addresses` must lie in windows of
the group's communicator; where one does not, `NotOwned` is raised before anything is launched.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

import torch

from harness.errors import PluginError
from harness.substrate.bits import bits, place
from harness.substrate.communicator import Communicator, NotOwned
from harness.system.boundary import Misshapen
from harness.system.loading import load_attribute
from harness.system.shape import check_collectives

__all__ = [
    "CollectiveContext",
    "Collectives",
    "FunctionalCollectives",
    "NotOwned",
    "Splits",
    "TritonCollectives",
    "Unsupported",
    "bits",
    "load_collectives",
]

INTERPRETER_BLOCK = 16384
"""Elements of a program in the interpreter, at most."""
GPU_BLOCK = 8192
"""Bytes of a program on a GPU: four words of 16 bytes for each of its 128 threads."""
GPU_PART = 512
"""Elements of a program on a GPU that go one by one, at a time: with more, they would take registers from the rest."""


ALIGNMENT = 128
"""Bytes, the most that `CollectiveContext.alignment` gives."""
Splits = Sequence[Sequence[int]]
"""Row i: what the i-th rank of a group sends to each rank of it, in elements."""


class Unsupported(Exception):
    """A plug-in does not make this call. It raises that on all ranks of the group, before it launches anything: then
    the library makes the call, which is counted."""


REFUSALS = (NotOwned, Unsupported)
"""What a plug-in raises to leave a call to the library."""


class CollectiveContext:
    """The view that a collective has of its group: `rank` in it, `size`, `group` (global ranks, in communicator
    order), and the addresses of its peers' memory."""

    def __init__(
        self,
        communicator: Communicator,
        counts: Sequence[int] = (),
        apart: torch.Tensor | None = None,
        empty: bool = False,
    ) -> None:
        """`apart`: a source that is this rank's chunk of a buffer that holds all of them. `empty`: peers reach operands
        that may have no elements on some ranks, which have an address there as well."""
        self._communicator, self._apart = communicator, apart
        self._address = place if empty else torch.Tensor.data_ptr
        self.counts = tuple(counts)
        """The elements that each rank contributes to this call or receives, in the order of `group`."""
        self.rank, self.size, self.group = communicator.rank, communicator.size, communicator.group
        self.device = communicator.device.torch_device

    def peer_addresses(self, tensor: torch.Tensor) -> torch.Tensor:
        """int64[size] on the device, only to be read: where each rank's counterpart of `tensor` is mapped here. Local.

        As in NCCL, the local offset in the window is applied to every peer; but for the source of an all-gather in
        place and in functional form, whose counterparts are the other chunks. Raises `NotOwned`.
        """
        return self._communicator.device.table(self.peer_pointers(tensor))

    def peer_tensors(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Each rank's counterpart of a contiguous `tensor`, of its shape and dtype, as tensors on this rank's device:
        for copies of torch, which copy engines may make. They hold as long as peer addresses do. Local.

        Raises `NotOwned` as `peer_addresses` does, and `ValueError` for a tensor that is not contiguous.
        """
        if not tensor.is_contiguous():
            raise ValueError("peer_tensors takes a tensor that is contiguous")
        nbytes, reach = tensor.numel() * tensor.element_size(), self._communicator.device.reach
        return [reach(each, nbytes).view(tensor.dtype).view(tensor.shape) for each in self.peer_pointers(tensor)]

    def peer_pointers(self, tensor: torch.Tensor) -> list[int]:
        """The addresses of `peer_addresses`, on the host. Local. Raises `NotOwned`."""
        communicator, address = self._communicator, self._address(tensor)
        # NCCL tests the start address alone, per communicator (`ncclDevrFindWindow`): a tensor may overrun its window.
        window = communicator.find_window(address)
        if window is None:
            if (found := communicator.workspaces.find(address)) is None:
                raise NotOwned
            return found.pointers(address)
        pointers = communicator.peer_pointers(window, address - window.address)
        if self._apart is not None and address == self._address(self._apart):
            starts, width = [0, *accumulate(self.counts)], tensor.element_size()
            pointers = [each + (starts[peer] - starts[self.rank]) * width for peer, each in enumerate(pointers)]
        return pointers

    def alignment(self, tensor: torch.Tensor) -> int:
        """The largest power of two up to 128 that divides the address of `tensor` on every rank. Local. Raises
        `NotOwned`."""
        bits_of_all = ALIGNMENT
        for address in self.peer_pointers(tensor):
            bits_of_all |= address
        return bits_of_all & -bits_of_all

    @property
    def identity(self) -> Hashable:
        """Names the communicator: equal on all ranks of the group and in all calls, until a `recreate` step or the next
        draw. Only to be compared. Local."""
        return self._communicator.identity

    def workspace(self, nbytes: int) -> torch.Tensor:
        """uint8[nbytes] of the harness's memory: zero at first, aligned to 256 bytes, and the plug-in's own until the
        communicator is closed. `peer_addresses` takes it and all that lies in it. The same tensor for the same size.

        Collective the first time, and all ranks ask for the same. Raises `NotOwned` where kernels cannot reach their
        peers, and `RuntimeError` where it has to be made but not `can_provide`.
        """
        return self._communicator.workspace("workspace", _checked("workspace", nbytes)).body

    def flags(self, words: int) -> torch.Tensor:
        """int32[words], as `workspace` is."""
        return self._communicator.workspace("flags", 4 * _checked("flags", words)).body

    @property
    def can_provide(self) -> bool:
        """Whether workspace and flags can be made now: nothing is captured or in flight. Local; alike on all ranks."""
        return not self._communicator.device.does_later

    @property
    def shares_gpu(self) -> bool:
        """Whether ranks of the draw share a GPU: the same on all of them. Kernels that wait for each other may then
        have to wait for their turns."""
        return self._communicator.device.sharing > 1

    @property
    def max_blocks(self) -> int:
        """How many blocks of one kernel run at one time, beside those of ranks that share the GPU: the same on all
        ranks where their GPUs are alike. 1 on the simulation, where programs of a grid run one after another."""
        return self._communicator.device.most_blocks

    @cached_property
    def signal_pads(self) -> torch.Tensor:
        """int64[size] on the device: address of each rank's signal pad, int32[size], one word for each sender.

        They are the plug-in's own: zero when a draw begins and when a `recreate` step has made the communicator anew,
        and written by nothing else, `barrier` included. Collective the first time.
        """
        return self._communicator.device.table(self._communicator.signal_pads())

    def epoch(self) -> int:
        """The next epoch for a barrier on `signal_pads`: 1, then one more at every call, for as long as the pads keep
        what was written. Local; ranks that make the same calls get the same."""
        return self._communicator.next_epoch()

    @cached_property
    def _barrier_pads(self) -> torch.Tensor:
        return self._communicator.device.table(self._communicator.barrier_pads())

    def barrier(self) -> None:
        """Order this rank's stream with its peers'. Collective.

        On the device where kernels of different ranks run side by side, else on the host.
        """
        # A kernel that spins would keep the kernel that it waits for off a GPU that the ranks share in turns.
        if not self._communicator.device.has_barrier:
            self._communicator.barrier()
            return
        from harness.kernels.barrier import barrier_kernel  # noqa: PLC0415  (triton, only where kernels run)

        pads = self._barrier_pads
        with self._communicator.in_kernel_barrier():
            barrier_kernel[(1,)](pads, self.rank, 0, SIZE=self.size, LANES=_power_of_two(self.size), num_warps=1)


class Collectives(Protocol):
    """The shape of a plug-in: two methods, tensors contiguous, `output` never aliasing a peer's input.

    It may have more: `all_reduce(context, output, source, op)`, where both have `count` elements and may be the
    same memory; `all_to_all(context, output, source)`, of size·count elements each; and `broadcast(context, output,
    source, root)`, where `root` is an index in the group and the source has elements on that rank alone.
    `all_to_allv(context, output, source, splits)` moves `splits[i][j]` elements from the i-th rank of the group to the
    j-th: chunks lie in group order, in the source by receiver and in the output by sender, and may be empty.

    It says more by attributes. `ops` names the reductions that it has, if these are more than `sum` and `avg`.
    With `uneven = True` it also gathers and scatters chunks of different sizes, which are in `context.counts`. With
    `strided = True` the source of what moves data may not be contiguous. With `captures = True` graphs may hold its
    calls: its Python then runs once, and a replay launches the same again. The library makes every other call.

    `open(context)` and `close(context)` it may have for every communicator: the one before the first call there, the
    other before a `recreate` step and at the end of the draw. Both are collective over the group.
    """

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        """output: size·count elements, source: count elements."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        """source: size·count elements, output: count elements, op: sum or avg."""


class FunctionalCollectives(Protocol):
    """The same in functional form: results are tensors of the plug-in's own, which nobody writes to any more."""

    functional: Literal[True]

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        """source: count elements. Returns size·count elements. With `along = True` it takes a third argument, `dim`:
        for 1 the source is a matrix, and the result has those of all ranks side by side."""

    def reduce_scatter(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        """source: size·count elements, op: sum or avg. Returns count elements.

        It may also have `all_reduce(context, source, op)`, `all_to_all(context, source)` and `all_to_allv(context,
        source, splits)`.
        """


class TritonCollectives:
    """The kernels of `kernels/`: all-gather, all-to-all and broadcast by pushing, reductions by pulling."""

    ops = ("sum", "avg", "max", "min")
    uneven = captures = True

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs = context.peer_addresses(output)
        context.barrier()
        self._push(context, outputs, source, _before(context, source.numel()))
        context.barrier()

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources = context.peer_addresses(source)
        context.barrier()
        self._reduce(context, sources, output, _before(context, output.numel()), op)
        context.barrier()

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources = context.peer_addresses(source)
        # peers read the source to the end, which in place is the output
        result = torch.empty_like(output) if output.data_ptr() == source.data_ptr() else output
        context.barrier()
        self._reduce(context, sources, result, 0, op)
        context.barrier()
        if result is not output:
            output.copy_(result)

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        from harness.kernels.all_to_all import all_to_all_kernel  # noqa: PLC0415

        outputs = context.peer_addresses(output)
        count = source.numel() // context.size
        cut = _cut(context, count, source.element_size())
        context.barrier()
        all_to_all_kernel[(cut.programs,)](
            *(outputs, bits(source), context.rank, cut.done, count, context.rank + 1),
            SIZE=context.size,
            BLOCK=cut.block,
            PART=cut.part,
        )
        context.barrier()

    def all_to_allv(
        self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, splits: Splits
    ) -> None:
        outputs = context.peer_addresses(output)
        context.barrier()
        begin = 0
        for peer, count in enumerate(splits[context.rank]):
            if count:
                start = self._start(splits, context.rank, peer)
                self._push(context, outputs[peer : peer + 1], source[begin : begin + count], start)
            begin += count
        context.barrier()

    def _start(self, splits: Splits, rank: int, peer: int) -> int:
        """Where the chunk of `rank` begins in the output of `peer`."""
        return sum(row[peer] for row in splits[:rank])

    def broadcast(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, root: int) -> None:
        outputs = context.peer_addresses(output)
        context.barrier()
        if context.rank == root:  # a gather in which one rank has all elements
            self._push(context, outputs, source, 0)
        context.barrier()

    def _push(self, context: CollectiveContext, outputs: torch.Tensor, source: torch.Tensor, start: int) -> None:
        """Store the source into each of `outputs`, from element `start` on."""
        from harness.kernels.all_gather import all_gather_kernel  # noqa: PLC0415

        count, width = source.numel(), source.element_size()
        cut = _cut(context, count, width)
        all_gather_kernel[(cut.programs,)](
            *(outputs, bits(source), start * width, cut.done, count, context.rank + 1),
            SIZE=outputs.numel(),
            BLOCK=cut.block,
            PART=cut.part,
        )

    def _reduce(
        self, context: CollectiveContext, sources: torch.Tensor, output: torch.Tensor, start: int, op: str
    ) -> None:
        """Reduce as many elements as the output has, from `start` on in every rank's source."""
        from harness.kernels.reduce_scatter import reduce_scatter_kernel  # noqa: PLC0415

        count, width = output.numel(), output.element_size()
        cut = _cut(context, count, width)
        bf16 = output.dtype is torch.bfloat16
        reduce_scatter_kernel[(cut.programs,)](
            sources,
            bits(output) if bf16 else output,
            start * width,
            cut.done,
            count,
            1.0 / context.size if op == "avg" else 1.0,
            SIZE=context.size,
            BLOCK=cut.block,
            PART=cut.part,
            BF16=bf16,
            INTEGER=not output.dtype.is_floating_point,
            MAX=op == "max",
            MIN=op == "min",
        )


class _Cut(NamedTuple):
    """How elements are spread over the programs of a grid."""

    programs: int
    """One where there are no elements, as a grid may not be empty."""
    block: int
    """Elements of a program, a power of two."""
    part: int
    """Of these, how many go at a time where they go one by one."""
    done: int
    """Elements that fill words of 16 bytes."""


def _cut(context: CollectiveContext, count: int, width: int) -> _Cut:
    # Triton compiles a kernel for each block size, so a GPU takes one. The interpreter pays for each program instead.
    if context.device.type == "cpu":
        block = part = min(INTERPRETER_BLOCK, max(64, _power_of_two(count)))
    else:
        block, part = GPU_BLOCK // width, GPU_PART
    return _Cut(max(1, -(-count // block)), block, part, count * width // 16 * 16 // width)


def _before(context: CollectiveContext, count: int) -> int:
    """Where this rank's chunk begins: behind those of the ranks before it."""
    return sum(context.counts[: context.rank]) if context.counts else context.rank * count


BUILT_IN = {
    "triton": "harness.system.collectives:TritonCollectives",
    "cuda": "harness.kernels.cuda.queued:QueuedCollectives",
}


def load_collectives(name: str) -> Any:
    """A kernel collective by built-in name or as `package.module:attribute`. Raises `PluginError`."""
    make = find_collectives(name)
    try:
        found = make()
        check_collectives(found)
    except Misshapen as error:
        raise PluginError(f"collectives {name!r} {error}") from None
    except (Exception, SystemExit) as error:
        raise PluginError(f"collectives {name!r} raised when built: {error!r}") from error
    return found


def find_collectives(name: str, is_simulated: bool = False) -> Callable[[], Any]:
    """What makes the kernel collective of that name; on the simulation, what it names as its `fallback`, if anything.
    Raises `PluginError` for a name that does not load."""
    found = load_attribute("collectives", BUILT_IN.get(name, name), BUILT_IN)
    if is_simulated and (fallback := fallback_of(found)):
        return find_collectives(fallback)
    return found if isinstance(found, type) else lambda: found


def fallback_of(found: object) -> str:
    """The name of those that run on the simulation in place of collectives that need a GPU; empty where these run."""
    name = getattr(found, "fallback", "")
    return name if isinstance(name, str) else ""


def _checked(what: str, size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{what}({size!r}) asks for no positive number")
    return size


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
