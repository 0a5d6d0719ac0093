"""A call says where in the program it is: by the stack of Python, or by the name of its thread."""

from __future__ import annotations

import re
from pathlib import Path

from harness.machine.observer.records import Allocated, Call, CommCreated, Freed, RegisterEntered, read_all
from tests.machine.observer.test_users import LINKED
from tests.tools.fake_libnccl import compiled, fake_nccl, observed, recorded, run

HEAD = "nccl = Nccl(); comm = nccl.world()\n"


def sites(program: str, folder: Path, **more: str) -> list[list[str]]:
    """The lines of each call's site."""
    (process,) = recorded(HEAD + program, folder, more=more)
    return [fact.site.splitlines() for fact in process.facts if isinstance(fact, Call)]


INSIDE = """
def inner(address):
    nccl.all_gather(comm, address, None)
class Layer:
    def forward(self): inner(None)
Layer().forward()
"""


def test_a_stack_has_its_innermost_frame_first(tmp_path: Path) -> None:
    (lines,) = sites(INSIDE, tmp_path)
    assert re.fullmatch(r"/.+/nccl_program\.py:\d+ Nccl\.call", lines[0])
    assert lines[2:] == ["<string>:5 inner", "<string>:7 Layer.forward", "<string>:8 <module>"]


def test_a_stack_has_at_most_twelve_frames(tmp_path: Path) -> None:
    (lines,) = sites("def down(n): nccl.all_gather(comm, None, None) if n == 0 else down(n - 1)\ndown(40)", tmp_path)
    assert (len(lines), lines[-1]) == (12, "<string>:3 down")


TWO_PLACES = (
    "def first(): nccl.all_gather(comm, 64, None)\ndef second(): nccl.all_gather(comm, 128, None)\nfirst(); second()"
)


def test_a_stack_is_taken_at_the_first_call_of_a_kind(tmp_path: Path) -> None:
    first, second = sites(TWO_PLACES, tmp_path)
    assert first == second
    assert first[2].endswith("first")


def test_every_fact_has_a_stack_of_its_own_where_that_is_asked_for(tmp_path: Path) -> None:
    first, second = sites(TWO_PLACES, tmp_path, SYMM_OBSERVER_STACKS="all")
    assert (first[2].split()[-1], second[2].split()[-1]) == ("first", "second")


def test_calls_of_another_size_are_another_kind(tmp_path: Path) -> None:
    program = "def first(): nccl.all_gather(comm, None, None, 8)\ndef second(): nccl.all_gather(comm, None, None, 9)\n"
    first, second = sites(program + "first(); second()", tmp_path)
    assert (first[2].split()[-1], second[2].split()[-1]) == ("first", "second")


def test_what_is_no_call_has_its_stack_too(tmp_path: Path) -> None:
    (process,) = recorded(HEAD + "nccl.register(comm, nccl.alloc())", tmp_path)
    found = [fact.site for fact in process.facts if isinstance(fact, CommCreated | RegisterEntered)]
    assert [site.splitlines()[-1] for site in found] == ["<string>:2 <module>", "<string>:3 <module>"]


def test_a_program_without_python_has_the_name_of_its_thread(tmp_path: Path) -> None:
    program = compiled(LINKED, tmp_path, f"-L{fake_nccl().parent}", "-lnccl")
    run([str(program)], observed(tmp_path, tmp_path / "out"))
    (process,) = read_all(tmp_path / "out")
    assert [fact.site for fact in process.facts if isinstance(fact, Call)] == ["thread program"]


FREES_IN_A_DESTRUCTOR = """
#include <stddef.h>
int ncclMemAlloc(void **, size_t);
int ncclMemFree(void *);
extern void *PyExc_KeyError;
void PyErr_SetString(void *, const char *);
int fail_and_free(void) {
  void *memory;
  int result = ncclMemAlloc(&memory, 4096);
  PyErr_SetString(PyExc_KeyError, "mine");
  return result || ncclMemFree(memory);
}
"""


