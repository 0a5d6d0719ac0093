"""Stacks: read by whatever can, within the time; what fails to read one fails no report."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from harness.oracle.findings import PRINTED, Record, StackRecord
from harness.report.frames import places
from harness.world import stacks
from harness.world.rank_process import RankProcess
from harness.world.stacks import Stack, take
from tests.tools.clock import FakeClock

DUMP = """\
Process 77: python -m harness.rank.zygote
Python v3.11.7 (/usr/bin/python3.11)

Thread 78 (idle): "lifeline"
    read (libc.so.6)
Thread 77 (active): "MainThread"
    sched_yield (libc.so.6)
    register (harness/substrate/communicator.py:53)
    _serve (harness/rank.py:77)
    main (harness/rank.py:55)
"""
WRITTEN = """\
Current thread 0x00007f0 (most recent call first):
  File "/here/harness/rendezvous.py", line 35 in meet
  File "/here/harness/rank.py", line 77 in _serve
"""


class Quiet(RankProcess):
    """A process that is there and writes what it is made with."""

    def __init__(self, text: str = "") -> None:
        self.pid, self._text = os.getpid(), text

    def ask_for_stack(self) -> int:
        return 0

    def written_since(self, start: int) -> str:
        return self._text


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "WRITING", 0.1)


def spy(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a script in the place of py-spy."""
    path = folder / "py-spy"
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(stacks, "py_spy", lambda: str(path))


def dump(native: str = "", python: str = "") -> str:
    """A script that prints a dump of one of our own threads' frames, by option."""
    body = f"print('Thread {os.getpid()} (active)')\n"
    return body + f"print({{'--native': {native!r}, '--nonblocking': {python!r}}}[sys.argv[-1]])"


# what reads them


def test_a_rank_that_writes_its_stack_is_asked_no_further() -> None:
    assert take({3: Quiet(WRITTEN)}, native=False) == {3: Stack("meet (/here/harness/rendezvous.py:35)", "SIGUSR1")}


def test_native_frames_come_before_what_the_rank_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spy(monkeypatch, tmp_path, dump(native="    ncclCommWindowRegister (libnccl.so.2)"))
    found = take({0: Quiet(WRITTEN)}, native=True)
    assert found == {0: Stack("ncclCommWindowRegister (libnccl.so.2)", "py-spy with native frames")}


def test_a_rank_that_cannot_write_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spy(monkeypatch, tmp_path, dump(python="    stop (pool.py:3)"))
    assert take({0: Quiet()}, native=True) == {0: Stack("stop (pool.py:3)", "py-spy")}


@pytest.mark.parametrize(
    "script",
    ["sys.exit('Permission denied (os error 1)')", "print('Thread 1 (idle)')", "print(b'\\xff')", "time.sleep(60)"],
)
def test_a_spy_that_fails_leaves_what_the_rank_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    monkeypatch.setattr(stacks, "SPYING", 0.5)
    spy(monkeypatch, tmp_path, script)
    assert take({0: Quiet(WRITTEN)}, native=True)[0].witness == "SIGUSR1"


@pytest.mark.parametrize("path", [None, "/nowhere/py-spy"])
def test_without_a_spy_there_is_what_the_rank_wrote(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.setattr(stacks, "py_spy", lambda: path)
    assert take({0: Quiet(WRITTEN)}, native=True)[0].witness == "SIGUSR1"


def test_a_rank_that_nothing_can_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "py_spy", lambda: None)
    assert take({0: Quiet()}, native=True) == {}


# within the time


