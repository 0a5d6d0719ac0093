"""Memory of the harness that plug-ins ask for, on one rank of the simulation."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import NotOwned
from harness.substrate.workspace import GUARD
from harness.trace.events import Entered, Provided, WorkspaceOverwritten
from tests.tools.one_rank import Rank


def test_memory_is_zero_aligned_and_the_same_for_the_same_size(rank: Rank) -> None:
    communicator = rank.communicator()
    space, flags = communicator.workspace("workspace", 1000).body, communicator.workspace("flags", 24).body
    assert (space.dtype, space.numel(), flags.dtype, flags.numel()) == (torch.uint8, 1000, torch.int32, 6)
    assert [(tensor.any().item(), tensor.data_ptr() % 256) for tensor in (space, flags)] == [(False, 0)] * 2
    assert communicator.workspace("workspace", 1000).body is space
    assert communicator.workspace("workspace", 24).body is not flags


def test_it_is_recorded_once_and_in_no_pool_or_window(rank: Rank) -> None:
    communicator = rank.communicator()
    rank.events.clear()
    made = communicator.workspace("workspace", 8)
    assert communicator.workspace("workspace", 8) is made
    assert rank.events == [Entered("workspace", 0), Provided(made.ident, 0, "workspace", 8)]
    assert communicator.find_window(made.start) is None
    assert rank.substrate.locate(made.start) is None


@pytest.mark.parametrize("at", [-1, -GUARD, 1000, 999 + GUARD])
def test_a_store_beside_it_is_seen_once(rank: Rank, at: int) -> None:
    communicator = rank.communicator()
    space = communicator.workspace("workspace", 1000)
    rank.substrate.device.view(space.start + at, 1).fill_(0)
    (seen,) = communicator.workspaces.overwritten()
    assert (seen.group, seen.what, seen.nbytes, seen.index, seen.changed) == (GroupId((0,)), "workspace", 1000, at, 1)
    assert seen.found.startswith("00")
    assert [*communicator.workspaces.overwritten()] == []


def test_what_is_in_it_is_the_plug_ins(rank: Rank) -> None:
    communicator = rank.communicator()
    communicator.workspace("flags", 8).body.fill_(-1)
    assert [*communicator.workspaces.overwritten()] == []


def test_memory_that_is_given_back_is_looked_at_and_comes_again_as_zeros(rank: Rank) -> None:
    communicator = rank.communicator()
    first = communicator.workspace("workspace", 64)
    first.body.fill_(7)
    rank.substrate.device.view(first.start - 2, 2).fill_(0)
    communicator.give_back()
    assert [type(event) for event in rank.events][-1] is WorkspaceOverwritten
    assert communicator.workspaces.find(first.start) is None
    assert not communicator.workspace("workspace", 64).body.any()


def test_memory_is_asked_for_outside_of_captures(rank: Rank) -> None:
    communicator = rank.communicator()
    made = communicator.workspace("flags", 8)
    with rank.substrate.device.capture():
        assert communicator.workspace("flags", 8) is made
        with pytest.raises(RuntimeError, match=r"flags of 16 bytes cannot be made while a graph is captured: ask"):
            communicator.workspace("flags", 16)


def test_a_communicator_whose_ranks_have_no_windows_has_none(rank: Rank) -> None:
    communicator = rank.communicator(windows=False)
    assert communicator.workspace("flags", 4).body.numel() == 1  # of one rank, which needs no peers
    communicator.size = 2
    with pytest.raises(NotOwned):
        communicator.workspace("flags", 8)
