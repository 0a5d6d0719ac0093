"""One executed draw as the rules see it, and the phrases that their explanations share.

Invariant: a case follows from its draw alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from harness.oracle.history import History, Use, read
from harness.oracle.lives import WindowLife
from harness.oracle.nccl import NcclRules, rules_of
from harness.oracle.sight import Sight
from harness.scenario.layouts.groups import Group, GroupId, GroupIds
from harness.scenario.steps import Collective
from harness.trace.draw import Draw
from harness.trace.events import Exhausted, RegistrationFailed
from harness.trace.trace import TEARDOWN


class Case:
    """A draw with the histories of its ranks."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.scenario = draw, draw.scenario
        self.histories: list[History] = [read(trace) for trace in draw.traces]

    @cached_property
    def calls(self) -> dict[tuple[int, Group], list[Use]]:
        """The ranks' views of each collective, by step and group, in group order."""
        calls: dict[tuple[int, Group], list[Use]] = defaultdict(list)
        for history in self.histories:
            for use in history.uses:
                calls[use.step, use.comm.group].append(use)
        for (_, group), uses in calls.items():
            uses.sort(key=lambda use: group.index(use.rank))
        return dict(calls)

    @cached_property
    def raised(self) -> dict[int, int]:
        """The step at which the system under test raised on a rank, by rank."""
        raised = (fate.rank for fate in self.draw.fates if fate.state == "raised")
        return {rank: self.histories[rank].trace.last_step for rank in raised}

    def step(self, index: int) -> Collective:
        """The collective at a step."""
        step = self.scenario.steps[index]
        assert isinstance(step, Collective)
        return step

    def peer_addressed(self, use: Use) -> Sight:
        """The operand through which ranks reach each other: all-gather's output, reduce-scatter's source."""
        return use.output if self.operand_role(use) == "output" else use.source

    @cached_property
    def nccl(self) -> NcclRules:
        """The rules of the NCCL that ran the draw."""
        return rules_of(self.draw.nccl)

    def is_meant_for_window(self, uses: list[Use]) -> bool:
        """Whether the peer-addressed operand was allocated to lie in a window, and the policy wanted it on any rank."""
        is_for_window = self.scenario.allocations[self.peer_addressed(uses[0]).operand.buffer].role == "window"
        return is_for_window and not all(map(self.is_declined, uses))

    def is_declined(self, use: Use) -> bool:
        """Whether the policy declined the peer-addressed operand's buffer on this rank."""
        placed = self.histories[use.rank].buffers.get(self.peer_addressed(use).operand.buffer)
        return placed is not None and placed.event.is_declined

    def declines(self, group: GroupId | None = None, buffer: str | None = None) -> str:
        """The buffers that the policy declined on some ranks of a group and not on others, as sentences; empty if
        there is none. Of every group, and every buffer, if none is given."""
        return "".join(
            f" The pool policy declined {name!r} at {self.at_step(born)} on {ranks_text(declined)} and not on "
            f"{ranks_text(others)} of {self.name(named)}."
            for (name, named, born), declined in self._declined.items()
            if group in (None, named)
            and buffer in (None, name)
            and (others := self._not_declined(named, born, declined))
        )

    @cached_property
    def _declined(self) -> dict[tuple[str, GroupId, int], tuple[int, ...]]:
        """The ranks on which the policy declined a buffer, by buffer, group and step."""
        declined: dict[tuple[str, GroupId, int], tuple[int, ...]] = {}
        for history in self.histories:
            for name, life in history.buffers.items():
                if life.event.is_declined:
                    key = name, life.event.named, life.born
                    declined[key] = (*declined.get(key, ()), history.rank)
        return declined

    def _not_declined(self, group: GroupId, step: int, declined: tuple[int, ...]) -> tuple[int, ...]:
        """The other ranks of a group that have come to a step."""
        others = (rank for rank in group.ranks if rank not in declined)
        return tuple(rank for rank in others if self.histories[rank].trace.last_step >= step)

    def name(self, group: GroupId) -> str:
        """Such as `tp[0,1]`: a group by the first family that the program names, of those that have its communicator,
        or by the layout's first."""
        families = self.scenario.topology.ids
        named = {name: families[name] for name in self.scenario.families}
        return group_name({**named, **families}, group)

    def at_step(self, index: int) -> str:
        """Such as `step 3 (all_gather)`."""
        if index >= TEARDOWN:
            return "the end"
        return "the start" if index < 0 else f"step {index} ({self.scenario.steps[index].kind})"

    def call(self, use: Use) -> str:
        """Such as `step 3 (all_gather) on attn_tp[0,1]`, the family being the one the step names; where two families
        share the communicator, and it goes by the other's name elsewhere, that follows."""
        named = f"{self.step(use.step).family}[{','.join(map(str, use.comm.group))}]"
        also = self.name(use.comm.id)
        return f"{self.at_step(use.step)} on {named}{'' if also == named else f' (the same group as {also})'}"

    def operand_role(self, use: Use) -> str:
        """Which operand that is: `output` or `source`."""
        return self.step(use.step).whole_operand

    def window(self, window: WindowLife) -> str:
        """Which registration a window is."""
        return f"registered with {self.name(window.comm.id)} at {self.at_step(window.born)}"

    def path(self, use: Use) -> str:
        """Which path the call took, and by which evidence."""
        if use.ran is None:
            return "the call did not return"
        if not use.ran.evidence:
            return "which path the call took is not known"
        return f"the call took the {use.ran.path} path ({use.ran.evidence})"

    def refusals(self, ranks: Iterable[int]) -> str:
        """Which of the ranks could not allocate or register what, as sentences; empty if all could."""
        return "".join(f" Rank {rank} {refusal}." for rank in ranks for _, refusal in self._refusals(rank))

    def refused(self, rank: int, until: int) -> str:
        """The last allocation or registration that failed on a rank, no later than step `until`, as a verb; empty if
        none did."""
        refusals = [refusal for step, refusal in self._refusals(rank) if step <= until]
        return refusals[-1] if refusals else ""

    def _refusals(self, rank: int) -> Iterator[tuple[int, str]]:
        """Each allocation and registration that failed on a rank, as a verb, with its step."""
        history = self.histories[rank]
        for step, event in history.trace.steps():
            if isinstance(event, Exhausted):
                yield step, f"could not allocate {event.buffer!r} at {self.at_step(step)}"
            elif isinstance(event, RegistrationFailed):
                what = f"segment {event.segment} with {self.name(history.comms[event.comm].id)}"
                yield step, f"could not register {what} at {self.at_step(step)} ({event.error})"

    def asked_for(self, use: Use, sight: Sight) -> str:
        """For which other group the buffer's site asked the pool, as a sentence; empty if for the call's own."""
        placed = self.histories[use.rank].buffers[sight.operand.buffer]
        if placed.event.named in (GroupId(()), use.comm.id):
            return ""
        return f" Its site asked the pool for {self.name(placed.event.named)} at {self.at_step(placed.born)}."

    def earlier_holders(self, use: Use, sight: Sight) -> str:
        """Which buffers held this memory before, as a sentence; empty if none did."""
        history = self.histories[use.rank]
        own = history.buffers[sight.operand.buffer].event
        holders = [
            f"{name!r} held this memory from {self.at_step(life.born)} to {self.at_step(life.died)}"
            for name, life in history.buffers.items()
            if life.died is not None
            and life.died < use.step
            and life.event.address < own.address + own.size
            and own.address < life.event.address + life.event.size
        ]
        return f" {'; '.join(holders)}." if holders else ""


def group_name(families: dict[str, GroupIds], group: GroupId) -> str:
    """Such as `tp[0,1,2,3]`, under the first family that has the group's communicator."""
    family = next((name for name, ids in families.items() if group in ids), "group")
    return f"{family}[{','.join(map(str, group.ranks))}]"


def ranks_text(ranks: tuple[int, ...]) -> str:
    """Such as `rank 3`, `ranks 0, 2` or `ranks 0–2, 5`: three in a row or more become a run."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(_runs(ranks))}"


def _runs(ranks: tuple[int, ...]) -> Iterator[str]:
    start = 0
    for end in range(1, len(ranks) + 1):
        if end < len(ranks) and ranks[end] == ranks[end - 1] + 1:
            continue
        run = ranks[start:end]
        yield f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
        start = end
