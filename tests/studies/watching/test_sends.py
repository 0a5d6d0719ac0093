"""Sends and receives of a program: each is judged with the one that it meets, and only where that is sure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.machine.observer.records import (
    Allocated,
    Call,
    Deregistered,
    Fact,
    Freed,
    GroupEnded,
    GroupStarted,
    LocallyRegistered,
    Process,
)
from harness.oracle.findings import Finding
from harness.studies.watching.assembling import assemble
from harness.studies.watching.judging import judge
from harness.studies.watching.program import first_program
from harness.trace.events import PointToPoint
from tests.tools.recorded import BASE, SEGMENT, comm, gather, process, registration

LARGE, STAGED = 8200, 8192
"""Elements of two bytes."""
OUTSIDE, SECOND = 0x5000, BASE + SEGMENT
POOL: list[Fact] = [Allocated(BASE, SEGMENT), *registration(0)]


def send(peer: int = 1, at: int = BASE, count: int = LARGE, number: int = 0, **fields: object) -> Call:
    return gather(number, function="Send", root=peer, send=at, receive=0, count=count, **fields)


def recv(peer: int = 0, at: int = OUTSIDE, count: int = LARGE, number: int = 0, **fields: object) -> Call:
    return gather(number, function="Recv", root=peer, send=0, receive=at, count=count, **fields)


def all_to_all(source: int, output: int, **fields: object) -> Call:
    return gather(0, function="AlltoAll", send=source, receive=output, count=LARGE, **fields)


def ranks(*done: Sequence[Fact], **fields: object) -> list[Process]:
    """Ranks of communicators 0 and 9, with a pool that is registered with 0."""
    size = len(done)
    return [
        process([comm(0, rank, size), comm(9, rank, size), *POOL, *facts], rank, **fields)
        for rank, facts in enumerate(done)
    ]


def found(*done: Sequence[Fact], **fields: object) -> list[Finding]:
    return [*judge(ranks(*done, **fields)).findings]


def rules(*done: Sequence[Fact], **fields: object) -> list[str]:
    return [finding.rule for finding in found(*done, **fields)]


@pytest.mark.parametrize(("source", "output", "has", "lacks"), [(BASE, OUTSIDE, 0, 1), (OUTSIDE, BASE, 1, 0)])
def test_a_send_of_which_one_side_is_in_a_window_is_named(source: int, output: int, has: int, lacks: int) -> None:
    (finding,) = found([send(at=source)], [recv(at=output)])
    assert (finding.rule, finding.ranks) == ("half-registered", (0, 1))
    text = finding.explanation
    assert text.startswith(
        "send 1 (model.py:31 forward) on comm[0,1], which meets recv 1 (model.py:31 forward): rank 0 sends 16400 bytes "
    )
    assert f"finds the memory of rank {has} in a window, and that of rank {lacks} in none. NCCL wants both" in text
    assert text.endswith("The data was not looked at, so whether it did is not known.")


@pytest.mark.parametrize(("source", "output"), [(BASE, BASE), (OUTSIDE, OUTSIDE)])
def test_sides_that_are_alike_are_right(source: int, output: int) -> None:
    assert rules([send(at=source)], [recv(at=output)]) == []


def test_what_nccl_stages_is_right() -> None:
    assert rules([send(count=STAGED)], [recv(count=STAGED)]) == []


def test_a_communicator_without_a_window_over_either_side_is_right() -> None:
    more = [Allocated(SECOND, SEGMENT), *registration(9, SECOND)]
    assert rules([*more, send(number=9)], [*more, recv(number=9)]) == []


def test_the_nth_send_to_a_peer_meets_its_nth_receive() -> None:
    """Whatever comes between them to and from others, and on other communicators."""
    right = [send(1), send(2), send(1, number=9), send(1), send(1, OUTSIDE), send(2, OUTSIDE)]
    first = [recv(at=BASE), recv(at=BASE), recv(), recv(number=9)]
    second = [recv(at=BASE), recv()]
    assert rules(right, first, second) == []
    (finding,) = found(right, [recv(at=BASE), recv(), recv(at=BASE), recv(number=9)], second)
    assert finding.explanation.startswith("send 2 (")
    assert finding.explanation.endswith("The same holds at 1 other step like it.")


def test_equal_sends_are_counted_where_they_are_not_told() -> None:
    sends = [*[send(at=BASE)] * 50, send(at=OUTSIDE)]
    receives = [*[recv(at=BASE)] * 50, recv(at=OUTSIDE)]
    processes = ranks(sends, receives)
    told = [event for trace in assemble(processes).recording.traces for event in trace.events]
    assert [event.number for event in told if isinstance(event, PointToPoint)] == [0, 50, 0, 50]
    assert judge(processes).findings == ()


def test_ranks_of_a_group_may_say_first_what_the_other_says_last() -> None:
    group = GroupStarted(1), GroupEnded(0, 1)
    done = [group[0], send(1), recv(1), group[1]], [group[0], send(0), recv(0), group[1]]
    assert [finding.ranks for finding in found(*done)] == [(0, 1)]
    assert rules([send(1), recv(1, BASE)], [send(0), recv(0, BASE)]) == []


@pytest.mark.parametrize("done", [([send(), send()], [recv(at=BASE)]), ([send()], []), ([], [recv(at=BASE), recv()])])
def test_an_end_without_another_is_no_finding(done: tuple[Sequence[Fact], ...]) -> None:
    assert rules(*done) == []


def test_a_rank_that_was_not_recorded_leaves_its_sends_unjudged() -> None:
    first = process([comm(0, 0, 3), comm(9, 0), *POOL, send()], 0)
    second = process([comm(0, 1, 3), comm(9, 1), *POOL, recv()], 1)
    assert judge([first, second]).findings == ()


@pytest.mark.parametrize(
    "failed",
    [send(result=4), GroupEnded(5, 1), gather(0, result=4)],
    ids=["a send", "a group", "a call of a group"],
)
def test_after_a_failure_it_is_not_sure_which_ends_meet(failed: Fact) -> None:
    assert rules([failed, send()], [recv()]) == []


def test_a_file_without_room_leaves_sends_unjudged() -> None:
    assert rules([send()], [recv()], lost_facts=1) == []


def test_ranks_of_two_hosts_may_have_a_network_between_them() -> None:
    first, second = ranks([send()], [recv()])
    other = process([*(second.facts[index] for index in second.order)], 1, host="other")
    assert judge([first, other]).findings == ()
    assert [finding.rule for finding in judge([first, second]).findings] == ["half-registered"]


def test_sizes_that_differ_are_another_fault() -> None:
    assert rules([send()], [recv(count=LARGE + 1)]) == []


def test_a_rank_that_sends_to_itself_is_right() -> None:
    assert rules([send(0), recv(0)], [send(1), recv(1)]) == []


def test_captured_ends_are_right_and_leave_what_follows_unjudged() -> None:
    """A replay may meet a receive that is in no graph."""
    assert rules([send(captured=True)], [recv(captured=True)]) == []
    assert rules([send(captured=True), send()], [recv(at=BASE), recv()]) == []
    assert rules([send(), send(captured=True)], [recv(), recv()]) == ["half-registered"]


@pytest.mark.parametrize(("number", "verdict"), [(0, []), (9, ["half-registered"])])
def test_memory_that_is_registered_without_a_window_counts_for_its_communicator(
    number: int, verdict: list[str]
) -> None:
    assert rules([send()], [LocallyRegistered(number, OUTSIDE - 64, 1 << 20), recv()]) == verdict


def test_memory_of_a_window_that_is_gone_may_be_registered_still() -> None:
    """Where another window in it holds the range in NCCL's list."""
    other = [Allocated(SECOND, SEGMENT), *registration(0, SECOND, window=0x66)]
    gone = [*other, Deregistered(0, 0x66)]
    assert rules([*gone, send()], [*gone, recv(at=SECOND)]) == []


