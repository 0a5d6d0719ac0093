"""The communicators on which a plug-in of collectives is open in a draw.

Invariant: every rank of a group opens and closes at the same step, the last one opened first. What refuses to open is
asked once, and not closed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from harness.substrate.communicator import Communicator, NotOwned
from harness.system.boundary import call_system
from harness.system.collectives import REFUSALS, CollectiveContext, Unsupported
from harness.system.shape import LIFE
from harness.trace.events import Returned

Refusal = type[NotOwned] | type[Unsupported]


class Opened:
    """One plug-in in one draw on one rank."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._open: dict[Communicator, Refusal | None] = {}
        """In the order in which they were opened, with what each was refused by."""
        # attributes may be code of the plug-in's own
        self._methods = call_system("collectives", lambda: {name for name in LIFE if hasattr(kernels, name)})

    @property
    def is_asked(self) -> bool:
        """Whether it has a method for that."""
        return bool(self._methods)

    def open(self, communicator: Communicator) -> Refusal | None:
        """A call is about to go to the plug-in. Returns what it refuses all calls there by. Collective over the group
        at the first call."""
        if communicator not in self._open:
            if communicator.device.is_capturing:  # its warm-up did not come to the call
                return NotOwned
            self._open[communicator] = None
            with communicator.device.landed():
                try:
                    self._call("open", communicator, *REFUSALS)
                except REFUSALS as refusal:  # kept without its traceback, which would keep tensors alive
                    self._open[communicator] = Unsupported if isinstance(refusal, Unsupported) else NotOwned
        return self._open[communicator]

    def close(self, communicators: Collection[Communicator] | None = None) -> None:
        """Some of them, or all, are about to go. Collective over the group of each."""
        for communicator in [each for each in reversed(self._open) if communicators is None or each in communicators]:
            if self._open.pop(communicator) is None:
                self._call("close", communicator)

    def _call(self, name: str, communicator: Communicator, *handled: type[Exception]) -> None:
        if name not in self._methods:
            return
        context = CollectiveContext(communicator)
        communicator.entered(name)
        try:
            call_system("collectives", lambda: getattr(self._kernels, name)(context), *handled)
        except handled:
            communicator.recorder.record(Returned(name, communicator.ident))
            raise
        communicator.recorder.record(Returned(name, communicator.ident))
