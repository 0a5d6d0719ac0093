"""A rank's answers where a draw breaks: an error of the device is a crash, the system's own mistake is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.errors import JournalFull, UsageError
from harness.ipc.journal import Journal
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Broken, Call, Done, Failed, Join, Raised, Refused, Reply, Returned, WorldSize
from harness.rank.server import Server
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.system.boundary import SystemRaised
from harness.trace import events
from harness.world.world import World


class Faulty:
    """A substrate on which every `ValueError` is an error of the device."""

    name = "sim"

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def fault(self, error: BaseException | None) -> str:
        return f"deviceError ({error})" if isinstance(error, ValueError) else ""

    def join(self, token: object) -> None:
        self.calls.append(("join", token))

    def world(self, size: int) -> None:
        self.calls.append(("world", size))


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(1)
    yield memory
    memory.close()


@pytest.fixture
def substrate() -> Any:
    return Faulty()


@pytest.fixture
def rank(shared: SharedMemory, substrate: Any) -> Server:
    return Server(0, shared, substrate)


def fail(_substrate: object, _slots: object, error: BaseException) -> None:
    raise error


def answer(rank: Server, error: BaseException) -> Reply:
    """The rank's answer to a call that raises this."""
    return rank.answer(Call("tests.rank.test_server:fail", {}, (error,)))


def by_the_system(cause: Exception) -> SystemRaised:
    return SystemRaised("pool", cause)


def test_a_fault_is_answered_with_its_own_text(rank: Server) -> None:
    assert answer(rank, ValueError("gone")) == Broken("failed with deviceError (gone)")


def test_a_fault_inside_the_system_is_answered_with_its_own_text(rank: Server) -> None:
    assert answer(rank, by_the_system(ValueError("gone"))) == Broken("failed with deviceError (gone)")


def test_a_mistake_of_the_system_is_answered_as_its_own(rank: Server) -> None:
    reply = answer(rank, by_the_system(TypeError("what?")))
    assert isinstance(reply, Raised)
    assert (reply.what.where, reply.what.text) == ("pool", "TypeError: what?")


def test_an_exception_of_the_system_is_in_the_journal(rank: Server, shared: SharedMemory) -> None:
    answer(rank, by_the_system(TypeError("what?")))
    assert shared.journal(0).read() == (events.Raised("pool", "TypeError: what?"),)


FULL = "the rank's journal is full; the program is too long"


def test_a_full_journal_is_the_harnesss_own_error(rank: Server) -> None:
    reply = answer(rank, JournalFull(FULL))
    assert isinstance(reply, Failed)
    assert reply.error == FULL


def fill(journal: Journal) -> None:
    while True:
        journal.append(events.Exhausted("x" * 4000, 1))


def test_what_the_system_raised_for_a_full_journal_is_the_harnesss_own_error(rank: Server) -> None:
    with pytest.raises(JournalFull):
        fill(rank._journal)
    reply = answer(rank, by_the_system(RuntimeError("JournalFull()")))
    assert isinstance(reply, Failed)
    assert reply.error == FULL


def test_a_built_in_part_is_named_by_no_package(rank: Server) -> None:
    """The collectives `triton` are not the package."""
    rank._names = {"pool": "mine.pools:Pool", "collectives": "triton"}
    assert rank._packages == {"mine"}


def test_a_wrong_request_is_refused(rank: Server) -> None:
    assert answer(rank, UsageError("no such pool")) == Refused("no such pool")


def test_any_other_failure_is_the_machines(rank: Server) -> None:
    reply = answer(rank, KeyError("slot"))
    assert isinstance(reply, Failed)
    assert reply.error == "KeyError: 'slot'"


def value(_substrate: object, slots: object, word: str) -> tuple[object, str]:
    return slots, word


def test_a_call_returns_the_functions_value(rank: Server) -> None:
    reply = rank.answer(Call("tests.rank.test_server:value", {(0,): 3}, ("word",)))
    assert reply == Returned(({(0,): 3}, "word"))


@pytest.mark.parametrize(
    ("request_", "call"), [(Join(b"here"), ("join", b"here")), (WorldSize(3), ("world", 3))], ids=["join", "size"]
)
def test_a_request_of_the_substrate_reaches_it(
    rank: Server, substrate: Any, request_: Join | WorldSize, call: tuple[str, object]
) -> None:
    assert (rank.answer(request_), substrate.calls) == (Done(), [call])


def note_ends(substrate: Any, _slots: object) -> None:
    """From here on the substrate notes how it ends draws."""
    end = substrate.end
    substrate.ends = []

    def ended() -> None:
        substrate.ends.append("end")
        end()

    substrate.end, substrate.give_up = ended, lambda scenario: substrate.ends.append(scenario.seed)


def noted(substrate: Any, _slots: object) -> Any:
    return substrate.ends


def test_a_draw_gives_up_what_it_leaves_in_communicators_behind_its_end() -> None:
    topology = Topology("two", "sglang", {"tp": 2})
    with World(2, "sim") as world:
        world.call(f"{__name__}:note_ends")
        for seed in (4, 5):
            world.run(Scenario(topology, (Allocate("a", "tp", 8),), seed=seed))
        assert world.call(f"{__name__}:noted") == [["end", 4, "end", 5]] * 2
