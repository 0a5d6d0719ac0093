"""Words of another host arrive whole, in order and once, and wake whoever waits for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from harness.ipc.host_messages import Words
from harness.ipc.memory import AGREE, HOST, PAYLOAD, SharedMemory
from harness.ipc.mirror import Mirror, take
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId

PAIR, CROSSED = GroupId((0, 1)), GroupId((1, 0))
SLOTS = {PAIR: 3, CROSSED: 4}


@pytest.fixture
def hosts() -> Iterator[tuple[SharedMemory, SharedMemory]]:
    """The memories of two hosts with a rank each."""
    memories = SharedMemory.of_host(2), SharedMemory.of_host(2)
    yield memories
    for each in memories:
        each.close()


def mirrored(here: SharedMemory, there: SharedMemory, rank: int) -> Mirror:
    return Mirror(here, SLOTS, {rank}, with_waits=True)


def test_what_has_not_changed_is_not_sent(hosts: tuple[SharedMemory, SharedMemory]) -> None:
    here, there = hosts
    here.counters[3, 0, HOST] = 5
    mirror = mirrored(here, there, 0)
    assert mirror.changed() is None
    here.counters[3, 0, HOST] = 6
    assert mirror.changed() is not None
    assert mirror.changed() is None


def test_words_of_these_ranks_arrive_and_no_others(hosts: tuple[SharedMemory, SharedMemory]) -> None:
    here, there = hosts
    mirror = mirrored(here, there, 0)
    here.counters[3, 0, HOST], here.counters[3, 1, HOST] = 7, 8
    here.counters[4, 1, HOST], here.counters[4, 0, HOST] = 9, 10
    here.waiting[0], here.waiting[1] = (4, HOST, 7, 0), (4, HOST, 8, 0)
    words = mirror.changed()
    assert words is not None
    take(there, words)
    assert there.counters[3:5, :, HOST].tolist() == [[7, 0], [0, 9]], "rank 0 is member 1 of the group 1, 0"
    assert there.waiting.tolist() == [[4, HOST, 7, 0], [0, 0, 0, 0]]


def test_a_rank_that_waits_for_another_host_is_woken(hosts: tuple[SharedMemory, SharedMemory]) -> None:
    here, there = hosts
    mirror = mirrored(here, there, 0)
    waiting = Rendezvous(there, 3, (0, 1), 1, patience=60)
    found: list[list[list[int]]] = []
    thread = threading.Thread(target=lambda: found.append(waiting.exchange(AGREE, 22).tolist()))
    thread.start()
    here.counters[3, 0, PAYLOAD[AGREE]] = 11
    here.counters[3, 0, AGREE] = 2  # it has met twice, as the peer will
    words = mirror.changed()
    assert words is not None
    take(there, words)
    thread.join(10)
    assert found == [[[11], [22]]]


def test_a_rank_that_meets_others_rings(hosts: tuple[SharedMemory, SharedMemory]) -> None:
    here, _ = hosts
    assert here.bell is not None
    with pytest.raises(BlockingIOError):
        os.eventfd_read(here.bell)
    Rendezvous(here, 3, (0,), 0).meet(HOST)
    assert os.eventfd_read(here.bell) == 1


def test_words_of_no_memory_are_refused(hosts: tuple[SharedMemory, SharedMemory]) -> None:
    far = (1 << 40).to_bytes(8, "little")
    with pytest.raises(IndexError):
        take(hosts[0], Words(far, far))
    with pytest.raises(ValueError, match="multiple of element size"):
        take(hosts[0], Words(b"123", b"123"))


def test_hosts_share_segments_and_not_counters() -> None:
    first = SharedMemory.of_host(2)
    second = SharedMemory.of_host(2, os.dup(first.fd))
    try:
        first.counters[0, 0, HOST] = first.waiting[0, 0] = 1
        first.barriers[0, 0, 0] = 1
        start, _ = first.arena(1)
        first.bytes[start] = 1
        first.staging(0)[0] = 1
        assert (second.counters.any(), second.waiting.any()) == (False, False)
        assert (second.barriers[0, 0, 0], second.bytes[start], second.staging(0)[0]) == (1, 1, 1)
        assert len(first.descriptors) == 3
    finally:
        first.close()
        second.close()
