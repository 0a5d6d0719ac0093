"""What a collective sees of its group, and how a user's own is found."""

from __future__ import annotations

import pytest
import torch

from harness.errors import PluginError
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter, Release, Step, Straggle
from harness.substrate.sim.communicator import SimCommunicator
from harness.system.collectives import CollectiveContext, NotOwned, TritonCollectives, load_collectives
from harness.world.world import World
from tests.tools.one_rank import Rank
from tests.tools.scenes import findings, scenario


class Counts(SimCommunicator):
    """Counts its barriers on the host."""

    barriers = 0

    def barrier(self) -> None:
        self.barriers += 1


def context(rank: Rank) -> CollectiveContext:
    return CollectiveContext(rank.communicator())


def buffer(rank: Rank) -> torch.Tensor:
    with rank.pool().use():
        return torch.zeros(64)


def test_a_context_has_the_groups_ranks_and_the_device(rank: Rank) -> None:
    alone = context(rank)
    assert (alone.rank, alone.size, alone.group, alone.device) == (0, 1, (0,), torch.device("cpu"))


def test_peers_are_addressed_by_the_local_offset_in_the_window(rank: Rank) -> None:
    communicator, whole = rank.communicator(), buffer(rank)
    communicator.register(rank.pool().segments[0])
    part = whole[3:]
    assert CollectiveContext(communicator).peer_addresses(part).tolist() == [part.data_ptr()]


@pytest.mark.parametrize("is_registered_elsewhere", [False, True])
def test_a_tensor_in_no_window_of_the_communicator_is_not_owned(is_registered_elsewhere: bool, rank: Rank) -> None:
    tensor = buffer(rank)
    if is_registered_elsewhere:
        rank.communicator(slot=1).register(rank.pool().segments[0])
    with pytest.raises(NotOwned):
        context(rank).peer_addresses(tensor)


def test_signal_pads_are_asked_for_once(rank: Rank) -> None:
    alone = context(rank)
    assert alone.signal_pads is alone.signal_pads
    assert alone.signal_pads.tolist() == [rank.memory.pads[0][0].ctypes.data]


def test_ranks_that_share_a_gpu_meet_on_the_host(rank: Rank) -> None:
    rank.substrate.device.has_barrier = False
    communicator = rank.communicator(kind=Counts)
    CollectiveContext(communicator).barrier()
    assert isinstance(communicator, Counts)
    assert (communicator.barriers, int(rank.memory.barriers[0].max())) == (1, 0)


def test_epochs_of_a_plug_ins_own_barrier_are_not_those_of_the_harness(rank: Rank) -> None:
    alone = context(rank)
    with alone._communicator.in_kernel_barrier():
        pass
    assert [alone.epoch(), alone.epoch()] == [1, 2]


@pytest.mark.parametrize(("start", "expected"), [(0, 128), (1, 4), (2, 8), (3, 4), (16, 64), (32, 128)])
def test_the_alignment_of_a_tensor_is_that_of_its_addresses_on_all_ranks(rank: Rank, start: int, expected: int) -> None:
    communicator, whole = rank.communicator(), buffer(rank)
    communicator.register(rank.pool().segments[0])
    assert CollectiveContext(communicator).alignment(whole[start:]) == expected


def test_a_peers_address_lowers_the_alignment(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    communicator, whole = rank.communicator(), buffer(rank)
    communicator.register(rank.pool().segments[0])
    monkeypatch.setattr(communicator, "peer_pointers", lambda window, offset: [1 << 20, (1 << 21) + 16])
    assert CollectiveContext(communicator).alignment(whole) == 16


def test_a_tensor_in_no_window_has_no_alignment_that_is_known(rank: Rank) -> None:
    with pytest.raises(NotOwned):
        context(rank).alignment(buffer(rank))


def test_peer_addresses_and_alignment_take_a_part_of_a_workspace(rank: Rank) -> None:
    alone = context(rank)
    part = alone.workspace(64)[8:]
    assert alone.peer_addresses(part).tolist() == [part.data_ptr()]
    assert alone.alignment(part) == 8


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "8"])
def test_memory_is_asked_for_in_a_positive_number(rank: Rank, size: object) -> None:
    alone = context(rank)
    for ask in (alone.workspace, alone.flags):
        with pytest.raises(ValueError, match="asks for no positive number"):
            ask(size)  # type: ignore[arg-type]


def test_the_simulation_runs_one_block_and_shares_no_gpu(rank: Rank) -> None:
    alone = context(rank)
    assert (alone.max_blocks, alone.shares_gpu) == (1, False)


def test_an_identity_is_that_of_a_communicator_and_its_draw(rank: Rank) -> None:
    first = context(rank).identity
    assert (context(rank).identity == first, {first} == {context(rank).identity}) == (True, True)
    again = rank.communicator()
    again.generation = 1
    rank.substrate.start_recording(rank.events.append, draw=7)
    assert len({first, CollectiveContext(again).identity, context(rank).identity}) == 3


# a plug-in's own barrier


def calls(name: str) -> tuple[Step, ...]:
    buffer = View(name)
    return (
        Allocate(name, "tp", 8),
        Straggle(1, 50),  # its peer has to wait for it
        AllGather("tp", buffer, 4, via="kernel"),
        ReduceScatter("tp", buffer, 4, via="kernel"),
        Release(name),
    )


@pytest.mark.parametrize("kernels", ["OwnBarrier", "OwnCount"])
def test_a_sound_barrier_on_the_signal_pads_is_silent_in_every_draw_and_on_every_communicator(
    ranks: World, kernels: str
) -> None:
    played = scenario(*calls("a"), Recreate("tp"), *calls("b"), kernels=kernels)
    assert [findings(ranks, played) for _ in range(3)] == [[]] * 3


# by name


class Whole:
    def all_gather(self, context: object, output: object, source: object) -> None: ...

    def reduce_scatter(self, context: object, output: object, source: object, op: str) -> None: ...


class Half:
    def all_gather(self, context: object, output: object, source: object) -> None: ...


class Raises(Whole):
    def __init__(self) -> None:
        raise ValueError("no such chip")


whole = Whole()


def test_the_kernels_of_the_harness_are_built_in() -> None:
    assert isinstance(load_collectives("triton"), TritonCollectives)


def test_a_class_is_built_and_an_object_is_taken_as_it_is() -> None:
    assert isinstance(load_collectives(f"{__name__}:Whole"), Whole)
    assert load_collectives(f"{__name__}:whole") is whole


def test_collectives_without_a_method_are_refused_with_its_name() -> None:
    with pytest.raises(PluginError, match="has no method 'reduce_scatter'"):
        load_collectives(f"{__name__}:Half")


def test_collectives_that_raise_when_built_are_refused_with_what_they_raised() -> None:
    with pytest.raises(PluginError, match=r"raised when built: ValueError\('no such chip'\)"):
        load_collectives(f"{__name__}:Raises")
