"""A recording survives whatever its process does or meets: kills, forks, full disks, and millions of calls."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.machine.observer.records import (
    Allocated,
    Call,
    CommCreated,
    CommGone,
    GroupStarted,
    Process,
    Registered,
    RegisterEntered,
    read_all,
)
from tests.tools.fake_libnccl import compiled, fake_nccl, observed, python, recorded, run, start, wait_for

MEBIBYTE = 1 << 20
MANY = """
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
struct id { char bytes[128]; };
int ncclGetUniqueId(struct id *);
int ncclCommInitRank(void **, int, struct id, int);
int ncclAllGather(const void *, void *, size_t, int, void *, void *);
int ncclMemAlloc(void **, size_t);
int main(int count, char **words) {
  struct id id;
  struct timespec began, ended;
  void *comm, *memory;
  long calls = atol(words[1]), kinds = atol(words[2]);
  if (ncclGetUniqueId(&id) || ncclCommInitRank(&comm, 1, id, 0)) return 1;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &began);
  for (long i = 0; i < calls; i++)
    if (ncclAllGather((void *)(i % kinds * 64), NULL, 16, 9, comm, NULL)) return 1;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
  printf("%f\\n", ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
  return ncclMemAlloc(&memory, 4096);
}
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that calls as often as its first word says, with as many send buffers as its second."""
    return compiled(MANY, tmp_path_factory.mktemp("many"), f"-L{fake_nccl().parent}", "-lnccl")


def after(program: Path, folder: Path, calls: int, kinds: int) -> Process:
    run([str(program), str(calls), str(kinds)], observed(folder, folder / "out"))
    (process,) = read_all(folder / "out")
    return process


def made(process: Process) -> int:
    return sum(fact.calls for fact in process.facts if isinstance(fact, Call))


def test_a_million_equal_calls_are_in_order_and_in_10_mebibytes(many: Path, tmp_path: Path) -> None:
    process = after(many, tmp_path, 1_000_000, 3)
    assert (made(process), len(process.order), process.lost_events, process.lost_facts) == (10**6, 10**6 + 2, 0, 0)
    assert Path(process.path).stat().st_size <= 10 * MEBIBYTE


def test_calls_beyond_the_order_are_counted(many: Path, tmp_path: Path) -> None:
    process = after(many, tmp_path, 1_300_000, 3)
    assert (made(process), len(process.order), process.lost_events) == (1_300_000, 1_200_000, 100_002)


def test_calls_beyond_the_table_are_counted_as_lost_and_leave_room_for_other_facts(many: Path, tmp_path: Path) -> None:
    process = after(many, tmp_path, 30_000, 30_000)
    assert made(process) + process.lost_facts == 30_000
    assert process.lost_facts > 5000
    assert isinstance(process.facts[-1], Allocated)


HANG = """
nccl = Nccl(); comm = nccl.world(1); memory = nccl.alloc()
child = nccl.split(comm, 0)
nccl.call("GroupStart"); nccl.call("GroupEnd")
nccl.register(comm, memory)
nccl.all_gather(comm, memory, memory)
"""


def killed_when(program: str, folder: Path, is_reached: Callable[[], bool], **more: str) -> Process:
    out = folder / "out"
    process = start(python(program), observed(folder, out, more))
    wait_for(is_reached)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (found,) = read_all(out)
    return found


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("CommInitRank", CommCreated),
        ("CommSplit", CommCreated),
        ("GroupEnd", GroupStarted),
        ("CommWindowRegister", RegisterEntered),
        ("AllGather", Call),
    ],
)
def test_a_killed_process_says_what_it_was_in(function: str, kind: type, tmp_path: Path) -> None:
    def is_in_flight() -> bool:
        out = tmp_path / "out"
        return any(isinstance(each.facts[index], kind) for each in read_all(out) for index in each.in_flight)

    process = killed_when(HANG, tmp_path, is_in_flight, FAKE_NCCL_HANG=function)
    (index,) = process.in_flight
    fact = process.facts[index]
    assert isinstance(fact, kind)
    assert getattr(fact, "result", 0) == (-1 if kind is CommCreated else 0)


def test_a_registration_of_a_group_that_hangs_is_in_flight(tmp_path: Path) -> None:
    program = HANG.replace('nccl.call("GroupStart")', 'nccl.call("GroupStart"); window = nccl.register(comm, memory)')

    def is_in_flight() -> bool:
        return any(len(each.in_flight) == 2 for each in read_all(tmp_path / "out"))

    process = killed_when(program, tmp_path, is_in_flight, FAKE_NCCL_HANG="GroupEnd")
    assert {type(process.facts[index]) for index in process.in_flight} == {RegisterEntered, GroupStarted}


def test_a_process_that_is_killed_in_the_middle_of_its_calls_is_read(tmp_path: Path) -> None:
    program = """
nccl = Nccl(); comm = nccl.world()
for turn in range(10**9):
    memory = nccl.alloc(4096)
    nccl.call("CommWindowDeregister", comm, nccl.register(comm, memory))
    nccl.all_gather(comm, turn % 50, memory)
"""

    def is_long() -> bool:
        return any(len(each.order) > 400 for each in read_all(tmp_path / "out"))

    process = killed_when(program, tmp_path, is_long)
    turn = ["Allocated", "RegisterEntered", "Registered", "Deregistered", "Call"]
    seen = [type(process.facts[index]).__name__ for index in process.order]
    assert seen == (["CommCreated"] + turn * len(seen))[: len(seen)]


def test_nothing_is_in_flight_when_all_is_done(tmp_path: Path) -> None:
    (process,) = recorded(HANG, tmp_path)
    assert process.in_flight == ()


def test_a_forked_child_has_a_recording_of_its_own(tmp_path: Path) -> None:
    program = """
