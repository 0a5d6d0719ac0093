"""Which calls of NCCL a collective becomes, and when evidence is asked; NCCL is a log of calls."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.communicator import NotOwned, RegistrationError
from harness.substrate.nccl import communicator as module
from harness.substrate.nccl.communicator import NcclCommunicator
from harness.substrate.nccl.evidence import Asked
from harness.substrate.nccl.handle import WINDOW_DEFAULT, WINDOW_SYMMETRIC, NcclHandle, Version
from harness.substrate.segment import Segment
from harness.substrate.workspace import GUARD
from harness.trace.events import Entered, Registered, RegistrationFailed
from tests.tools.fake_nccl import Calls, FakeComm, fake_calls, real_memory
from tests.tools.one_rank import Rank

SEGMENT = Segment(0, "pool", 4096, 2 << 20)
SIX, THREE = torch.zeros(6), torch.zeros(3)


class Answers:
    """Evidence that makes no call and notes what is asked."""

    def __init__(self, path: str = "symmetric") -> None:
        self.asked: list[Asked] = []
        self._path = path

    def run(self, asked: Asked) -> tuple[str, str]:
        self.asked.append(asked)
        return self._path, "the answer"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    fake_calls(monkeypatch, calls, window=0x40)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(module.nc, "group", nullcontext)
    return calls


@pytest.fixture
def answers() -> Answers:
    return Answers()


def made(
    rank: Rank, calls: Calls, answers: Answers, size: int = 2, version: Version = (2, 32, 3), has_windows: bool = True
) -> NcclCommunicator:
    """This rank's end of a group of `size` ranks, whose others make the same calls."""
    group = GroupId(tuple(range(size)))
    handle = NcclHandle(FakeComm(calls, nranks=size, has_windows=has_windows), version, is_on_one_node=True)
    rendezvous = Rendezvous(rank.memory, 0, (0,), 0)
    on = rank.substrate
    return NcclCommunicator(on.recorder, on.device, rendezvous, group, 0, handle, answers, lambda: None)


def test_a_call_of_one_rank_is_not_forced_and_is_a_copy(rank: Rank, calls: Calls, answers: Answers) -> None:
    alone = made(rank, calls, answers, size=1)
    assert alone.all_gather(THREE, THREE) == ("copy", "one rank")
    assert (calls, answers.asked) == ([("allgather", "")], [])


def test_a_call_on_the_legacy_path_is_forced_off_the_symmetric_kernels(
    rank: Rank, calls: Calls, answers: Answers
) -> None:
    pair = made(rank, calls, answers)
    with pair.on_legacy_path():
        assert pair.all_gather(SIX, THREE)[0] == "legacy"
    assert (calls, answers.asked) == ([("allgather", "^symk")], [])


@pytest.mark.parametrize(("op", "is_eligible"), [("sum", True), ("avg", True), ("max", False)])
def test_evidence_is_asked_with_the_kernel_that_reads_peers_sources(
    op: str, is_eligible: bool, rank: Rank, calls: Calls, answers: Answers
) -> None:
    assert made(rank, calls, answers).reduce_scatter(THREE, SIX, op) == ("symmetric", "the answer")
    assert [(each.kernel, each.is_eligible) for each in answers.asked] == [("SYMK_LD", is_eligible)]


def test_evidence_is_asked_with_the_kernel_that_writes_peers_outputs(
    rank: Rank, calls: Calls, answers: Answers
) -> None:
    made(rank, calls, answers).all_gather(SIX, THREE)
    assert [(each.kernel, each.is_eligible) for each in answers.asked] == [("SYMK_ST", True)]


