"""A process of the harness hears what the observer sees, and can have calls denied, refused and held back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.observer.records import Allocated, read_all
from tests.tools.fake_libnccl import observed, plain, python, run

FOUND = """
from harness.machine.observer.control import Observer
nccl = Nccl()
observer = Observer.find()
comm = nccl.world()
heard = []
"""
LISTEN = "observer.listen(lambda fact: heard.append(type(fact).__name__))\n"


def said(program: str, folder: Path, **more: str) -> list[str]:
    """What a program prints, with nothing written to files."""
    return run(python(FOUND + program), observed(folder, None, more)).splitlines()


def test_a_process_without_the_observer_has_none(tmp_path: Path) -> None:
    program = (
        "from harness.machine.observer.control import Observer; print(Observer.find()); Nccl(); print(Observer.find())"
    )
    assert run(python(program), plain(tmp_path)) == "None\nNone\n"


def test_the_observer_names_the_nccl_behind_it(tmp_path: Path) -> None:
    assert said("print(observer.real.endswith('libnccl.so.2'))", tmp_path) == ["True"]


def test_a_listener_hears_of_everything_but_calls_and_groups(tmp_path: Path) -> None:
    program = """
memory = nccl.alloc()
nccl.call("GroupStart"); nccl.all_gather(comm, memory, memory); nccl.call("GroupEnd")
window = nccl.register(comm, memory)
nccl.call("CommWindowDeregister", comm, window)
nccl.call("MemFree", memory)
nccl.call("CommDestroy", nccl.split(comm, 0))
print(*heard)
"""
    heard = "Allocated RegisterEntered Registered Deregistered Freed CommCreated CommGone"
    assert said(LISTEN + program, tmp_path) == [heard]


def test_facts_come_with_their_values(tmp_path: Path) -> None:
    program = """
observer.listen(heard.append)
memory = nccl.alloc(5000)
config = Config(ctypes.sizeof(Config), 0xcafebeef, 23203, name=b"tp")
made = nccl.made("CommInitRankConfig", (), (1, nccl.unique_id(), 0, ctypes.byref(config)))
window = nccl.register(made, memory, 4096)
allocated, created, entered, registered = heard
print(allocated.address == memory.value, allocated.size, created.name, created.how, created.size)
print(registered.window == window.value, entered.comm == created.comm, registered.size, registered.flags)
print(observer.address(created.comm) == made.value, observer.address(99))
"""
    assert said(program, tmp_path) == ["True 5000 tp config 1", "True True 4096 1", "True None"]


def test_a_registration_is_heard_of_before_nccl_and_its_result_after(tmp_path: Path) -> None:
    program = """
memory, window = nccl.alloc(), POINTER()
observer.listen(lambda fact: print(type(fact).__name__, bool(window.value)))
nccl.call("CommWindowRegister", comm, memory, 4096, ctypes.byref(window), 1)
"""
    assert said(program, tmp_path) == ["RegisterEntered False", "Registered True"]


def test_a_listener_may_call_nccl_and_hears_nothing_of_it(tmp_path: Path) -> None:
    program = "observer.listen(lambda fact: (heard.append(1), nccl.alloc()))\nnccl.alloc()\nprint(len(heard))"
    assert said(program, tmp_path) == ["1"]


def test_no_listener_hears_any_more(tmp_path: Path) -> None:
    assert said(LISTEN + "nccl.alloc(); observer.listen(None); nccl.alloc(); print(*heard)", tmp_path) == ["Allocated"]


def test_muted_calls_reach_nccl_and_nobody_else(tmp_path: Path) -> None:
    program = """
with observer.muted():
    with observer.muted():
        print(bool(nccl.alloc()))
    nccl.alloc()
nccl.alloc()
print(*heard)
"""
    assert said(LISTEN + program, tmp_path) == ["True", "Allocated"]


def test_another_thread_is_not_muted(tmp_path: Path) -> None:
    program = """
