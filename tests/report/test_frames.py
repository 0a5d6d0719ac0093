"""Where a hung rank is, in a line, where the system raised, and the last lines of a dead rank."""

from __future__ import annotations

from harness.ipc import futex
from harness.oracle.findings import PRINTED, RAISED, TRACEBACK, Record, StackRecord
from harness.report.frames import places
from harness.system.planted import kernels
from harness.system.pools import per_group

POOL = "use (/home/user/mine/pools.py:7)"
SLEEP = "_sleep (/work/harness/ipc/rendezvous.py:30)"
MEET = "meet (/work/harness/ipc/rendezvous.py:99)"
DEEP = tuple(f"step{number} (/work/harness/rank/executor.py:{number})" for number in range(4))


def lines(*stacks: StackRecord) -> list[str]:
    return [*places(Record("hang", "rank 1 is late", 2, (0, 1), stacks))]


def stack(rank: int, *frames: str, witness: str = "SIGUSR1") -> StackRecord:
    return StackRecord(rank, witness, frames)


def test_ranks_at_the_same_place_share_a_line() -> None:
    assert lines(stack(0, MEET), stack(1, MEET)) == ["ranks 0, 1: in meet (rendezvous.py:99)"]


def test_how_a_rank_sleeps_is_left_out() -> None:
    assert lines(stack(0, SLEEP, MEET)) == ["rank 0: in meet (rendezvous.py:99)"]


def test_the_harness_knows_its_own_files_wherever_they_lie() -> None:
    """A file that moves has to move in the patterns, too."""
    wait, pool = (f"{name} ({module.__file__}:9)" for name, module in (("wait", futex), ("use", per_group)))
    planted = f"before ({kernels.__file__}:3)"
    assert lines(stack(0, wait, MEET)) == ["rank 0: in meet (rendezvous.py:99)"]
    for tested in (pool, planted):
        assert lines(stack(0, *DEEP, tested))[0].endswith(f"({tested.rpartition('/')[2]}")


def test_the_frame_of_the_system_under_test_is_shown_however_deep_it_lies() -> None:
    assert lines(stack(0, *DEEP, POOL))[0].endswith(" < use (pools.py:7)")


def test_a_call_of_nccl_comes_before_the_python_that_made_it() -> None:
    native = "syscall (libc.so.6:1)", "ncclCommWindowRegister (/src/dev_runtime.cc:1862)"
    (line,) = lines(stack(0, *native, MEET, witness="py-spy with native frames"))
    assert line == "rank 0: in ncclCommWindowRegister (dev_runtime.cc:1862) < meet (rendezvous.py:99)"


def test_an_engines_own_frame_is_shown_where_its_registration_hangs() -> None:
    frames = (
        *("register (/env/site-packages/engine/pool.py:30)", "__exit__ (/env/site-packages/engine/pool.py:20)"),
        *("allocate (/work/harness/system/shape.py:80)", "_empty (/work/harness/system/sites.py:60)"),
    )
    assert lines(stack(0, *frames)) == [
        "rank 0: in register (pool.py:30) < __exit__ (pool.py:20) < allocate (shape.py:80)"
    ]


def test_how_the_harness_hides_its_own_calls_from_the_observer_is_left_out() -> None:
    wrapped = "register (/work/harness/substrate/nccl/quiet.py:58)", "run (/work/harness/substrate/nccl/quiet.py:34)"
    assert lines(stack(0, *wrapped, MEET)) == ["rank 0: in meet (rendezvous.py:99)"]


def test_what_stands_before_the_interpreter_is_left_out() -> None:
    look = (
        "note (/work/harness/substrate/sim/spins.py:42)",
        "create_atomic_cas (/work/harness/substrate/sim/spins.py:31)",
    )
    assert lines(stack(0, *look, "wait_kernel (/u/mine.py:12)")) == ["rank 0: in wait_kernel (mine.py:12)"]


def test_the_last_lines_of_a_dead_rank_are_shown_as_it_printed_them() -> None:
    assert lines(stack(1, "out of", "sorts", witness=PRINTED)) == [
        "rank 1 printed, at the last:",
        "  out of",
        "  sorts",
    ]


RAISING = (
    StackRecord(1, RAISED, ("check (/home/me/mine.py:14)", "all_gather (/home/me/mine.py:9)")),
    StackRecord(1, TRACEBACK, ("Traceback (most recent call last):", "ValueError: \x1b[31mno")),
)


def test_what_was_raised_is_placed_by_the_frames_of_the_system_innermost_first() -> None:
    assert lines(*RAISING) == ["rank 1: in check (mine.py:14) < all_gather (mine.py:9)"]


def test_all_of_a_traceback_is_shown_if_asked_and_no_terminal_obeys_it() -> None:
    record = Record("raised", "", 0, (1,), RAISING)
    assert [*places(record, is_whole=True)][1:] == ["Traceback (most recent call last):", "ValueError: \\x1b[31mno"]


def test_an_exception_that_never_came_through_the_system_has_no_place() -> None:
    assert lines(StackRecord(0, RAISED, ())) == []
