"""Interleavings: which two things came one after the other on a buffer, a communicator, a piece of memory, or a rank.

Invariant: an interleaving is what one rank saw, in the order in which it saw it.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.history import History
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import (
    Called,
    CommCreated,
    CommDestroyed,
    Deregistered,
    Dropped,
    Placed,
    Registered,
    Replayed,
)
from harness.trace.trace import TEARDOWN

FREED = 32
"""Pieces of memory that are remembered as given back, the last ones."""


def seen(case: Case) -> Iterator[str]:
    """Such as `buffer: call, release`, `communicator: recreate, register` or `memory: release, allocate by another
    group, call`. A word says where it is in flight or captured."""
    for history in case.histories:
        yield from _Reading(case, history).read()


class _Reading:
    """One rank's events, with the last word on each thing."""

    def __init__(self, case: Case, history: History) -> None:
        self._history = history
        self._flights, self._captures = case.program.flights, case.program.captures.values()
        self._on_buffers: dict[str, str] = {}
        self._on_comms: dict[GroupId, str] = {}
        self._groups: dict[str, GroupId] = {}
        """For which group a live buffer was asked for."""
        self._freed: list[tuple[Placed, str]] = []
        self._reused: dict[str, str] = {}
        """How the memory of a live buffer came to it."""
        self._last: GroupId | None = None
        """The group of the last call."""
        self._captured: dict[int, tuple[str, ...]] = {}
        """The buffers of each call, by step."""

    def read(self) -> Iterator[str]:
        for step, event in self._history.trace.steps():
            if step >= TEARDOWN:
                return
            match event:
                case Placed():
                    yield from self._placed(event, self._where("allocate", step))
                case Dropped():
                    yield from self._dropped(event.buffer, self._where("release", step))
                case Called():
                    yield from self._called(event, step)
                case Replayed():
                    for buffer in self._captured.get(event.captured, ()):
                        yield from self._on_buffer(buffer, "replay")
                case CommCreated() | CommDestroyed() | Registered() | Deregistered():
                    yield from self._on_communicator(event)

    def _where(self, word: str, step: int) -> str:
        if any(step in flight for flight in self._flights):
            return f"{word} in flight"
        return f"{word} captured" if any(step in steps for steps in self._captures) else word

    def _on_buffer(self, buffer: str, word: str) -> Iterator[str]:
        before = self._on_buffers.get(buffer)
        self._on_buffers[buffer] = word
        if before is not None:
            yield f"buffer: {before}, {word}"

    def _on_comm(self, group: GroupId, word: str) -> Iterator[str]:
        before = self._on_comms.get(group)
        self._on_comms[group] = word
        if before is not None:
            yield f"communicator: {before}, {word}"

    def _placed(self, event: Placed, word: str) -> Iterator[str]:
        self._on_buffers[event.buffer], self._groups[event.buffer] = word, event.named
        if event.segment < 0:
            return
        end = event.address + event.size
        for former, freed in self._freed:
            if former.address < end and event.address < former.address + former.size:
                by = "" if former.named == event.named else " by another group"
                self._reused[event.buffer] = f"memory: {freed}, {word}{by}"
                yield self._reused[event.buffer]

    def _dropped(self, buffer: str, word: str) -> Iterator[str]:
        yield from self._on_buffer(buffer, word)
        self._groups.pop(buffer, None)
        self._reused.pop(buffer, None)
        if (life := self._history.buffers.get(buffer)) is not None and life.event.segment >= 0:
            self._freed = [*self._freed[1 - FREED :], (life.event, word)]

    def _called(self, event: Called, step: int) -> Iterator[str]:
        word = self._where("kernel" if event.via == "kernel" else "call", step)
        group = self._history.comms[event.comm].id
        buffers = tuple(dict.fromkeys((event.output.buffer, event.source.buffer)))
        self._captured[step] = buffers
        yield from self._on_comm(group, word)
        for buffer in buffers:
            yield from self._on_buffer(buffer, word)
            if (reused := self._reused.pop(buffer, None)) is not None:
                yield f"{reused}, {word}"
        if self._last is not None and self._last != group:
            yield f"rank: call, call of {_relation(self._last, group)}"
        self._last = group

    def _on_communicator(self, event: CommCreated | CommDestroyed | Registered | Deregistered) -> Iterator[str]:
        match event:
            case CommCreated():
                if event.id in self._on_comms:
                    yield from self._on_comm(event.id, "recreate")
            case CommDestroyed():
                group = self._history.comms[event.comm].id
                self._on_comms.setdefault(group, "create")
                for buffer in [name for name, named in self._groups.items() if named == group]:
                    yield from self._on_buffer(buffer, "recreate")
            case Registered():
                yield from self._on_comm(self._history.comms[event.comm].id, "register")
            case Deregistered():
                window = self._history.windows[event.window]
                yield from self._on_comm(window.comm.id, "deregister")


def _relation(last: GroupId, group: GroupId) -> str:
    first, second = {*last.ranks}, {*group.ranks}
    if first == second:
        return "another communicator over equal ranks"
    return "a group inside it or around it" if first <= second or second <= first else "a group that overlaps"
