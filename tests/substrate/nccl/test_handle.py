"""What a communicator supports by version and node, and the life of its signal pad; NCCL is a log of calls."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.ipc.pads import CANARY, FENCE, OF_BARRIER, SIGNALS
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import NotOwned
from harness.substrate.nccl import handle
from harness.substrate.nccl.binding import made_for
from harness.substrate.nccl.handle import BARRIER_AT, PAD_BYTES, SIGNALS_AT, WINDOW_SYMMETRIC, NcclHandle, Version
from harness.trace.events import PadOverwritten
from tests.tools.fake_nccl import Calls, FakeComm, fake_calls

BASE = 0x100000
NEW, OLD, OLDEST = (2, 32, 3), (2, 29, 1), (2, 28, 9)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    fake_calls(monkeypatch, calls, window="window")
    memory = torch.full((PAD_BYTES,), 99, dtype=torch.uint8)

    def at(address: int, size: int) -> torch.Tensor:
        return memory[address - BASE : address - BASE + size]

    monkeypatch.setattr(handle, "tensor_at", at)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return calls


def made(calls: Calls, version: Version = NEW, has_windows: bool = True, nranks: int = 2) -> NcclHandle:
    return NcclHandle(FakeComm(calls, nranks=nranks, has_windows=has_windows), version, is_on_one_node=True)


@pytest.mark.parametrize(
    ("version", "is_on_one_node", "has_windows", "expected"),
    [
        (NEW, True, True, True),
        (NEW, True, False, False),
        (NEW, False, True, False),
        (OLDEST, True, False, True),
        (OLDEST, False, True, False),
    ],
)
def test_windows_are_predicted_by_nccl_that_can_be_asked_and_by_the_node_before(
    version: Version, is_on_one_node: bool, has_windows: bool, expected: bool
) -> None:
    assert NcclHandle(FakeComm([], has_windows=has_windows), version, is_on_one_node).supports_windows is expected


def test_an_nccl_that_is_older_than_the_binding_is_not_asked() -> None:
    """It would refuse the question (2.31.2)."""
    comm = FakeComm([], has_windows=False)
    assert NcclHandle(comm, (2, 31, 2), is_on_one_node=True).supports_windows is (made_for() > (2, 31, 2))


@pytest.mark.parametrize(("version", "expected"), [(NEW, True), ((2, 29, 2), True), (OLD, False), (OLDEST, False)])
def test_peers_have_pointers_from_2_29_2_on(version: Version, expected: bool) -> None:
    assert made([], version).has_peer_pointers is expected


def test_a_pad_is_allocated_and_registered_when_it_is_first_asked_for(calls: Calls) -> None:
    group = made(calls)
    assert (calls, group.has_registered_pads) == ([], False)
    assert group.pads() == [4096, 8192]
    assert calls == [
        ("mem_alloc", PAD_BYTES),
        ("comm_window_register", "base", 0x100000, PAD_BYTES, WINDOW_SYMMETRIC),
    ]


def test_a_pad_is_registered_once(calls: Calls) -> None:
    group = made(calls)
    assert group.pads() == group.pads()
    assert (len(calls), group.has_registered_pads) == (2, True)


@pytest.mark.parametrize(
    ("version", "has_windows", "nranks"), [(OLD, True, 2), (NEW, False, 2), (NEW, True, 1)], ids=str
)
def test_there_is_no_pad_where_kernels_cannot_reach_peers(
    version: Version, has_windows: bool, nranks: int, calls: Calls
) -> None:
    with pytest.raises(NotOwned):
        made(calls, version, has_windows, nranks).pads()
    assert calls == []


def row(group: NcclHandle, at: int) -> torch.Tensor:
    return group._row(at)


@pytest.mark.parametrize("at", [SIGNALS_AT, BARRIER_AT])
def test_pads_are_zero_between_fences_and_so_again_when_they_begin_anew(calls: Calls, at: int) -> None:
    group = made(calls)
    group.renew()
    group.pads()
    fresh = [CANARY] * FENCE + [0, 0] + [CANARY] * FENCE
    assert row(group, at).tolist() == fresh
    row(group, at).fill_(7)
    group.renew()
    assert row(group, at).tolist() == fresh


@pytest.mark.parametrize(("at", "pad"), [(SIGNALS_AT, SIGNALS), (BARRIER_AT, OF_BARRIER)])
def test_words_beside_a_pad_are_seen_once_and_signals_stay(calls: Calls, at: int, pad: str) -> None:
    group = made(calls)
    assert group.overwritten(GroupId((4, 6))) == []
    group.pads()
    row(group, at)[FENCE] = 3
    assert group.overwritten(GroupId((4, 6))) == []
    row(group, at)[FENCE + 2 : FENCE + 4] = 5
    assert group.overwritten(GroupId((4, 6))) == [PadOverwritten(GroupId((4, 6)), pad, 2, 2, "0x5")]
    assert (group.overwritten(GroupId((4, 6))), int(row(group, at)[FENCE])) == ([], 3)


def test_the_pads_memory_goes_after_its_window_and_its_communicator(calls: Calls) -> None:
    group = made(calls)
    group.pads()
    calls.clear()
    group.destroy()
    assert calls == [("comm_window_deregister", "base", "window"), ("destroy", "base"), ("mem_free", 0x100000)]


def test_a_communicator_without_a_pad_frees_none(calls: Calls) -> None:
    made(calls).destroy()
    assert calls == [("destroy", "base")]
