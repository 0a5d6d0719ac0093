"""One watched run as plain data: what every rank of a program saw that knows nothing of the harness.

Invariant: a recording that exists holds together. It has one trace and one fate for each rank of its topology, and a
place for each step. Like a draw, it holds what was seen and no judgement.
"""

from __future__ import annotations

import msgspec

from harness.errors import UsageError
from harness.scenario.topology import Topology
from harness.trace.draw import Fate, Version
from harness.trace.events import Began
from harness.trace.trace import Trace


class Recording(msgspec.Struct, frozen=True):
    """One watched run: who its ranks were, what each of them saw, and how it ended.

    `topology` is explicit. Each family names communicators, and `shares` is `{}`: communicators over the same ranks
    are then numbered in the order of the families, as `CommCreated.number` has to be. A communicator that comes over
    the same ranks after the one before it is gone has the number of that one, and the next generation.

    `traces` has one trace a rank, of the same events as a draw's. What differs:

    - A step is a number into `places`. It is one call of one communicator, with the same number on each of its ranks,
      or what ranks did between two calls. On every rank the numbers grow.
    - An operand has no buffer's name. `Operand.buffer` says where it lies, such as `segment 3 + 4096`.
    - `Called.meant` names the operands that lie in a live segment of `ncclMemAlloc`, or in a live window of any
      communicator. No other is meant for a window.
    - A send is no step of both its ranks. Each end has a step of its own, and `PointToPoint` says which ends meet.
    - `Entered.capture` says in which capture a registration was made, of the thread that made it.
    - A segment has no pool (`""`). A window over memory that is in no known segment has segment -1.
    - A call that the rank has not returned from ends its trace with `Called` and `Entered`, and has no `Ran`.
    - A rank whose process ended by itself ends its trace with `Finished`.

    A rank that was not watched has an empty trace, and the fate `stopped`.

    Raises `UsageError` for a recording that does not hold together.
    """

    topology: Topology
    traces: tuple[Trace, ...]
    fates: tuple[Fate, ...]
    places: tuple[str, ...]
    """The text of each step, as it follows `at`: `all_gather 14 (model.py:31 forward)`."""
    seconds: float = 0.0
    """How long the run was watched; 0 if that is not known."""
    nccl: Version | None = None
    """The NCCL that ran it; None if that is not known. Then the rules of the newest known one apply."""
    hosts: tuple[str, ...] = ()
    """The host of each rank; empty if that is not known."""

    def __post_init__(self) -> None:
        ranks = [*range(self.topology.world)]
        for what, found in (("traces", self.traces), ("fates", self.fates)):
            if [each.rank for each in found] != ranks:
                raise UsageError(f"a recording of {len(ranks)} ranks needs one of its {what} for each, in rank order")
        if self.hosts and len(self.hosts) != len(ranks):
            raise UsageError(f"a recording of {len(ranks)} ranks needs one of its hosts for each, in rank order")
        for trace in self.traces:
            self._check_steps(trace)

    def _check_steps(self, trace: Trace) -> None:
        last = -1
        for step in (event.step for event in trace.events if isinstance(event, Began)):
            if step < last or not 0 <= step < len(self.places):
                raise UsageError(
                    f"step {step} of rank {trace.rank} comes after step {last}, of {len(self.places)} places"
                )
            last = step
