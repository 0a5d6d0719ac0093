"""Recordings: the rules of draws judge what a program did that knows nothing of the harness."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.judge import examine
from harness.scenario.placement import Placement
from harness.trace.draw import Fate
from harness.trace.events import (
    CommDestroyed,
    Entered,
    Event,
    Finished,
    Operand,
    Registered,
    RegistrationFailed,
    SegmentFreed,
)
from tests.tools.recordings import (
    CALL,
    CP,
    MIB,
    ORDINARY,
    OWNED,
    REGISTER,
    SETUP,
    TP,
    Step,
    allocated,
    called,
    comm,
    found,
    keys,
    recording,
    registered,
    within,
)

# silent


def test_a_run_that_owns_its_buffers_is_clean_and_no_vacuous_one() -> None:
    verdict = examine(recording(OWNED, OWNED))
    assert (verdict.findings, verdict.is_vacuous) == ([], False)


@pytest.mark.parametrize(
    "call",
    [
        called(TP, ORDINARY),
        called(TP, within(3), kind="broadcast"),
        called(TP, ORDINARY, source=within(3)),
        called(TP, within(3), ran=None),
    ],
    ids=[
        "ordinary memory",
        "no symmetric kernel",
        "an operand that no peer addresses",
        "a call that has not returned",
    ],
)
def test_a_run_without_a_call_over_an_owned_buffer_is_vacuous_and_clean(call: tuple[Event, ...]) -> None:
    verdict = examine(recording(*[(SETUP, Step(REGISTER, registered(TP, 3)), Step(CALL, call))] * 2))
    assert (verdict.findings, verdict.is_vacuous) == ([], True)


def test_a_rank_that_was_not_watched_breaks_no_rule() -> None:
    verdict = examine(recording(OWNED, (), states=("finished", "stopped")))
    assert (verdict.findings, verdict.is_vacuous) == ([], True)


# ownership


def test_a_buffer_in_the_window_of_another_communicator_over_the_same_ranks_is_wrong_owner() -> None:
    crossed = (*OWNED[:2], Step(CALL, called(CP, within(3))))
    (finding,) = found(crossed, crossed)
    assert str(finding) == (
        "wrong-owner: all_gather 1 (model.py:31 forward) on cp[0,1]: output segment 3 + 4096 of rank 0 lies in "
        "segment 3, which was registered with tp[0,1] at register 1 (pool.py:12 __exit__); cp[0,1] has no window over "
        "it. The call took the legacy path (NCCL's word)."
    )
    assert (finding.step, finding.ranks) == (2, (0, 1))


def test_memory_that_some_ranks_alone_took_for_windows_is_unregistered_of_its_own_kind() -> None:
    ordinary = (*OWNED[:2], Step(CALL, called(TP, ORDINARY)))
    (finding,) = found(OWNED, ordinary)
    assert (finding.key, finding.ranks) == ("unregistered on some ranks alone", (1,))
    assert str(finding) == (
        "unregistered: all_gather 1 (model.py:31 forward) on tp[0,1]: output ordinary memory of rank 1 lies in "
        "ordinary memory, while rank 0 holds it in memory that is made for windows; the call took the legacy path "
        "(NCCL's word)."
    )


def test_memory_for_windows_that_no_rank_registered_is_unregistered() -> None:
    steps = (SETUP, Step(CALL, called(TP, within(3))))
    (finding,) = found(steps, steps)
    assert finding.key == "unregistered"
    assert "lies in a segment over which tp[0,1] finds no window" in str(finding)


def test_a_window_that_went_with_its_communicator_is_stale() -> None:
    reset = Step("init 2 (main.py:9 reset)", (CommDestroyed(TP), comm(TP, 10, 1)))
    again = (*OWNED, reset, Step("all_gather 2 (m.py:1 f)", called(10, within(3))))
    (finding,) = found(again, again)
    assert finding.key == "stale-window"
    assert "at register 1 (pool.py:12 __exit__); that window went at init 2 (main.py:9 reset) and" in str(finding)


def test_a_window_whose_segment_was_freed_is_stale() -> None:
    freed = SegmentFreed(3, (103,))
    reused = (*OWNED[:2], Step("free 1 (pool.py:20 free)", (freed,)), OWNED[2])
    assert keys(found(reused, reused)) == ["freed-while-registered", "stale-window"]


def test_buffers_at_different_offsets_are_found_without_a_word_on_pools() -> None:
    shifted = (*OWNED[:2], Step(CALL, called(TP, within(3, 8192))))
    (finding,) = found(OWNED, shifted)
    assert finding.key == "offset-mismatch"
    assert str(finding).endswith("reach other memory than they mean; the call took the symmetric path (NCCL's word).")


def test_a_window_over_memory_of_no_known_segment_owns_its_buffers() -> None:
    made = Registered(5, TP, -1, 3 * 64 * MIB, 4 * MIB, False)
    steps = (Step("main", (comm(TP), comm(CP))), Step(REGISTER, (Entered("register", TP), made)))
    assert found(*[(*steps, OWNED[2])] * 2) == []
    (finding,) = found(*[(*steps, Step(CALL, called(CP, within(3))))] * 2)
    assert "lies in memory of no known segment, which was registered with tp[0,1]" in str(finding)


@pytest.mark.parametrize(
    ("source", "output", "broken"),
    [
        (within(3), within(3), []),
        (within(3), within(4), ["unregistered"]),
        (within(4), within(3), ["unregistered"]),
        (within(3), ORDINARY, []),
    ],
    ids=["in place", "output unregistered", "source unregistered", "output in ordinary memory"],
)
def test_an_all_reduce_reaches_peers_through_both_operands(source: Operand, output: Operand, broken: list[str]) -> None:
    start = Step("main", (comm(TP), comm(CP), allocated(3), allocated(4)))
    call = Step("all_reduce 1 (m.py:3 f)", called(TP, output, source=source, kind="all_reduce"))
    verdict = examine(recording(*[(start, Step(REGISTER, registered(TP, 3)), call)] * 2))
    assert (keys(verdict.findings), verdict.is_vacuous) == (broken, source != output)


def test_a_null_window_says_what_its_group_spans() -> None:
    null = Entered("register", TP), Registered(5, TP, 3, 3 * 64 * MIB, 4 * MIB, True)
    steps = (SETUP, Step(REGISTER, null), Step(CALL, called(TP, within(3))))
    (finding,) = examine(recording(steps, steps, placement=Placement(nodes=2, gpus_per_node=1))).findings
    assert finding.key == "null-window"
    assert "succeeded with a null window, as tp[0,1] spans 2 nodes" in str(finding)


# hangs and crashes


def test_a_rank_that_is_still_in_a_registration_hangs_and_the_text_says_where() -> None:
    waits = Step("register 2 (pool.py:12 __exit__)", (Entered("register", TP),))
    done = Step("the end", (Finished(),))
    hung = examine(recording((*OWNED, waits), (*OWNED, done), states=("hung", "finished"), seconds=12.0)).findings
    assert keys(hung) == ["registration-skew", "hang"]
    assert str(hung[1]) == (
        "hang: rank 1 has ended while rank 0 waits in register of tp[0,1]. After 12.0 s rank 0 had not finished: "
        "rank 0 at register 2 (pool.py:12 __exit__) in register of tp[0,1]; rank 1 done."
    )


def test_a_hang_of_unknown_length_names_none() -> None:
    waits = Step("all_gather 2 (m.py:1 f)", called(TP, within(3), ran=None))
    (hang,) = found((*OWNED, waits), OWNED, states=("hung", "hung"))
    assert str(hang) == (
        "hang: rank 1 is still at all_gather 1 (model.py:31 forward) while rank 0 waits in all_gather of tp[0,1]. "
        "Ranks 0, 1 had not finished: rank 0 at all_gather 2 (m.py:1 f) in all_gather of tp[0,1]; rank 1 at all_gather "
        "1 (model.py:31 forward)."
    )


def test_a_process_that_ended_waits_for_no_other() -> None:
    done = Step("the end", (Finished(),))
    (hang,) = found((*OWNED, done), OWNED, states=("finished", "hung"))
    assert str(hang).startswith("hang: rank 1 had not finished")


def test_a_rank_that_died_in_a_collective_is_a_crash_there() -> None:
    waits = Step("all_gather 2 (m.py:1 f)", called(TP, within(3), ran=None))
    crashed = recording((*OWNED, waits), (*OWNED, waits), states=("stopped", "stopped"))
    fates = Fate(0, "crashed", "was killed by signal 9 (SIGKILL)"), Fate(1, "stopped")
    (finding,) = examine(msgspec.structs.replace(crashed, fates=fates)).findings
    assert str(finding) == (
        "rank-crash: rank 0 was killed by signal 9 (SIGKILL) at all_gather 2 (m.py:1 f) in all_gather of tp[0,1]."
    )


def test_a_registration_that_failed_names_memory_of_no_segment() -> None:
    failed = Entered("register", TP), RegistrationFailed(TP, -1, "ncclInvalidArgument")
    tried = Step(REGISTER, failed)
    hung = found((SETUP, tried), (SETUP, Step(REGISTER, (Entered("register", TP),))), states=("hung", "hung"))
    assert keys(hung) == ["hang"]
    assert "could not register memory of no known segment with tp[0,1] at register 1" in str(hung[0])


# in a capture


def test_a_registration_in_a_capture_is_named_with_its_communicator_and_both_places() -> None:
    entered, *made = registered(TP, 3)
    assert isinstance(entered, Entered)
    steps = SETUP, Step(REGISTER, (msgspec.structs.replace(entered, capture="capture 2 (train.py:40 step)"), *made))
    (finding,) = found((*steps, OWNED[2]), OWNED)
    assert (finding.rule, finding.ranks) == ("registered-in-capture", (0,))
    assert finding.explanation == (
        f"rank 0 entered a registration with tp[0,1] at {REGISTER}, in capture 2 (train.py:40 step)."
    )
