"""Collectives as steps: one frozen record for each operation, with what every rank of a group reads and writes.

Invariant: what a call reads and writes on a rank follows from the step and the group alone. A new operation is a class
here and a member of `Collective`; its exact data is in `harness.rank.exact`, and `harness.substrate.communicator` has
the library's call.
"""

from __future__ import annotations

from harness.scenario.bases import CollectiveStep, Lengths, Op, Via, counts_in, start_of
from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.operands import Elements, View, at


class AllGather(CollectiveStep, frozen=True, tag="all_gather"):
    """Collective over `family`: `count` elements of each rank's `source`, in group rank order, to `output`.

    A call with unequal counts is one broadcast a rank.
    """

    family: str
    output: View
    count: Elements
    source: View | None = None
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "output"
    peer_operands = ("output",)
    has_copies = True

    def lengths(self, group: Group, rank: int) -> Lengths:
        return Lengths(at(self.count, rank), sum(counts_in(self, group)))

    def part_in_whole(self, group: Group, rank: int) -> int:
        return start_of(self, group, rank)


class ReduceScatter(CollectiveStep, frozen=True, tag="reduce_scatter"):
    """Collective over `family`: reduce `size·count` elements of each rank's `source`, chunk i to rank i's `output`.

    A call with unequal counts is one reduction a rank.
    """

    family: str
    source: View
    count: Elements
    output: View | None = None
    op: Op = "sum"
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "source"
    peer_operands = ("source",)

    def lengths(self, group: Group, rank: int) -> Lengths:
        return Lengths(sum(counts_in(self, group)), at(self.count, rank))

    def part_in_whole(self, group: Group, rank: int) -> int:
        return start_of(self, group, rank)


class AllReduce(CollectiveStep, frozen=True, tag="all_reduce"):
    """Collective over `family`: reduce `count` elements of each rank's `source` to every rank's `output`; in place
    without a source."""

    family: str
    output: View
    count: Elements
    source: View | None = None
    op: Op = "sum"
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "output"
    peer_operands = ("source", "output")
    has_one_count = True

    def lengths(self, group: Group, rank: int) -> Lengths:
        return Lengths(at(self.count, rank), at(self.count, rank))


class AllToAll(CollectiveStep, frozen=True, tag="all_to_all"):
    """Collective over `family`: each rank sends `count` elements of its `source` to every rank of its group, itself
    too, and has what it gets in `output`, both in group rank order.

    A rank with another count than others sends that many to each. `counts` says more: row i has what the i-th rank of a
    group sends to each rank of it; then `count` is 0. Both make a call that is one send and one receive a pair.
    Without a source the call reads a copy of its output, as NCCL has none in place.
    """

    family: str
    output: View
    count: Elements = 0
    source: View | None = None
    counts: tuple[tuple[int, ...], ...] | None = None
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "output"
    has_copies = True

    def sent(self, group: Group) -> tuple[tuple[int, ...], ...]:
        """Elements that each rank of a group sends to each, in group order."""
        return self.counts or tuple((count,) * len(group) for count in counts_in(self, group))

    def differs_in(self, group: Group) -> bool:
        return len({count for row in self.sent(group) for count in row}) > 1

    def lengths(self, group: Group, rank: int) -> Lengths:
        sent, mine = self.sent(group), group.index(rank)
        return Lengths(sum(sent[mine]), sum(row[mine] for row in sent))

    def sends(self, group: Group, rank: int) -> tuple[int, ...]:
        return self.sent(group)[group.index(rank)]


class Broadcast(CollectiveStep, frozen=True, tag="broadcast"):
    """Collective over `family`: `count` elements of the `source` of the `root`-th rank of each group to every rank's
    `output`; in place without a source."""

    family: str
    output: View
    count: Elements
    root: int = 0
    source: View | None = None
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "output"
    has_one_count = True

    def lengths(self, group: Group, rank: int) -> Lengths:
        count = at(self.count, rank)
        return Lengths(count if group.index(rank) == self.root else 0, count)


class Reduce(CollectiveStep, frozen=True, tag="reduce"):
    """Collective over `family`: reduce `count` elements of each rank's `source` to the `output` of the `root`-th rank
    of its group; in place without an output."""

    family: str
    source: View
    count: Elements
    root: int = 0
    output: View | None = None
    op: Op = "sum"
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "source"
    has_one_count = True
    has_kernels = False

    def lengths(self, group: Group, rank: int) -> Lengths:
        count = at(self.count, rank)
        return Lengths(count, count if group.index(rank) == self.root else 0)


class SendReceive(CollectiveStep, frozen=True, tag="send_receive"):
    """Collective over `family`: each rank sends `count` elements of `source` to the rank `shift` places on in its
    group, and receives as many in `output`, in one group call of NCCL."""

    family: str
    output: View
    count: Elements
    source: View
    shift: int = 1
    via: Via = "library"
    claim: bool = False
    stream: int = 0
    groups: Groups | None = None

    whole_operand = "output"
    has_one_count = True
    has_kernels = False

    def lengths(self, group: Group, rank: int) -> Lengths:
        return Lengths(at(self.count, rank), at(self.count, rank))

    def sends(self, group: Group, rank: int) -> tuple[int, ...]:
        to = (group.index(rank) + self.shift) % len(group)
        return tuple(at(self.count, rank) if place == to else 0 for place in range(len(group)))


Collective = AllGather | ReduceScatter | AllReduce | AllToAll | Broadcast | Reduce | SendReceive