@pytest.mark.parametrize(
    ("op", "version", "asked", "free"),
    [
        ("sum", (2, 32, 3), ["SYMK_RSxLD_AGxST"], ""),
        ("avg", (2, 32, 3), [""], "^symk"),
        ("avg", (2, 30, 7), ["SYMK_RSxLD_AGxST"], ""),
    ],
    ids=["a sum", "an average", "an average where calls cannot be forced"],
)
def test_an_average_of_an_all_reduce_is_kept_from_kernels_that_nccl_does_not_have(
    op: str, version: Version, asked: list[str], free: str, rank: Rank, calls: Calls, answers: Answers
) -> None:
    made(rank, calls, answers, version=version).all_reduce(THREE, THREE, op)
    assert ([each.kernel for each in answers.asked], [each.free for each in answers.asked]) == (asked, [free])


@pytest.mark.parametrize(("version", "free"), [((2, 32, 3), "copy engines"), ((2, 30, 7), "")])
def test_a_call_for_copy_engines_is_not_forced_and_asks_for_them_where_a_call_can(
    version: Version, free: str, rank: Rank, calls: Calls, answers: Answers
) -> None:
    pair = made(rank, calls, answers, version=version)
    with pair.by_copy_engine():
        pair.all_gather(SIX, THREE)
        pair.all_to_all(SIX, SIX, ((3, 3), (3, 3)))
    assert [(each.kernel, each.free) for each in answers.asked] == [("", free)] * 2
    for each in answers.asked:
        each.issue(each.free)
    policy = str(module.nc.CTAPolicy.ZERO) if free else ""
    assert calls == [("allgather", policy), ("alltoall", policy)]


def test_the_first_call_by_copy_engines_is_made_twice_but_not_in_a_capture(rank: Rank, calls: Calls) -> None:
    pair = made(rank, calls, Answers("copy engine"))
    with pair.by_copy_engine():
        with pair.device.capture():
            pair.all_gather(SIX, THREE)
        made_in_capture = len(calls)
        for _ in range(2):
            pair.all_gather(SIX, THREE)
    again = [("allgather", str(module.nc.CTAPolicy.ZERO))]
    assert (made_in_capture, calls) == (0, again)  # what `answers` is asked for is not made


def test_calls_without_elements_that_nccl4py_refuses_are_not_made(rank: Rank, calls: Calls, answers: Answers) -> None:
    pair, none = made(rank, calls, answers), torch.zeros(0)
    assert pair.reduce_scatter(none, none, "sum") == ("copy", "no elements")
    assert pair.all_to_all(none, none, ((0, 0), (0, 0)))[0] == "legacy"
    assert (calls, answers.asked) == ([], [])


@pytest.mark.parametrize("selection", ["", "SYMK_ST"])
def test_evidence_issues_the_call_under_the_selection_that_it_names(
    selection: str, rank: Rank, calls: Calls, answers: Answers
) -> None:
    made(rank, calls, answers).all_gather(SIX, THREE)
    answers.asked[0].issue(selection)
    assert calls == [("allgather", selection)]


def test_an_all_gather_of_unequal_sizes_is_a_broadcast_from_each_rank(
    rank: Rank, calls: Calls, answers: Answers
) -> None:
    path, _ = made(rank, calls, answers).all_gather(SIX, torch.zeros(2), [2, 4])
    assert (path, calls) == ("legacy", [("broadcast", 0, 2), ("broadcast", 1, 4)])


def test_a_reduce_scatter_of_unequal_sizes_is_a_reduction_to_each_rank(
    rank: Rank, calls: Calls, answers: Answers
) -> None:
    path, _ = made(rank, calls, answers).reduce_scatter(torch.zeros(2), SIX, "sum", [2, 4])
    assert (path, calls) == ("legacy", [("reduce", 0, 2), ("reduce", 1, 4)])


@pytest.mark.parametrize(("counts", "made_of"), [([0, 6], [(1, 6)]), ([6, 0], [(0, 6)])])
def test_a_rank_without_elements_is_left_out_of_a_call_of_unequal_sizes(
    counts: list[int], made_of: list[tuple[int, int]], rank: Rank, calls: Calls, answers: Answers
) -> None:
    pair, mine = made(rank, calls, answers), torch.zeros(counts[0])
    pair.all_gather(SIX, mine, counts)
    pair.reduce_scatter(mine, SIX, "sum", counts)
    assert calls == [(kind, *each) for kind in ("broadcast", "reduce") for each in made_of]


