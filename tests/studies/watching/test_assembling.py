"""What processes wrote as one recording: the events of each rank, the steps they share, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.machine.observer.records import (
    Allocated,
    AllocationFailed,
    CaptureBegan,
    CaptureEnded,
    CommGone,
    Deregistered,
    Fact,
    Freed,
    GroupStarted,
    RegisterEntered,
    RegisterFailed,
    Unobserved,
)
from harness.studies.watching.assembling import Assembled, assemble
from harness.studies.watching.judging import judge
from harness.trace import events as trace
from harness.trace.events import Event
from tests.tools.recorded import BASE, SEGMENT, comm, gather, process, registration

OWNED: list[Fact] = [Allocated(BASE, SEGMENT), *registration(0)]


def alike(*done: Fact, ranks: int = 2) -> Assembled:
    """The recording of ranks that all did the same on communicator 0."""
    return assemble([process([comm(0, rank, ranks), *done], rank) for rank in range(ranks)])


def events(assembled: Assembled, kind: type[Event], rank: int = 0) -> list[Event]:
    return [event for event in assembled.recording.traces[rank].events if isinstance(event, kind)]


def test_a_call_has_its_operands_by_segment_and_its_facts() -> None:
    (called,) = events(alike(*OWNED, gather(0, receive=BASE + 64)), trace.Called)
    assert isinstance(called, trace.Called)
    assert (called.output.buffer, called.output.size, called.source.size) == ("segment 1 + 64", 16, 8)
    assert (called.source.buffer, called.meant) == ("memory at 0x1000", ("output",))
    assert (called.kind, called.dtype, called.op, called.counts) == ("all_gather", "bfloat16", None, 4)


def test_equal_calls_are_told_once_until_something_changes() -> None:
    assembled = alike(*OWNED, gather(0), gather(0), Allocated(1 << 40, SEGMENT), gather(0))
    assert len(events(assembled, trace.Called)) == 2
    assert assembled.recording.places == (
        "the start",
        "creation of comm[0,1]",
        "registration 1 (of comm[0,1])",
        "all_gather 1 (model.py:31 forward)",
        "all_gather 3 (model.py:31 forward)",
    )


def test_a_call_that_is_new_on_one_rank_is_told_on_all() -> None:
    done = [[gather(0), gather(0), gather(0)], [gather(0), gather(0, receive=BASE + 64), gather(0)]]
    assembled = assemble([process([comm(0, rank), *OWNED, *calls], rank) for rank, calls in enumerate(done)])
    assert [len(events(assembled, trace.Called, rank)) for rank in range(2)] == [2, 2]


def test_segments_and_windows_come_and_go() -> None:
    window = Deregistered(0, 0x55)
    assembled = alike(*OWNED, window, *registration(0, window=0x77), Freed(BASE, False), CommGone(0, "destroy"))
    assert events(assembled, trace.SegmentFreed) == [trace.SegmentFreed(1, (3,))]
    assert events(assembled, trace.Deregistered) == [trace.Deregistered(2)]
    assert events(assembled, trace.CommDestroyed) == [trace.CommDestroyed(0)]


def test_what_failed_is_told() -> None:
    failed = [RegisterEntered(0, BASE, SEGMENT, 1), RegisterFailed(0, BASE, SEGMENT, 1, 4)]
    assembled = alike(Allocated(BASE, SEGMENT), *failed, AllocationFailed(SEGMENT, 1, False))
    assert events(assembled, trace.RegistrationFailed) == [trace.RegistrationFailed(0, 1, "ncclResult 4")]
    assert events(assembled, trace.SegmentDenied) == [trace.SegmentDenied("", SEGMENT)]


@pytest.mark.parametrize("result", [2, 6])
def test_a_registration_whose_peer_went_away_was_entered(result: int) -> None:
    failed = [RegisterEntered(0, BASE, SEGMENT, 1), RegisterFailed(0, BASE, SEGMENT, 1, result)]
    assert events(alike(Allocated(BASE, SEGMENT), *failed), trace.RegistrationFailed) == []


def test_a_null_window_and_a_window_without_the_flag_are_told_as_such() -> None:
    assembled = alike(Allocated(BASE, SEGMENT), *registration(0, window=0), *registration(0))
    null, real = (event for event in events(assembled, trace.Registered) if isinstance(event, trace.Registered))
    assert (null.is_null, null.segment, real.is_null, real.is_symmetric) == (True, 1, False, True)


def test_a_rank_that_never_came_out_of_a_call_hangs_in_it() -> None:
    call = gather(0)
    processes = [process([comm(0, rank), *OWNED, call], rank, blocked=[call] * (rank == 1)) for rank in range(2)]
    assembled = assemble(processes)
    assert [fate.state for fate in assembled.recording.fates] == ["finished", "hung"]
    last = [each.events[-1] for each in assembled.recording.traces]
    assert [type(each) for each in last] == [trace.Finished, trace.Entered]
    assert events(assembled, trace.Ran, 1) == []


def test_registrations_in_opposite_order_are_told_on_both_ranks() -> None:
    first, second = registration(0), registration(1)
    made = [comm(0, 0), comm(1, 0)], [comm(0, 1), comm(1, 1)]
    order = [*first, *second], [*second, *first]
    processes = [
        process([*comms, Allocated(BASE, SEGMENT), *done], rank)
        for rank, (comms, done) in enumerate(zip(made, order, strict=True))
    ]
    assembled = assemble(processes)
    assert [len(events(assembled, trace.Registered, rank)) for rank in range(2)] == [2, 2]
    assert assembled.left_out == ()


def on_two(*calls: Sequence[Fact], **fields: object) -> Assembled:
    """What ranks did on two communicators."""
    made = [process([comm(0, rank), comm(1, rank), *done], rank, **fields) for rank, done in enumerate(calls)]  # type: ignore[arg-type]
    return assemble(made)


def test_calls_in_opposite_order_are_told_on_all_ranks() -> None:
    again = gather(1, count=8)
    assembled = on_two([gather(0), gather(1), again], [gather(1), again, gather(0)])
    assert [[each.comm for each in events(assembled, trace.Called, rank)] for rank in range(2)] == [[0, 1, 1]] * 2
    assert [[each.counts for each in events(assembled, trace.Called, rank)] for rank in range(2)] == [[4, 4, 8]] * 2
    assert assembled.left_out == ()


def test_calls_in_opposite_order_around_a_change_are_left_out_and_counted() -> None:
    change = Allocated(BASE, SEGMENT)
    assembled = on_two([gather(0), change, gather(1)], [gather(1), change, gather(0)])
    assert len(events(assembled, trace.Called)) == 1
    assert assembled.left_out == ("1 call that ranks made in different orders on two communicators.",)


def test_the_call_that_a_rank_is_still_in_stays_its_last() -> None:
    """The call on the second communicator comes first on both ranks, and the one on the first never ends."""
    assembled = on_two([gather(1), gather(0)], [gather(0), gather(1)], blocked=[gather(0)])
    told = [[each.comm for each in events(assembled, trace.Called, rank)] for rank in range(2)]
    assert told[0][-1] == 0
    assert [fate.state for fate in assembled.recording.fates] == ["hung", "hung"]


def test_the_end_of_a_group_that_never_comes_is_a_hang() -> None:
    group = GroupStarted(1)
    done = [comm(0, 0), group, gather(0)], [comm(0, 1), group, gather(0)]
    processes = [process(done[0], 0, blocked=[group]), process(done[1], 1)]
    assert [fate.state for fate in assemble(processes).recording.fates] == ["hung", "finished"]


def test_a_rank_that_has_not_ended_is_not_done() -> None:
    ranks = [process([comm(0, rank), gather(0)], rank, path=f"{rank}.symm") for rank in range(2)]
    assembled = assemble(ranks, {"1.symm"})
    assert [fate.state for fate in assembled.recording.fates] == ["finished", "stopped"]
    assert [len(events(assembled, trace.Finished, rank)) for rank in range(2)] == [1, 0]
    assert assembled.left_out == ("What rank 1 had yet to do.",)


def test_what_is_not_judged_is_said() -> None:
    lost = [process([comm(0, rank), comm(1, 0, 3), Unobserved("/opt/libnccl.so")], rank) for rank in range(2)]
    lost[1] = process([comm(0, 1)], 1, lost_events=7, lost_facts=1)
    assert assemble(lost).left_out == (
        "1 communicator of which some ranks were not recorded, such as one of 3 without ranks 1, 2.",
        "7 events and 1 fact of process 101 for which its file had no room.",
        "Calls to /opt/libnccl.so, if there were any: it is loaded beside the NCCL that is observed.",
    )


def test_sends_and_receives_have_no_step() -> None:
    assert events(alike(*OWNED, gather(0, function="Send")), trace.Called) == []


def test_a_rank_that_hangs_in_a_send_before_any_collective_is_judged() -> None:
    call = gather(0, function="Send")
    processes = [process([comm(0, rank), call], rank, blocked=[call] * (rank == 1)) for rank in range(2)]
    assembled = assemble(processes)
    assert [fate.state for fate in assembled.recording.fates] == ["finished", "hung"]


def test_paths_are_what_nccl_said() -> None:
    ran = [
        events(alike(*OWNED, gather(0, **said)), trace.Ran)[0]
        for said in ({"symmetric": 1}, {"legacy": 1}, {"copy": 1}, {}, {"symmetric": 1, "legacy": 1})
    ]
    assert [event.path for event in ran] == ["symmetric", "legacy", "copy engine", "unknown", "unknown"]  # type: ignore[union-attr]


def test_a_call_by_copy_engines_reaches_peers_as_one_that_asks_for_them() -> None:
    called = [events(alike(*OWNED, gather(0, **said)), trace.Called)[0] for said in ({"copy": 1}, {"legacy": 1})]
    assert [event.via for event in called] == ["copy-engine", "library"]  # type: ignore[union-attr]


def test_a_registration_is_told_with_the_capture_that_its_thread_was_in() -> None:
    began = CaptureBegan(81, 4, "global", "/job/train.py:40 step")
    inside, beside = RegisterEntered(0, BASE, SEGMENT, 1, "", 4), RegisterEntered(0, BASE, SEGMENT, 1, "", 5)
    told = events(alike(Allocated(BASE, SEGMENT), began, inside, beside, CaptureEnded(81, 4)), trace.Entered)
    assert told == [trace.Entered("register", 0, "capture 1 (train.py:40 step)"), trace.Entered("register", 0)]


def test_captured_calls_of_which_nccl_says_no_path_are_not_slow_though_owned() -> None:
    done = [*OWNED, CaptureBegan(81, 1), gather(0, captured=True), CaptureEnded(81, 1)]
    judged = judge([process([comm(0, rank), *done], rank) for rank in range(2)])
    (row,) = judged.rows
    assert (row.calls, row.captured, row.unknown, row.has_slow_owned) == (2, 2, 2, False)
    assert ([*row.owners], judged.findings, judged.is_vacuous) == (["its own window"], (), False)


def test_a_captured_call_without_an_own_window_is_judged_as_others_are() -> None:
    done = [*OWNED, gather(1, captured=True)]
    judged = judge([process([comm(0, rank), comm(1, rank), *done], rank) for rank in range(2)])
    assert [finding.rule for finding in judged.findings] == ["wrong-owner"]


def test_ranks_that_never_came_out_of_a_later_creation_hang() -> None:
    waits = [comm(1, rank, result=-1) for rank in range(2)]
    ranks = [process([comm(0, rank), *OWNED, gather(0), each], rank, [each]) for rank, each in enumerate(waits)]
    (found,) = judge(ranks).findings
    assert (found.rule, found.ranks) == ("hang", (0, 1))
    assert found.explanation.startswith("rank 0 has not come out of the creation of a communicator of 2 ranks;")
    assert judge(ranks, {ranks[0].path}).findings == ()
