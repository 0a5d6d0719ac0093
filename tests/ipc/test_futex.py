"""Sleeping on a word: a change that came before is not slept through, and a writer of a word wakes its sleepers."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from harness.ipc import futex
from harness.ipc.memory import HOST, SharedMemory
from harness.ipc.rendezvous import Rendezvous

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the system call is not known")

LONG = 20.0


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(2)
    yield memory
    memory.close()


def test_a_word_that_has_changed_already_is_not_slept_on() -> None:
    word = np.array([7], dtype=np.int64)
    began = time.monotonic()
    futex.wait(word.ctypes.data, 6, LONG)
    assert time.monotonic() - began < LONG / 2


def test_only_the_lowest_32_bits_are_compared() -> None:
    word = np.array([(1 << 40) | 5], dtype=np.int64)
    began = time.monotonic()
    futex.wait(word.ctypes.data, 5)
    assert time.monotonic() - began >= futex.PATIENCE / 2


def test_where_the_call_is_not_allowed_a_wait_is_a_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    yields: list[str] = []
    monkeypatch.setattr(futex, "NUMBER", 100_000)
    monkeypatch.setattr(futex.os, "sched_yield", lambda: yields.append("yields"))
    word = np.array([6], dtype=np.int64)
    futex.wait(word.ctypes.data, 6)
    assert yields == ["yields"]


def test_a_word_that_stays_is_slept_on_for_a_while() -> None:
    word = np.array([6], dtype=np.int64)
    began, worked = time.monotonic(), time.thread_time()
    futex.wait(word.ctypes.data, 6)
    assert time.monotonic() - began >= futex.PATIENCE / 2
    assert time.thread_time() - worked < futex.PATIENCE / 5


def test_the_last_to_come_wakes_who_sleeps(shared: SharedMemory) -> None:
    first, last = (Rendezvous(shared, 3, (0, 1), rank, patience=LONG) for rank in (0, 1))
    sleeper = threading.Thread(target=first.meet, args=(HOST,), daemon=True)
    sleeper.start()
    while not shared.waiting[0, 0]:
        time.sleep(0.001)
    time.sleep(0.05)  # by now it sleeps
    last.meet(HOST)
    sleeper.join(LONG / 2)
    assert not sleeper.is_alive()
