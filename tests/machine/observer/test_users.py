"""Programs reach NCCL in several ways: each is observed, or is reported as not observed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.machine.observer.records import Call, Process, Unobserved, read_all
from tests.tools.fake_libnccl import compiled, fake_nccl, observed, plain, python, recorded, run

DECLARED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>
struct id { char bytes[128]; };
"""
LINKED = (
    DECLARED
    + """
int ncclGetUniqueId(struct id *);
int ncclCommInitRank(void **, int, struct id, int);
int ncclAllGather(const void *, void *, size_t, int, void *, void *);
int main(void) {
  struct id id;
  void *comm;
  if (ncclGetUniqueId(&id) || ncclCommInitRank(&comm, 1, id, 0)) return 1;
  return ncclAllGather(NULL, NULL, 4, 9, comm, NULL);
}
"""
)
OPENED = (
    DECLARED
    + """
int main(int count, char **words) {
  void *library = dlopen(words[1], RTLD_NOW), *comm;
  if (!library) return 2;
  int (*identify)(struct id *) = dlsym(library, "ncclGetUniqueId");
  int (*begin)(void **, int, struct id, int) = dlsym(library, "ncclCommInitRank");
  int (*gather)(const void *, void *, size_t, int, void *, void *) = dlsym(library, "ncclAllGather");
  struct id id;
  if (identify(&id) || begin(&comm, 1, id, 0)) return 1;
  return gather(NULL, NULL, 4, 9, comm, NULL);
}
"""
)
BOTH = ["CommCreated", "Call"]


def seen(process: Process) -> list[str]:
    return [type(process.facts[index]).__name__ for index in process.order]


def ran(command: list[str], folder: Path) -> list[Process]:
    run(command, observed(folder, folder / "out"))
    return read_all(folder / "out")


def elsewhere(folder: Path) -> Path:
    """Another NCCL, as a wheel or a build beside the system's."""
    (folder / "other").mkdir()
    return Path(shutil.copy(fake_nccl(), folder / "other" / "libnccl.so.2"))


def test_a_program_that_is_linked_with_nccl_is_observed(tmp_path: Path) -> None:
    program = compiled(LINKED, tmp_path, f"-L{fake_nccl().parent}", "-lnccl")
    (process,) = ran([str(program)], tmp_path)
    assert seen(process) == BOTH


def test_a_program_that_opens_nccl_by_its_name_is_observed(tmp_path: Path) -> None:
    (process,) = ran([str(compiled(OPENED, tmp_path, "-ldl")), "libnccl.so.2"], tmp_path)
    assert seen(process) == BOTH


def test_a_program_that_calls_by_ctypes_is_observed(tmp_path: Path) -> None:
    (process,) = recorded("nccl = Nccl(); nccl.all_gather(nccl.world(), None, None)", tmp_path)
    assert seen(process) == BOTH


def test_another_nccl_that_is_opened_by_its_path_is_reported_as_not_observed(tmp_path: Path) -> None:
    other = elsewhere(tmp_path)
    (process,) = ran([str(compiled(OPENED, tmp_path, "-ldl")), str(other)], tmp_path)
    assert process.facts == (Unobserved(str(other)),)


def test_another_nccl_is_reported_where_a_communicator_is_created(tmp_path: Path) -> None:
    other = elsewhere(tmp_path)
    (process,) = recorded(f"nccl = Nccl({str(other)!r}); Nccl().world(); os._exit(0)", tmp_path)
    assert seen(process) == ["CommCreated", "Unobserved"]


def test_calls_that_reach_the_observed_nccl_by_its_path_are_counted(tmp_path: Path) -> None:
    program = (
        f"nccl = Nccl({str(fake_nccl())!r}); comm = nccl.world(2)\nfor _ in range(3): nccl.all_gather(comm, None, None)"
    )
    process, _ = recorded(program, tmp_path, ranks=2)
    assert process.unmatched == 3
    assert process.facts == (Unobserved(str(fake_nccl().resolve()), 3),)


def test_a_plug_in_of_nccl_is_no_nccl(tmp_path: Path) -> None:
    plug_in = elsewhere(tmp_path).rename(tmp_path / "libnccl-net.so")
    (process,) = recorded(f"ctypes.CDLL({str(plug_in)!r}); Nccl().world()", tmp_path)
    assert seen(process) == ["CommCreated"]


def test_calls_that_nccl_makes_of_itself_are_not_the_programs(tmp_path: Path) -> None:
    program = "nccl = Nccl(); comm = nccl.world(); nccl.register(comm, nccl.alloc()); nccl.call('CommDestroy', comm)"
    (process,) = recorded(program, tmp_path)
    assert seen(process) == ["CommCreated", "Allocated", "RegisterEntered", "Registered", "CommGone"]


def test_calls_that_nccl_makes_in_a_thread_of_its_own_are_not_the_programs(tmp_path: Path) -> None:
    program = "nccl = Nccl(); nccl.call('GetUniqueId', ctypes.byref(UniqueId())); nccl.library.fakeCallsInAThread()"
    run(python(program), observed(tmp_path, tmp_path / "out"))
    assert read_all(tmp_path / "out") == []


def test_a_program_that_calls_no_nccl_leaves_no_recording(tmp_path: Path) -> None:
    run(["/bin/sh", "-c", "true"], observed(tmp_path, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["ncclAllGather", "ncclGetVersion", "ncclReduceConfig", "ncclBcastConfig"])
def test_a_program_finds_those_functions_that_nccl_has(name: str, tmp_path: Path) -> None:
    asks = python(f"print(hasattr(ctypes.CDLL('libnccl.so.2'), {name!r}))")
    assert run(asks, observed(tmp_path, None)) == run(asks, plain(tmp_path))


def test_results_are_those_of_nccl(tmp_path: Path) -> None:
    program = "nccl = Nccl(); print(nccl.all_gather(nccl.world(), None, None), nccl.alloc().value, nccl.result)"
    failing = {"FAKE_NCCL_FAIL_CALL": "1", "FAKE_NCCL_FAIL_ALLOC": "1"}
    assert run(python(program), observed(tmp_path, None, failing)) == "4 None 1\n"


def test_a_registration_waits_for_every_rank(tmp_path: Path) -> None:
    program = """
nccl = Nccl(); comm = nccl.world(2); memory = nccl.alloc()
if RANK:
    time.sleep(0.3)
began = time.monotonic()
nccl.register(comm, memory)
if not RANK:
    assert time.monotonic() - began > 0.1
"""
    assert [len(process.order) for process in recorded(program, tmp_path, ranks=2)] == [4, 4]


def test_every_call_of_two_threads_is_counted(tmp_path: Path) -> None:
    program = """
import threading
nccl = Nccl(); comm = nccl.world()
def work(number):
    for turn in range(5000):
        nccl.all_gather(comm, turn % 7, number)
threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    (process,) = recorded(program, tmp_path)
    calls = [fact for fact in process.facts if isinstance(fact, Call)]
    assert (len(calls), sum(call.calls for call in calls), len(process.order)) == (28, 20000, 20001)