def test_what_reaches_past_its_window_may_be_registered_still() -> None:
    """NCCL rounds up to pages."""
    assert rules([send()], [recv(at=BASE + SEGMENT - 64)]) == []


def test_what_is_registered_at_the_moment_of_the_call_counts() -> None:
    more = [Allocated(SECOND, SEGMENT)], registration(0, SECOND, window=0x66)
    late = [*more[0], recv(at=SECOND), *more[1]], [*more[0], *more[1], recv(at=SECOND)]
    first = [*more[0], send(at=BASE), *more[1]]
    assert [rules(first, second) for second in late] == [["half-registered"], []]


def test_a_window_over_freed_memory_is_the_finding_of_another_rule() -> None:
    assert rules([Freed(BASE, False), send()], [recv()]) == ["freed-while-registered"]


# all-to-all


def test_an_all_to_all_of_which_one_rank_has_one_operand_outside_is_named() -> None:
    right, wrong = all_to_all(BASE, BASE + 65536), all_to_all(BASE, OUTSIDE)
    (finding,) = found([right], [wrong])
    assert finding.rule == "half-registered"
    assert "memory of rank 0 in a window over both of its operands, and on rank 1 over one of them" in str(finding)


@pytest.mark.parametrize(
    "done",
    [
        ([all_to_all(BASE, OUTSIDE)], [all_to_all(OUTSIDE, BASE)]),
        ([all_to_all(BASE, BASE + 65536)], [all_to_all(BASE + 65536, BASE)]),
        ([all_to_all(BASE, BASE + 65536, captured=True)], [all_to_all(BASE, OUTSIDE, captured=True)]),
        ([all_to_all(BASE, BASE + 65536, copy=1)], [all_to_all(BASE, OUTSIDE, copy=1)]),
        ([all_to_all(BASE, BASE + 65536)], [LocallyRegistered(0, OUTSIDE, 1 << 20), all_to_all(BASE, OUTSIDE)]),
    ],
    ids=["one operand of each", "both of each", "captured", "by copy engines", "registered without a window"],
)
def test_other_all_to_alls_are_right(done: tuple[Sequence[Fact], ...]) -> None:
    """As far as this rule goes: copy engines need the output in a window."""
    assert {*rules(*done)} <= {"unregistered"}


@pytest.mark.parametrize("function", ["Gather", "Scatter"])
def test_gathers_and_scatters_are_right(function: str) -> None:
    """NCCL moves them through buffers of its own, whatever is registered."""
    calls = [gather(0, function=function, send=at, receive=at + 65536, count=LARGE, root=0) for at in (BASE, OUTSIDE)]
    assert rules([calls[0]], [calls[1]]) == []


def test_no_program_is_made_of_it() -> None:
    judged = judge(ranks([send()], [recv()]))
    with pytest.raises(Exception, match="there is no step that sends from one rank to another alone"):
        first_program(judged)