nccl = Nccl(); comm = nccl.world()
nccl.all_gather(comm, None, None)
child = os.fork()
nccl.alloc() if child else nccl.world(name="of the child")
if child: os.waitpid(child, 0)
os._exit(0)
"""
    parent, child = sorted(recorded(program, tmp_path), key=lambda process: process.began)
    assert (child.parent, len(parent.order), len(child.order)) == (parent.pid, 3, 1)
    assert [fact.comm for fact in child.facts if isinstance(fact, CommCreated)] == [1]


def test_a_child_may_fork_while_other_threads_call(tmp_path: Path) -> None:
    program = """
import threading
nccl = Nccl(); comm = nccl.world()
stop = []
def work():
    while not stop: nccl.all_gather(comm, None, None)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(30):
    child = os.fork()
    if not child:
        nccl.alloc()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.append(1)
for thread in threads: thread.join()
"""
    processes = recorded(program, tmp_path)
    assert sorted(len(process.facts) for process in processes) == [1] * 30 + [2]


def test_a_program_that_closes_every_descriptor_goes_on_recording(tmp_path: Path) -> None:
    program = """
nccl = Nccl(); comm = nccl.world()
os.closerange(3, 100)
files = [open(f"/dev/null", "r+") for _ in range(20)]
for number in range(5000): nccl.all_gather(comm, number, None)
"""
    (process,) = recorded(program, tmp_path)
    assert (made(process), len(process.order)) == (5000, 5001)


def complaint(
    folder: Path, out: Path, program: str = "nccl = Nccl(); nccl.alloc(); print(nccl.world())", **more: str
) -> str:
    """What a program says that runs to its end although nothing can be written."""
    process = start(python(program), observed(folder, None, {"SYMM_OBSERVER_OUT": str(out), **more}))
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def test_a_folder_that_is_not_there_is_named_once_and_the_program_goes_on(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    words = complaint(tmp_path, gone).strip()
    assert words.startswith(f"symm: {gone} cannot be written: No such file or directory; process ")
    assert words.endswith(" goes on, and no more of it is recorded")
    assert "\n" not in words


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "Permission denied" in complaint(tmp_path, tmp_path / "closed")


def test_a_limit_on_the_size_of_files_does_not_end_the_program(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    limited = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, other programs end by it
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
Nccl().alloc()
"""
    assert "File too large" in complaint(tmp_path, tmp_path / "out", limited)
    assert list((tmp_path / "out").iterdir()) == []


FULL = """
#include <errno.h>
#include <sys/types.h>
static int calls;
int posix_fallocate(int file, off_t offset, off_t size) { return ++calls > LEFT ? ENOSPC : 0; }
"""


@pytest.mark.parametrize("left", [0, 1, 2, 3, 5])
def test_a_disk_that_is_full_does_not_end_the_program(left: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    full = compiled(FULL.replace("LEFT", str(left)), tmp_path, "-shared", "-fPIC")
    more = observed(tmp_path, tmp_path / "out")["LD_PRELOAD"]
    calls = "nccl = Nccl(); comm = nccl.world(); [nccl.all_gather(comm, number, None) for number in range(5000)]"
    words = complaint(tmp_path, tmp_path / "out", calls, LD_PRELOAD=f"{full} {more}")
    assert words.count("No space left on device") == 1
    for process in read_all(tmp_path / "out"):
        assert made(process) + process.lost_facts >= 4998


def test_a_recording_can_be_read_while_its_process_runs(many: Path, tmp_path: Path) -> None:
    process = start([str(many), "30000000", "5"], observed(tmp_path, tmp_path / "out"))
    wait_for(lambda: bool(read_all(tmp_path / "out")))
    lengths = []
    for _ in range(3):
        lengths.append(len(read_all(tmp_path / "out")[0].order))
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_a_file_in_which_nothing_is_written_yet_is_left_out(tmp_path: Path) -> None:
    recorded("Nccl().alloc()", tmp_path)
    (tmp_path / "out" / "host-1-0.symm").touch()
    (tmp_path / "out" / "host-2-0.symm").write_bytes(bytes(9000))
    assert len(read_all(tmp_path / "out")) == 1


def test_watching_costs_at_most_two_microseconds_a_call(many: Path, tmp_path: Path) -> None:
    variables = observed(tmp_path, tmp_path / "out")
    without = {name: value for name, value in variables.items() if name != "LD_PRELOAD"}
    command = [str(many), "300000", "20"]
    plain, watched = (min(float(run(command, each)) for _ in range(3)) for each in (without, variables))
    assert watched - plain < 300_000 * 2e-6


def test_a_window_of_a_segment_that_was_registered_again_is_another_fact(tmp_path: Path) -> None:
    program = """
nccl = Nccl(); comm = nccl.world(); memory = nccl.alloc()
for _ in range(3): nccl.register(comm, memory)
"""
    (process,) = recorded(program, tmp_path)
    assert len({fact.window for fact in process.facts if isinstance(fact, Registered)}) == 3


def test_the_end_of_a_communicator_that_hangs_is_in_flight(tmp_path: Path) -> None:
    program = 'nccl = Nccl(); nccl.call("CommDestroy", nccl.world())'

    def is_in_flight() -> bool:
        return any(
            isinstance(each.facts[index], CommGone) for each in read_all(tmp_path / "out") for index in each.in_flight
        )

    assert killed_when(program, tmp_path, is_in_flight, FAKE_NCCL_HANG="CommDestroy").order == (0,)