def test_an_exception_that_is_on_its_way_stays(tmp_path: Path) -> None:
    helper = compiled(FREES_IN_A_DESTRUCTOR, tmp_path, "-shared", "-fPIC")
    program = f"""
try:
    ctypes.PyDLL({str(helper)!r}).fail_and_free()
except KeyError as error:
    assert error.args == ("mine",)
else:
    raise SystemExit("the exception is lost")
"""
    (process,) = recorded(HEAD + program, tmp_path)
    sites = [fact.site for fact in process.facts if isinstance(fact, Allocated | Freed)]
    assert (sites[0].split()[-1], sites[1].split()[0]) == ("<module>", "thread")


COLLECTED = """
import gc
free = nccl.library.ncclMemFree
class Block:
    def __init__(self): self.memory, self.itself = nccl.alloc(), self
    def __del__(self): free(self.memory)
gc.collect()
gc.set_threshold(5)
for count in range(1, 201): nccl.all_gather(comm, Block().memory, None, count)
gc.collect()
"""


def test_what_pythons_collector_frees_while_a_stack_is_taken_is_the_programs(tmp_path: Path) -> None:
    (process,) = recorded(HEAD + COLLECTED, tmp_path)
    assert sum(isinstance(process.facts[index], Freed) for index in process.order) == 200


def test_a_call_at_the_very_end_of_python_does_not_end_the_process_otherwise(tmp_path: Path) -> None:
    program = """
class Last:
    def __init__(self): self.nccl, self.comm = nccl, comm
    def __del__(self): self.nccl.call("CommDestroy", self.comm)
import sys
sys.last = Last()
"""
    (process,) = recorded(HEAD + program, tmp_path)
    assert len(process.order) == 2


def test_threads_with_and_without_pythons_lock_do_not_wait_for_each_other(tmp_path: Path) -> None:
    program = """
import threading
locked = ctypes.PyDLL("libnccl.so.2").ncclAllGather
locked.argtypes = SIGNATURES["ncclAllGather"]
def free(): [nccl.all_gather(comm, number, None) for number in range(2000)]
def with_lock(): [locked(number, None, 8, 9, comm, None) for number in range(2000)]
threads = [threading.Thread(target=work) for work in (free, with_lock, free, with_lock)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    (process,) = recorded(HEAD + program, tmp_path, more={"SYMM_OBSERVER_STACKS": "all"})
    assert sum(fact.calls for fact in process.facts if isinstance(fact, Call)) == 8000


HOLDS_A_MUTEX = """
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>
int ncclMemAlloc(void **, size_t);
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int is_held;
void take(void) {
  void *memory;
  pthread_mutex_lock(&mutex);
  is_held = 1;
  usleep(200000);
  ncclMemAlloc(&memory, 4096);
  pthread_mutex_unlock(&mutex);
}
void look(void) {
  while (!is_held) usleep(1000);
  pthread_mutex_lock(&mutex);
  pthread_mutex_unlock(&mutex);
}
"""


def test_a_thread_that_others_wait_for_does_not_wait_for_pythons_lock(tmp_path: Path) -> None:
    """PyTorch's allocator calls NCCL under its mutex, without Python's lock; a tensor's end takes it under the lock."""
    library = compiled(HOLDS_A_MUTEX, tmp_path, "-shared", "-fPIC", f"-L{fake_nccl().parent}", "-lnccl", "-lpthread")
    program = f"""
import ctypes, threading
taking = threading.Thread(target=ctypes.CDLL({str(library)!r}).take)
taking.start()
ctypes.PyDLL({str(library)!r}).look()
taking.join()
"""
    (process,) = recorded(HEAD + program, tmp_path)
    (allocated,) = (fact for fact in process.facts if isinstance(fact, Allocated))
    assert allocated.site.startswith("thread ")