def test_a_call_is_recorded_before_nccl_is_called(rank: Rank, calls: Calls, answers: Answers) -> None:
    alone = made(rank, calls, answers, size=1)
    alone.handle.comm.allgather = lambda *_, **__: calls.append(tuple(rank.events))
    alone.all_gather(THREE, THREE)
    assert calls[0][-1] == Entered("all_gather", alone.ident)


def test_a_segment_is_registered_for_symmetric_kernels(rank: Rank, calls: Calls, answers: Answers) -> None:
    window = made(rank, calls, answers).register(SEGMENT)
    assert calls == [("comm_window_register", "base", 4096, 2 << 20, WINDOW_SYMMETRIC)]
    assert (window is not None and window.handle) == 0x40


def test_a_part_of_a_segment_is_registered_with_the_flags_asked_for(rank: Rank, calls: Calls, answers: Answers) -> None:
    made(rank, calls, answers).register(SEGMENT, offset=8192, nbytes=4096, symmetric=False)
    assert calls == [("comm_window_register", "base", 4096 + 8192, 4096, WINDOW_DEFAULT)]


def test_a_registration_that_nccl_refuses_is_an_error_with_ncclss_own_as_its_cause(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Exception):
        """As nccl4py's."""

    def refuse(*_: object) -> None:
        raise Refused("ncclInternalError (3): Internal error")

    monkeypatch.setattr(module.nccl, "NCCLError", Refused)
    monkeypatch.setattr(module.nccl, "comm_window_register", refuse)
    pair = made(rank, calls, answers)
    with pytest.raises(RegistrationError, match=r"^ncclInternalError") as error:
        pair.register(SEGMENT)
    assert isinstance(error.value.__cause__, Refused)
    assert rank.events[-1] == RegistrationFailed(pair.ident, 0, "ncclInternalError (3): Internal error")


def test_a_refused_segment_is_not_asked_of_nccl(rank: Rank, calls: Calls, answers: Answers) -> None:
    pair = made(rank, calls, answers)
    pair.refusal.is_due = True
    with pytest.raises(RegistrationError, match="was refused"):
        pair.register(SEGMENT)
    assert calls == []


