"""What a pool policy does with NCCL by itself, as the observer sees it, in the events of the harness's own pools.

Invariant: an event says what NCCL was asked for and what it gave, with numbers of the draw's recorder. What runs here
is called out of NCCL's calls, where nothing may be raised: an error waits for `raise_pending`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Protocol

from harness.errors import UsageError
from harness.machine.observer import facts
from harness.substrate.communicator import Communicator, RegistrationError
from harness.substrate.denial import Denial, Refusal
from harness.substrate.nccl.fault import NCCL_ERRORS
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment, Window

NAME = "observed"
"""The pool that segments of the policy's own are said to be of."""


class Control(Protocol):
    """What is needed of the observer beside its facts."""

    def address(self, comm: int) -> int | None:
        """The raw `ncclComm_t` of a communicator that facts name by number; None if it is gone."""

    def refuse(self, address: int | None) -> None:
        """Let registrations of the memory at `address` fail on this rank, and no others."""


class Overheard:
    """One rank's translation of facts. `pool` takes the segments, and `communicators` gives those that the draw has
    now. `window_of` makes of NCCL's number of a window what the substrate takes for a handle."""

    def __init__(
        self,
        pool: Pool,
        denial: Denial,
        refusal: Refusal,
        control: Control,
        communicators: Callable[[], Iterable[Communicator]],
        window_of: Callable[[int], object],
    ) -> None:
        self._pool, self._denial, self._refusal, self._control = pool, denial, refusal, control
        self._communicators, self._window_of = communicators, window_of
        self._known: dict[int, Communicator] = {}
        """The draw's communicators by the observer's number."""
        self._windows: dict[tuple[int, int], Window] = {}
        """By that number, and NCCL's of the window."""
        self._waiting: tuple[facts.RegisterEntered, ExitStack] | None = None
        """The registration for which this rank waits for its peers. Of several in a group of calls, the first."""
        self._error: BaseException | None = None

    def hear(self, fact: facts.Fact) -> None:
        """Record what a fact stands for. Called by the thread that calls NCCL, inside that call. Never raises."""
        try:
            self._record(fact)
        except BaseException as error:
            self._error = self._error or error

    def raise_pending(self) -> None:
        """Raise what went wrong in `hear`, if anything did: `UsageError` for memory or a communicator that is none of
        the draw's."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _record(self, fact: facts.Fact) -> None:
        match fact:
            case facts.Allocated():
                self._pool.allocated(fact.address, fact.size)
            case facts.AllocationFailed():
                self._failed_to_allocate(fact)
            case facts.Freed():
                self._freed(fact.address)
            case facts.RegisterEntered():
                self._entered(fact)
            case facts.Registered():
                self._registered(fact)
            case facts.RegisterFailed():
                self._failed(fact)
            case facts.Deregistered():
                self._deregistered(fact)
            case facts.CommGone(how="destroy" | "abort"):
                self._gone(fact.comm)
            case _:
                pass

    def _failed_to_allocate(self, fact: facts.AllocationFailed) -> None:
        self._pool.refusals += 1
        if fact.denied:
            self._denial.refuses(self._pool.name, fact.size)

    def _freed(self, address: int) -> None:
        """What is from before the draw has no segment in it."""
        if any(segment.address == address for segment in self._pool.segments):
            self._pool.freed(address)

    def _entered(self, fact: facts.RegisterEntered) -> None:
        communicator, segment = self._communicator(fact.comm), self._segment(fact.address)
        communicator.entered("register")
        self._control.refuse(fact.address if self._refusal.refuses(segment.ident) else None)
        if self._waiting is None:
            self._waiting = fact, ExitStack()
            self._waiting[1].enter_context(communicator.registering())

    def _registered(self, fact: facts.Registered) -> None:
        self._come_back(fact)
        communicator, segment = self._communicator(fact.comm), self._segment(fact.address)
        start = fact.address - segment.address
        handle = self._window_of(fact.window) if fact.window else None
        part = range(start, start + fact.size)
        window = communicator.has_registered(segment, part, bool(fact.flags & facts.SYMMETRIC), handle)
        if window is not None:
            self._windows[fact.comm, fact.window] = window

    def _failed(self, fact: facts.RegisterFailed) -> None:
        with suppress(RegistrationError):
            self._come_back(fact, RegistrationError())
        communicator, segment = self._communicator(fact.comm), self._segment(fact.address)
        name = NCCL_ERRORS[fact.result] if fact.result in range(len(NCCL_ERRORS)) else f"ncclResult {fact.result}"
        communicator.has_not_registered(segment, f"{name}: from a registration of segment {segment.ident}")

    def _come_back(self, fact: facts.Registered | facts.RegisterFailed, error: RegistrationError | None = None) -> None:
        """Note that this rank waits for a registration no more. Raises `error`, so that one that failed is not counted:
        the peers go on waiting for this rank."""
        if self._waiting is None or (fact.comm, fact.address) != (self._waiting[0].comm, self._waiting[0].address):
            return
        waiting, self._waiting = self._waiting[1], None
        with waiting:
            if error is not None:
                raise error

    def _deregistered(self, fact: facts.Deregistered) -> None:
        """A window that is from before the draw has none in it."""
        window = self._windows.pop((fact.comm, fact.window), None)
        if window is not None and window.is_valid and not fact.result:
            self._communicator(fact.comm).has_deregistered(window)

    def _gone(self, comm: int) -> None:
        communicator = self._known.pop(comm, None)
        if communicator is not None:
            communicator.destroyed()

    def _communicator(self, comm: int) -> Communicator:
        """The draw's communicator of a number. Raises `UsageError` where it is another's."""
        found = self._known.get(comm)
        if found is None:
            address = self._control.address(comm)
            found = next((each for each in self._communicators() if each.ptr == address), None)
            if found is None:
                raise UsageError(
                    f"the pool registered memory with a communicator at {_shown(address)}, which is none of the draw's "
                    "groups': use the comm_ptr of a group, or name your own by a method comm_ptr(group)"
                )
            self._known[comm] = found
        return found

    def _segment(self, address: int) -> Segment:
        """The segment at an address. Raises `UsageError` for memory that is of none."""
        found = next((segment for segment in self._pool.segments if address in segment), None)
        if found is None:
            raise UsageError(f"the pool registered memory at {address:#x}, which ncclMemAlloc did not give it")
        return found


def _shown(address: int | None) -> str:
    return "an address that is gone" if address is None else f"{address:#x}"
