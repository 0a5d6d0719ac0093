"""Findings: one exception class for each rule, with its explanation.

Invariant: an explanation is an argument. It names the steps, ranks and groups it rests on, and no
cause that the trace does not show. One class a rule lets Hypothesis shrink each rule's case apart.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import msgspec


class Finding(AssertionError):
    """A broken rule. `step` is where it shows, `ranks` those it was seen on, `stacks` where hung ranks
    were, what a rank raised, or the lines that a dead one printed."""

    rule: ClassVar[str]
    cause: ClassVar[str] = ""
    """What keeps findings of one rule apart, if anything does."""

    def __init__(
        self, explanation: str, *, step: int, ranks: tuple[int, ...], stacks: tuple[StackRecord, ...] = ()
    ) -> None:
        super().__init__(explanation)
        self.explanation, self.step, self.ranks, self.stacks = explanation, step, ranks, stacks

    def __str__(self) -> str:
        return f"{self.rule}: {self.explanation}"

    @property
    def key(self) -> str:
        """What it is a finding of: a rule, or one of a rule's causes."""
        return self.record().key

    def of_kind(self, kind: str) -> Finding:
        """The same finding, of a class that those of one kind share. Hypothesis shrinks classes apart."""
        cls = _of_kind(type(self), kind)
        return cls(self.explanation, step=self.step, ranks=self.ranks, stacks=self.stacks)

    def record(self) -> Record:
        """The finding as plain data."""
        return Record(self.rule, self.explanation, self.step, self.ranks, self.stacks, self.cause)


_KINDS: dict[tuple[type[Finding], str], type[Finding]] = {}


def _of_kind(cls: type[Finding], kind: str) -> type[Finding]:
    if (cls, kind) not in _KINDS:
        _KINDS[cls, kind] = type(cls.__name__, (cls,), {"__doc__": cls.__doc__})
    return _KINDS[cls, kind]


PRINTED = "printed"
"""In place of a witness: the rank printed these lines before it died."""
RAISED = "raised"
"""In place of a witness: the frames of the system under test, from the place where it raised."""
TRACEBACK = "traceback"
"""In place of a witness: all lines of Python's own traceback."""


class StackRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a rank was, innermost frame first, with its witness (see `trace.draw.Fate`); or the lines it printed."""

    rank: int
    witness: str
    frames: tuple[str, ...]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A finding as it is kept in seed files and reports. `stacks` is left out where there are none."""

    rule: str
    explanation: str
    step: int
    ranks: tuple[int, ...]
    stacks: tuple[StackRecord, ...] = ()
    cause: str = ""

    @property
    def key(self) -> str:
        """What it is a finding of: a rule, or one of a rule's causes."""
        return f"{self.rule} {self.cause}" if self.cause else self.rule


class FreedWhileRegistered(Finding):
    """A segment was freed under a live window."""

    rule = "freed-while-registered"


class StaleWindow(Finding):
    """A window outlived what it was made for: its segment was freed, or its communicator replaced."""

    rule = "stale-window"


class OversizedWindow(Finding):
    """A window reaches past the segment that it was registered for."""

    rule = "oversized-window"


class DoubleRegistration(Finding):
    """The same memory has two live windows of one communicator."""

    rule = "double-registration"


class HotPathGrowth(Finding):
    """A registration was entered in steady state, when pools have met the same sizes before."""

    rule = "hot-path-growth"


class RegistrationSkew(Finding):
    """Ranks of a group registered a different number of segments, or of different sizes, or in another order."""

    rule = "registration-skew"


class RegisteredInCapture(Finding):
    """A registration was entered while a graph was captured."""

    rule = "registered-in-capture"


class OverlappingBuffers(Finding):
    """A pool handed out memory that a live buffer still holds."""

    rule = "overlapping-buffers"


class CapturedReuse(Finding):
    """Memory that a graph writes at every replay was freed, or holds another buffer now."""

    rule = "captured-reuse"


class NullWindow(Finding):
    """A registration succeeded without a window, and its buffer was used as if it had one."""

    rule = "null-window"


class WrongOwner(Finding):
    """A buffer lies in a window, but not of the communicator that ran the collective."""

    rule = "wrong-owner"


class Unregistered(Finding):
    """A buffer that was meant for a group's collectives lies in no window at all."""

    rule = "unregistered"


class UnregisteredOnSome(Unregistered):
    """The same, where the buffer lies in memory that is made for windows on other ranks of the call."""

    cause = "on some ranks alone"


class PartlyRegistered(Finding):
    """A buffer starts in a window of its communicator and reaches past the window's end."""

    rule = "partly-registered"


class SegmentMismatch(Finding):
    """Ranks of a group hold the buffer in different windows of the communicator."""

    rule = "segment-mismatch"


class OffsetMismatch(Finding):
    """Ranks of a group hold the buffer at different offsets of the same window."""

    rule = "offset-mismatch"


class HalfRegistered(Finding):
    """One side of a send is registered with the communicator, and the other is not."""

    rule = "half-registered"


class SlowPath(Finding):
    """A call that owns its buffers and is eligible did not take the symmetric path, or claimed it while ineligible."""

    rule = "slow-path"


class Race(Finding):
    """Two ranks accessed the same bytes, one of them wrote, and nothing ordered the two."""

    rule = "race"


class ResultOverwritten(Finding):
    """What a call left of its output or its source changed, and the program wrote nothing there."""

    rule = "result-overwritten"


class StalePeerAddress(Finding):
    """A kernel used a peer address of a window that was gone."""

    rule = "stale-peer-address"


class OutOfBounds(Finding):
    """Memory that no call may write changed."""

    rule = "out-of-bounds"


class SourceChanged(Finding):
    """A call changed its source, outside of its output."""

    rule = "source-changed"


class WrongData(Finding):
    """An output is not the exact result."""

    rule = "wrong-data"


class Leak(Finding):
    """Something was left after the system under test was closed."""

    rule = "leak"


class RankCrash(Finding):
    """A rank's process ended."""

    rule = "rank-crash"


class Raised(Finding):
    """The system under test raised an exception that it does not handle itself."""

    rule = "raised"

    @staticmethod
    @cache
    def by(cause: str) -> type[Raised]:
        """The class of one exception at one place. Hypothesis shrinks classes apart, so no two are mixed."""
        return type("Raised", (Raised,), {"cause": cause, "__doc__": Raised.__doc__})


class Hang(Finding):
    """The ranks stopped making progress."""

    rule = "hang"


RULES: dict[str, type[Finding]] = {cls.rule: cls for cls in Finding.__subclasses__()}
"""Every rule, causes before consequences: the first of a draw's findings is the one that is raised."""
PRIORITY = {rule: index for index, rule in enumerate(RULES)}


def ordered(findings: list[Finding]) -> list[Finding]:
    """Causes before consequences, earlier steps first, one finding for each rule, cause and step."""
    unique = {(finding.rule, finding.cause, finding.step): finding for finding in reversed(findings)}
    return sorted(unique.values(), key=lambda finding: (PRIORITY[finding.rule], finding.step, finding.ranks))