import threading
with observer.muted():
    thread = threading.Thread(target=nccl.alloc)
    thread.start(); thread.join()
print(*heard)
"""
    assert said(LISTEN + program, tmp_path) == ["Allocated"]


def test_muted_calls_are_not_written(tmp_path: Path) -> None:
    program = FOUND.replace("comm =", "comm = None #") + "with observer.muted(): comm = nccl.world(); nccl.alloc()"
    run(python(program), observed(tmp_path, tmp_path / "out"))
    assert read_all(tmp_path / "out") == []


def test_a_denied_allocation_fails_as_for_want_of_room(tmp_path: Path) -> None:
    program = """
observer.listen(heard.append)
observer.deny_next()
print([nccl.alloc().value is None and nccl.result, bool(nccl.alloc())], heard[0])
"""
    assert said(program, tmp_path) == ["[1, True] AllocationFailed(size=2097152, result=1, denied=True, site='')"]


def test_a_muted_allocation_is_not_denied(tmp_path: Path) -> None:
    program = """
observer.deny_next()
with observer.muted(): print(bool(nccl.alloc()))
print(bool(nccl.alloc()))
"""
    assert said(program, tmp_path) == ["True", "False"]


def test_registrations_of_a_refused_segment_fail_until_it_is_allowed(tmp_path: Path) -> None:
    program = """
refused, other = nccl.alloc(), nccl.alloc()
observer.refuse(refused.value)
observer.listen(lambda fact: heard.append(type(fact).__name__))
nccl.register(comm, refused); print(nccl.result)
nccl.register(comm, other); print(nccl.result)
observer.refuse(None)
nccl.register(comm, refused); print(nccl.result)
print(*heard)
"""
    failed = "RegisterEntered RegisterFailed RegisterEntered Registered RegisterEntered Registered"
    assert said(program, tmp_path) == ["4", "0", "0", failed]


HELD = """
memory = nccl.alloc()
window = nccl.register(comm, memory)
observer.hold_frees(True)
observer.listen(lambda fact: heard.append(getattr(fact, "is_held", None)))
ctypes.memset(memory, 7, 1)
def value(): return ctypes.string_at(memory, 1)[0]
"""


def test_memory_under_a_live_window_is_kept_until_it_is_released(tmp_path: Path) -> None:
    program = "print(nccl.call('MemFree', memory), value()); print(observer.release_held(), value(), *heard)"
    assert said(HELD + program, tmp_path) == ["0 7", "0 0 True"]


@pytest.mark.parametrize(
    "end",
    [
        "nccl.call('CommWindowDeregister', comm, window)",
        "nccl.call('CommDestroy', comm)",
        "observer.hold_frees(False)",
    ],
)
def test_memory_is_not_kept_without_a_live_window_or_an_order(end: str, tmp_path: Path) -> None:
    program = f"{end}; nccl.call('MemFree', memory); print(value(), heard[-1])"
    assert said(HELD + program, tmp_path) == ["0 False"]


def test_a_forked_child_is_under_no_orders(tmp_path: Path) -> None:
    program = """
observer.deny_next(5)
if not os.fork():
    print(bool(nccl.alloc()), *heard, flush=True)
    os._exit(0)
os.wait()
"""
    assert said(LISTEN + program, tmp_path) == ["True"]


def test_a_child_that_was_forked_while_muted_is_heard_again_when_that_ends(tmp_path: Path) -> None:
    program = (
        FOUND
        + """
with observer.muted():
    child = os.fork()
    if not child:
        nccl.alloc(4096)
if not child:
    nccl.alloc(8192)
    os._exit(0)
os.wait()
"""
    )
    run(python(program), observed(tmp_path, tmp_path / "out"))
    _, child = sorted(read_all(tmp_path / "out"), key=lambda process: process.began)
    assert [fact.size for fact in child.facts if isinstance(fact, Allocated)] == [8192]
