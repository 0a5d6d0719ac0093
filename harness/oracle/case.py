"""One draw or recording as the rules see it, and the phrases that their explanations share.

Invariant: a case follows from what was seen alone. No rule asks which of the two it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from harness.oracle.history import History, Key, Use, read
from harness.oracle.lives import SegmentLife, WindowLife
from harness.oracle.nccl import NcclRules, rules_of
from harness.oracle.peers import peer_operands
from harness.oracle.program import Seen, program_of
from harness.oracle.sight import Sight
from harness.scenario.layouts.groups import Group, GroupId, GroupIds
from harness.trace.events import Exhausted, RegistrationFailed, Role
from harness.trace.trace import TEARDOWN


class Case:
    """A draw or a recording, with what was run and the histories of its ranks."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.program = seen, program_of(seen)
        self.histories: list[History] = [read(trace) for trace in seen.traces]

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

    def calls_on(self, key: Key) -> list[list[Use]]:
        """The ranks' views of each collective on a communicator, in the order of `calls`."""
        return self._by_key.get(key, [])

    @cached_property
    def _by_key(self) -> dict[Key, list[list[Use]]]:
        found: dict[Key, list[list[Use]]] = {}
        for uses in self.calls.values():
            found.setdefault((uses[0].comm.id, uses[0].comm.generation), []).append(uses)
        return found

    @property
    def is_clean(self) -> bool:
        """Whether every rank ran to the end."""
        return all(fate.state == "finished" for fate in self.seen.fates)

    @cached_property
    def raised(self) -> dict[int, int]:
        """The step at which the system under test raised on a rank, by rank."""
        raised = (fate.rank for fate in self.seen.fates if fate.state == "raised")
        return {rank: self.histories[rank].trace.last_step for rank in raised}

    def peer_roles(self, uses: list[Use]) -> tuple[Role, ...]:
        """The operands through which the ranks of a call reach each other, each memory once."""
        roles: dict[tuple[tuple[int, int], ...], Role] = {}
        called = uses[0].called
        pulled: tuple[Role, ...] = ("source",) if called.pulls else ()
        for role in dict.fromkeys((*peer_operands(called.kind, called.via), *pulled)):
            operands = (use.sight(role).operand for use in uses)
            roles.setdefault(tuple((operand.address, operand.size) for operand in operands), role)
        return tuple(roles.values())

    @cached_property
    def nccl(self) -> NcclRules:
        """The rules of the NCCL that ran it."""
        return rules_of(self.seen.nccl)

    def is_meant_for_window(self, uses: list[Use], role: Role) -> bool:
        """Whether an operand was meant to lie in a window on any rank, and the policy wanted it on any."""
        is_meant = any(role in use.called.meant for use in uses)
        return is_meant and not all(self.is_declined(use, role) for use in uses)

    def is_declined(self, use: Use, role: Role) -> bool:
        """Whether the policy declined an operand's buffer on this rank."""
        placed = self.histories[use.rank].buffers.get(use.sight(role).operand.buffer)
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
        return self._names.get(group) or group_name({}, group)

    @cached_property
    def _names(self) -> dict[GroupId, str]:
        families = self.program.topology.ids
        names: dict[GroupId, str] = {}
        for family in (*self.program.families, *families):
            for group in families[family]:
                names.setdefault(group, group_name({family: (group,)}, group))
        return names

    def at_step(self, index: int) -> str:
        """Such as `step 3 (all_gather)`, or in a recording `all_gather 14 (model.py:31 forward)`."""
        if index >= TEARDOWN:
            return "the end"
        return "the start" if index < 0 else self.program.place(index)

    def call(self, use: Use) -> str:
        """Such as `step 3 (all_gather) on attn_tp[0,1]`, the family being the one the call names; where two families
        share the communicator, and it goes by the other's name elsewhere, that follows."""
        named = f"{use.called.family}[{','.join(map(str, use.comm.group))}]"
        also = self.name(use.comm.id)
        return f"{self.at_step(use.step)} on {named}{'' if also == named else f' (the same group as {also})'}"

    def operand(self, sight: Sight) -> str:
        """Such as `'a'`, or in a recording `segment 3 + 4096`."""
        return self.program.operand(sight.operand.buffer)

    def segment(self, life: SegmentLife) -> str:
        """Such as `segment 3 of pool 'tp'`; a recording knows no pools."""
        pool = f" of pool {life.event.pool!r}" if life.event.pool else ""
        return f"segment {life.event.segment}{pool}"

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
        return "".join(f" Rank {rank} {refusal}." for rank in ranks for _, refusal in self._refusals[rank])

    def refused(self, rank: int, until: int) -> str:
        """The last allocation or registration that failed on a rank, no later than step `until`, as a verb; empty if
        none did."""
        refusals = [refusal for step, refusal in self._refusals[rank] if step <= until]
        return refusals[-1] if refusals else ""

    @cached_property
    def _refusals(self) -> list[tuple[tuple[int, str], ...]]:
        """Those of each rank. Findings ask for them again and again."""
        return [tuple(self._refused(history)) for history in self.histories]

    def _refused(self, history: History) -> Iterator[tuple[int, str]]:
        """Each allocation and registration that failed on a rank, as a verb, with its step."""
        for step, event in history.trace.steps():
            if isinstance(event, Exhausted):
                yield step, f"could not allocate {event.buffer!r} at {self.at_step(step)}"
            elif isinstance(event, RegistrationFailed):
                what = f"{memory(event.segment)} with {self.name(history.comms[event.comm].id)}"
                yield step, f"could not register {what} at {self.at_step(step)} ({event.error})"

    def asked_for(self, use: Use, sight: Sight) -> str:
        """For which other group the buffer's site asked the pool, as a sentence; empty if for the call's own."""
        placed = self.histories[use.rank].buffers.get(sight.operand.buffer)
        if placed is None or placed.event.named in (GroupId(()), use.comm.id):
            return ""
        return f" Its site asked the pool for {self.name(placed.event.named)} at {self.at_step(placed.born)}."

    def taken(self, use: Use, sight: Sight) -> str:
        """A sentence on what got an operand's memory while its call was in flight; empty where nothing did."""
        flight = next((each for each in self.program.flights if use.step in each), range(0))
        start, end = sight.operand.address, sight.operand.address + sight.operand.size
        for life in self.histories[use.rank].buffers.values():
            is_over_it = life.event.address < end and start < life.event.address + life.event.size
            if is_over_it and life.born in flight and life.born > use.step:
                return f" In flight, {self.at_step(life.born)} gave that memory to {life.event.buffer!r}."
        return ""

    def earlier_holders(self, use: Use, sight: Sight) -> str:
        """Which buffers held this memory before, as a sentence; empty if none did."""
        history = self.histories[use.rank]
        if sight.operand.buffer not in history.buffers:
            return ""
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


def memory(segment: int) -> str:
    """Such as `segment 3`."""
    return f"segment {segment}" if segment >= 0 else "memory of no known segment"


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