def test_eight_ranks_that_nothing_can_read_take_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command takes all the time that it is given, and as many as there are cores run at a time."""
    fake, given = FakeClock(), []

    def takes_all(command: list[str], seconds: float) -> str:
        given.append(seconds)
        fake.advance(max(0.0, seconds))
        return ""

    monkeypatch.setattr(stacks, "py_spy", lambda: "py-spy")
    monkeypatch.setattr(stacks, "output_of", takes_all)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert take({index: Quiet() for index in range(8)}, native=True, clock=fake.clock) == {}
    assert (len(given), max(given), sum(seconds > 0 for seconds in given)) == (16, stacks.SPYING, 1)


def test_ranks_that_write_nothing_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "py_spy", lambda: None)
    fake = FakeClock()
    take({index: Quiet() for index in range(8)}, native=False, clock=fake.clock)
    assert stacks.WRITING <= fake.seconds < stacks.WRITING + 2 * stacks.PAUSE


def test_a_command_for_which_no_time_is_left_is_not_run(tmp_path: Path) -> None:
    assert stacks.output_of(["touch", str(tmp_path / "ran")], 0) == ""
    assert not (tmp_path / "ran").exists()


def test_a_spy_that_is_too_slow_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stacks, "SPYING", 0.3)
    spy(monkeypatch, tmp_path, "time.sleep(60)")
    before = {*psutil.Process().children()}
    take({0: Quiet()}, native=True)
    assert {*psutil.Process().children()} == before


# what is kept


def test_of_a_dump_the_first_thread_is_kept_above_the_ranks_loop() -> None:
    kept = stacks.bounded(stacks.main_thread(DUMP, 77))
    assert kept.splitlines() == ["sched_yield (libc.so.6)", "register (harness/substrate/communicator.py:53)"]


def test_of_many_frames_the_innermost_are_kept_of_each_kind() -> None:
    native, python = [f"f{i} (libx.so)" for i in range(40)], [f"g{i} (a.py:{i})" for i in range(40)]
    kept = stacks.bounded([*native, *python]).splitlines()
    assert kept == [*native[:25], *python[:25]]


# in a line


def line(*frames: str) -> str:
    (only,) = places(Record("hang", "", 0, (1,), (StackRecord(1, "py-spy", frames),)))
    return only


def test_a_line_names_the_call_into_a_library_and_the_line_of_source() -> None:
    frames = "poll (libc.so.6)", "ncclCommWindowRegister (libnccl.so.2)", "register (substrate/communicator.py:53)"
    assert line(*frames) == "rank 1: in ncclCommWindowRegister (libnccl.so.2) < register (communicator.py:53)"


def test_a_library_that_knows_its_lines_of_source_is_still_a_library() -> None:
    inside = "socketProgress (src/misc/socket.cc:82)", "ncclCommWindowRegister (src/dev_runtime.cc:1171)"
    bound = "comm_window_register (nccl/bindings/nccl.pyx:900)", "__pyx_pw (nccl/nccl.cpython-312-x86_64-linux-gnu.so)"
    shown = line(*inside, *bound, "register (substrate/communicator.py:53)", "_run_code (<frozen runpy>:88)")
    ends = "< register (communicator.py:53) < _run_code (<frozen runpy>:88)"
    assert shown == f"rank 1: in ncclCommWindowRegister (dev_runtime.cc:1171) {ends}"


def test_a_line_names_a_call_of_nccl_before_its_binding() -> None:
    frames = "poll (libc.so.6)", "ncclCommWindowRegister (dev_runtime.cc:11)", "comm_window_register (nccl.cpp:117006)"
    shown = line(*frames, "register (substrate/communicator.py:53)")
    assert shown == "rank 1: in ncclCommWindowRegister (dev_runtime.cc:11) < register (communicator.py:53)"


def test_a_line_leaves_out_what_has_no_name_and_what_only_wraps() -> None:
    frames = (
        "0x7f00 (libcuda.so.1)",
        "cudaDeviceSynchronize (libcudart.so.13)",
        "THCPModule_synchronize (libtorch_python.so)",
        "cfunction_vectorcall (libpython3.11.so.1.0)",
        "synchronize (torch/cuda/__init__.py:9)",
    )
    assert line(*frames) == "rank 1: in cudaDeviceSynchronize (libcudart.so.13) < synchronize (__init__.py:9)"


def test_a_line_shows_three_lines_of_source_at_most() -> None:
    assert line(*(f"f{i} (/x/a.py:{i})" for i in range(9))) == "rank 1: in f0 (a.py:0) < f1 (a.py:1) < f2 (a.py:2)"


def test_a_line_of_wrappers_alone_has_the_innermost() -> None:
    assert line("read (libc.so.6)", "os_read (libpython3.11.so.1.0)") == "rank 1: in read (libc.so.6)"


def test_a_line_of_a_rank_asleep_begins_where_it_waits() -> None:
    asleep = "syscall (libc.so.6)", "wait (harness/ipc/futex.py:35)", "Rendezvous._sleep (harness/rendezvous.py:51)"
    assert line(*asleep, "meet (harness/rendezvous.py:45)") == "rank 1: in meet (rendezvous.py:45)"


def test_ranks_at_one_place_share_a_line() -> None:
    stacks = tuple(StackRecord(rank, "SIGUSR1", ("meet (a.py:1)",)) for rank in (0, 1, 2, 5))
    assert [*places(Record("hang", "", 0, (0,), stacks))] == ["ranks 0–2, 5: in meet (a.py:1)"]


def test_a_place_goes_on_to_the_first_line_of_the_system_under_test() -> None:
    own = [f"{name} (/x/harness/{name}.py:1)" for name in ("meet", "exchange", "_register", "register")]
    frames = (
        *own,
        "use (/usr/lib/python3.11/contextlib.py:3)",
        "grow (/home/me/pools.py:7)",
        "use (/home/me/pools.py:9)",
    )
    record = Record("hang", "", 0, (0,), (StackRecord(0, "SIGUSR1", frames),))
    assert [*places(record)] == [
        "rank 0: in meet (meet.py:1) < exchange (exchange.py:1) < _register (_register.py:1) < grow (pools.py:7)"
    ]


def test_what_a_dead_rank_printed_is_shown_below_its_name() -> None:
    record = Record("rank-crash", "", 0, (1,), (StackRecord(1, PRINTED, ("stdout:", "for everyone")),))
    assert [*places(record)] == ["rank 1 printed, at the last:", "  stdout:", "  for everyone"]


def test_what_is_installed_or_pythons_own_is_not_taken_for_the_system_under_test() -> None:
    others = (
        "run (/v/lib/python3.11/site-packages/triton/interpreter.py:1)",
        "wait (/usr/lib/python3.11/threading.py:2)",
    )
    own = ("meet (/home/me/clone/harness/rendezvous.py:3)", "frozen (<frozen importlib>:4)")
    frames = (*others, *own, "grow (/home/me/nccl-harness/pools.py:7)")
    (place,) = places(Record("hang", "", 0, (0,), (StackRecord(0, "SIGUSR1", frames),)))
    assert place.endswith("meet (rendezvous.py:3) < grow (pools.py:7)")
