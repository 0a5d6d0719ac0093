"""Cross-checks: stamps that are not found are recorded with the peer, and bits that differ with their place."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from harness.rank.cross_checks import STAMP, agree_on, compare, stamp
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment, Window
from harness.substrate.sim.device import SimDevice
from harness.trace.events import Differs, Event, Strayed

SIZE = 64


@dataclass
class Pair:
    """The first rank's end of a group whose second rank does what this one does, in memory of this process.

    `peer_shift` is how many bytes from its operand the second rank is reached.
    """

    ours: torch.Tensor
    peers: torch.Tensor
    peer_shift: int = 0
    is_owned: bool = True
    words: tuple[int, ...] = (1, 1)
    events: list[Event] = field(default_factory=list)
    size: int = 2
    rank: int = 0
    group: tuple[int, ...] = (4, 6)
    meetings: int = 0

    def __post_init__(self) -> None:
        self.device, self.recorder = SimDevice(), Recorder(4)
        self.recorder.start(self.events.append)

    def find_window(self, address: int) -> Window | None:
        base = self.ours.data_ptr()
        return Window(0, self, Segment(0, "p", base, SIZE), None) if self.is_owned else None  # type: ignore[arg-type]

    def exchange(self, word: int) -> list[int]:
        return [word, *self.words[1:]]

    def barrier(self) -> None:
        """At the second meeting every rank has stamped its operand."""
        self.meetings += 1
        if self.meetings == 2:
            length = min(STAMP, SIZE)
            self.peers[:length] = torch.tensor([2, 0xA5, 1, 0, *b"SYMM"], dtype=torch.uint8)[:length]

    def peer_pointers(self, window: Window, offset: int) -> list[int]:
        return [self.ours.data_ptr() + offset, self.peers.data_ptr() + offset + self.peer_shift]


def pair(**how: object) -> Pair:
    ours, peers = (torch.arange(SIZE, dtype=torch.uint8) for _ in range(2))
    return Pair(ours, peers, **how)  # type: ignore[arg-type]


def stamped(communicator: Pair) -> list[Event]:
    stamp(communicator, "a", communicator.ours)  # type: ignore[arg-type]
    return communicator.events


def test_stamps_that_are_where_they_should_be_record_nothing() -> None:
    communicator = pair()
    assert (stamped(communicator), communicator.meetings) == ([], 4)


def test_a_peer_that_is_reached_beside_its_operand_is_recorded_with_what_lies_there() -> None:
    assert stamped(pair(peer_shift=16)) == [Strayed("a", 6, bytes(range(16, 24)).hex())]


def test_a_stamp_leaves_the_operand_as_it_was() -> None:
    communicator = pair(peer_shift=16)
    stamped(communicator)
    assert communicator.ours.tolist() == [*range(SIZE)]


@pytest.mark.parametrize(
    "how", [{"is_owned": False}, {"words": (1, 0)}, {"size": 1}], ids=["ours", "a peer's", "one rank"]
)
def test_nothing_is_stamped_unless_every_operand_lies_in_a_window(how: dict[str, object]) -> None:
    communicator = pair(peer_shift=16, **how)
    assert (stamped(communicator), communicator.meetings) == ([], 0)


@pytest.mark.parametrize(
    ("path", "peers", "agreed"), [("symmetric", 1, True), ("symmetric", 0, False), ("legacy", 1, False)]
)
def test_ranks_agree_if_all_took_the_symmetric_path(path: str, peers: int, agreed: bool) -> None:
    assert agree_on(pair(words=(1, peers)), path) is agreed  # type: ignore[arg-type]


def test_equal_bits_record_nothing() -> None:
    communicator = pair()
    compare(communicator, "a", torch.tensor([1.0]), torch.tensor([1.0]), by_path=True)  # type: ignore[arg-type]
    assert communicator.events == []


def test_bits_that_differ_are_recorded_with_the_first_place() -> None:
    communicator = pair()
    compare(communicator, "a", torch.tensor([1, 0.0, 2]), torch.tensor([1, -0.0, 3]), by_path=False)  # type: ignore[arg-type]
    assert communicator.events == [Differs("a", 2, 3, 1, "0x0", "0x80000000", is_by_path=False)]
