"""The hosts of a world: each gets what the others' ranks wrote, and none what it has to know first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.errors import UsageError
from harness.ipc.host_messages import Message, Prepare, ToParent, Words
from harness.ipc.memory import FIELDS, HOST, SharedMemory
from harness.scenario.layouts.groups import GroupId
from harness.world.hosts.hosts import Hosts, Over
from harness.world.platform import choose

EVERYONE = GroupId((0, 1, 2, 3))


class PlayedHost:
    """A host that notes what it is sent."""

    def __init__(self, name: str) -> None:
        self.name, self.is_lost = name, False
        self.hearer: Callable[[ToParent | None], None] = lambda message: None
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)

    def ask(self, question: Message) -> int:
        raise AssertionError(question)

    def answer(self, number: int, kind: type[Any], seconds: float) -> Any:
        raise AssertionError(number)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory.of_host(4)
    yield made
    made.close()


@pytest.fixture
def others() -> list[PlayedHost]:
    return [PlayedHost(name) for name in ("beta", "gamma", "delta")]


def places(host: PlayedHost) -> list[int]:
    """Where the words that a host got belong, in order."""
    words = [each for each in host.heard if isinstance(each, Words)]
    return [int(place) for each in words for place in np.frombuffer(each.places, dtype=np.int64)]


def test_a_draw_begins_with_the_parents_words_and_each_hosts_ranks(
    memory: SharedMemory, others: list[PlayedHost]
) -> None:
    memory.counters[2, :, HOST] = 4
    with Hosts(Over(others, 1), choose("sim", 4), memory) as hosts:
        hosts.prepare({EVERYONE: 2})
    begun = [each.heard[0] for each in others]
    assert all(isinstance(each, Prepare) and each.slots == ((EVERYONE, 2),) for each in begun)
    assert [each.ranks for each in begun if isinstance(each, Prepare)] == [(1,), (2,), (3,)]
    assert all(each.rows == memory.counters[[2]].tobytes() for each in begun if isinstance(each, Prepare))


def test_a_host_gets_the_words_of_all_ranks_but_its_own(memory: SharedMemory, others: list[PlayedHost]) -> None:
    with Hosts(Over(others, 1), choose("sim", 4), memory) as hosts:
        hosts.prepare({EVERYONE: 2})
        memory.counters[2, :, HOST] += 1
        memory.ring()
        end = time.monotonic() + 10
        while not all(places(each) for each in others) and time.monotonic() < end:
            time.sleep(0.01)
    words = [(2 * 4 + member) * FIELDS + HOST for member in range(4)]
    assert [places(each) for each in others] == [[*words[:at], *words[at + 1 :]] for at in (1, 2, 3)]


@pytest.mark.parametrize(
    ("domains", "is_right"), [((0, 0, 1, 1), True), ((5, 6, 7, 8), True), ((0, 0, 0, 1), False), ((0, 1, 1, 0), False)]
)
def test_gpus_show_no_placement_that_joins_hosts(
    memory: SharedMemory, domains: tuple[int, ...], is_right: bool
) -> None:
    bound = msgspec.structs.replace(choose("sim", 4), is_node_bound=True)
    two = Over([PlayedHost("beta")], 2)
    with Hosts(two, choose("sim", 4), memory) as hosts:
        hosts.check(domains)
    with Hosts(two, bound, memory) as hosts:
        if is_right:
            hosts.check(domains)
        else:
            with pytest.raises(UsageError, match="the two are on different hosts"):
                hosts.check(domains)