def test_a_null_window_of_nccl_is_no_window_and_is_recorded_as_null(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_calls(monkeypatch, calls, window=0)
    assert made(rank, calls, answers, has_windows=False).register(SEGMENT) is None
    assert rank.events[-1] == Registered(1, 0, 0, 4096, 2 << 20, True)


def test_a_window_is_deregistered_once(rank: Rank, calls: Calls, answers: Answers) -> None:
    window = made(rank, calls, answers).register(SEGMENT)
    assert window is not None
    window.close()
    window.close()
    assert calls[1:] == [("comm_window_deregister", "base", 0x40)]


def test_peers_are_addressed_through_the_window_at_the_offset(rank: Rank, calls: Calls, answers: Answers) -> None:
    pair = made(rank, calls, answers)
    window = pair.register(SEGMENT)
    assert window is not None
    assert pair.peer_pointers(window, 24) == [4096 + 24, 8192 + 24]


def test_nccl_is_asked_once_where_a_live_window_is_mapped(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def pointer(handle: int, offset: int, peer: int) -> int:
        asked.append((handle, peer))
        return 4096 * (peer + 1) + offset

    monkeypatch.setattr(module.nccl, "get_peer_device_pointer", pointer)
    pair = made(rank, calls, answers)
    first = pair.register(SEGMENT)
    assert first is not None
    assert [pair.peer_pointers(first, offset) for offset in (0, 24, 0)] == [[4096, 8192], [4120, 8216], [4096, 8192]]
    fake_calls(monkeypatch, calls, window=0x41)
    monkeypatch.setattr(module.nccl, "get_peer_device_pointer", pointer)
    second = pair.register(SEGMENT)
    assert second is not None
    pair.peer_pointers(second)
    first.close()
    pair.peer_pointers(first)  # NCCL has the last word on a window that is gone
    assert asked == [(handle, peer) for handle in (0x40, 0x41, 0x40) for peer in range(2)]


def test_a_peer_out_of_reach_has_no_address_at_any_offset(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.nccl, "get_peer_device_pointer", lambda handle, offset, peer: peer and 4096 + offset)
    pair = made(rank, calls, answers)
    window = pair.register(SEGMENT)
    assert window is not None
    assert pair.peer_pointers(window, 24) == [0, 4120]


def test_before_2_29_2_no_peer_has_a_pointer(rank: Rank, calls: Calls, answers: Answers) -> None:
    pair = made(rank, calls, answers, version=(2, 28, 9))
    window = pair.register(SEGMENT)
    assert window is not None
    with pytest.raises(NotOwned):
        pair.peer_pointers(window)


def test_epochs_outlive_a_draws_communicator_and_begin_anew_with_their_pads(
    rank: Rank, calls: Calls, answers: Answers
) -> None:
    pair = made(rank, calls, answers)
    again = NcclCommunicator(
        pair.recorder, pair.device, pair._rendezvous, GroupId((0, 1)), 0, pair.handle, answers, lambda: None
    )
    assert (pair.next_epoch(), again.next_epoch()) == (1, 2)
    pair.handle.renew()
    assert again.next_epoch() == 1


# memory of the harness for plug-ins

WHOLE = 2 << 20


def test_a_workspace_is_cleared_and_registered_once_and_its_memory_goes_after_its_window(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, address = made(rank, calls, answers), real_memory(monkeypatch, calls, WHOLE)
    space = pair.workspace("workspace", 512)
    assert pair.workspace("workspace", 512) is space
    assert (space.body.data_ptr(), space.body.any().item()) == (address + GUARD, False)
    assert space.pointers(space.start + 8) == [4096 + GUARD + 8, 8192 + GUARD + 8]
    pair.give_back()
    assert calls == [
        ("mem_alloc", WHOLE),
        ("comm_window_register", "base", address, WHOLE, WINDOW_SYMMETRIC),
        ("comm_window_deregister", "base", 0x40),
        ("mem_free", address),
    ]


def test_a_workspace_is_in_no_window_of_the_trace(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, address = made(rank, calls, answers), real_memory(monkeypatch, calls, WHOLE)
    pair.workspace("workspace", 512)
    assert (pair.windows, pair.find_window(address)) == ([], None)
    assert not [event for event in rank.events if isinstance(event, Registered)]


def test_a_window_of_a_workspace_goes_with_a_communicator_that_is_gone(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, address = made(rank, calls, answers), real_memory(monkeypatch, calls, WHOLE)
    pair.workspace("flags", 8)
    pair.is_gone = True
    calls.clear()
    pair.give_back()
    assert calls == [("mem_free", address)]


def test_a_workspace_of_one_rank_is_registered_with_none(
    rank: Rank, calls: Calls, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, address = made(rank, calls, answers, size=1, version=(2, 28, 9)), real_memory(monkeypatch, calls, WHOLE)
    assert alone.workspace("flags", 8).pointers(address + GUARD) == [address + GUARD]
    alone.give_back()
    assert calls == [("mem_alloc", WHOLE), ("mem_free", address)]


@pytest.mark.parametrize(("version", "has_windows"), [((2, 28, 9), True), ((2, 32, 3), False)])
def test_there_is_no_workspace_where_kernels_cannot_reach_peers(
    version: Version, has_windows: bool, rank: Rank, calls: Calls, answers: Answers
) -> None:
    with pytest.raises(NotOwned):
        made(rank, calls, answers, version=version, has_windows=has_windows).workspace("flags", 8)
    assert calls == []
