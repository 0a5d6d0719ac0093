"""Leases: which GPUs, and how many of their seats, a process that runs tests has to itself.

Invariant: a process holds nothing while it waits, and waits for a bounded time. A request that can never be
granted is refused at once, with the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import msgspec

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.machine.seats import RANKS_PER_GPU, Seats, described, turn
from harness.text import counted

Got = TypeVar("Got")

POLL = 0.1
"""Seconds between two looks at seats that are taken."""


class Share(msgspec.Struct, frozen=True):
    """What one worker leases: so many GPUs, and on each of them so many seats."""

    gpus: int
    seats: int = RANKS_PER_GPU

    @property
    def is_whole(self) -> bool:
        """Whether the GPUs are the worker's alone."""
        return self.seats == RANKS_PER_GPU

    def __str__(self) -> str:
        if self.is_whole:
            return counted(self.gpus, "whole GPU")
        return f"{self.seats} of {RANKS_PER_GPU} seats of one GPU"


class Patience(msgspec.Struct, frozen=True):
    """How long to wait for a lease. `show` gets one line when the wait begins."""

    seconds: float
    show: Callable[[str], None]
    clock: Clock = CLOCK


class Lease:
    """GPUs by UUID, in the order they were given, with seats on each. `close` gives them back; may be called twice."""

    def __init__(self, gpus: Sequence[str], seats: int, held: ExitStack) -> None:
        self.gpus, self.seats = tuple(gpus), seats
        self._held = held

    def __str__(self) -> str:
        return ", ".join(f"{gpu} ({self.seats} of {RANKS_PER_GPU} seats)" for gpu in self.gpus)

    def close(self) -> None:
        self._held.close()


def share(world: int, workers: int, visible: int) -> Share:
    """What each of `workers` processes leases for `world` ranks where `visible` GPUs are. Raises `MachineError`
    where not all of them can have that at one time; a run waits for its last worker before its first test."""
    if visible >= workers:
        each = min(world, visible // workers)
        if world > each * RANKS_PER_GPU:
            raise MachineError(
                f"a world of {world} ranks needs {world} seats; with {counted(workers, 'worker')} on "
                f"{counted(visible, 'GPU')} each gets {counted(each, 'GPU')}, "
                f"and {each} × {RANKS_PER_GPU} = {each * RANKS_PER_GPU} seats"
            )
        return Share(each)
    room = RANKS_PER_GPU // world
    if workers > room * visible:
        raise MachineError(
            f"{workers} workers do not fit on {counted(visible, 'GPU')} of {RANKS_PER_GPU} seats: the limit is "
            f"{visible} × {room} = {counted(visible * room, 'world')} of {counted(world, 'rank')}; "
            "start fewer workers (-n)"
        )
    return Share(1, world)


def announcement(workers: int, each: Share, visible: Sequence[str]) -> str:
    """What a controller says before its workers lease."""
    return f"{counted(workers, 'worker')}, each leases {each} among {', '.join(visible)}"


def most_workers(world: int, visible: int, cores: int) -> int:
    """Workers of `-n auto`: as many as have GPUs for every rank; where GPUs are shared, as many as have seats and
    cores. At least 1, which `share` refuses if even that is too many."""
    if visible >= world:
        return visible // world
    possible = range(1, visible * RANKS_PER_GPU // world + 1)
    return max(1, min(cores, sum(_fits(world, workers, visible) for workers in possible)))


def _fits(world: int, workers: int, visible: int) -> bool:
    try:
        share(world, workers, visible)
    except MachineError:
        return False
    return True


def lease(wanted: Share, gpus: Sequence[str], number: int, patience: Patience) -> Lease:
    """Seats for worker `number` on some of these GPUs. Local. Waits; raises `MachineError` when time is up.

    Workers that share GPUs spread over them, sorted by UUID; one with room is taken where the first choice has none.
    """
    order = sorted(gpus)
    if not wanted.is_whole:
        first = number % len(order)
        order = order[first:] + order[:first]
    seats = Seats()

    def attempt() -> Lease | None:
        taken: dict[str, ExitStack] = {}
        with ExitStack() as held:
            for gpu in order:
                if (some := seats.take_any(gpu, wanted.seats)) is not None:
                    taken[gpu] = held.enter_context(some)
                if len(taken) == wanted.gpus:
                    return Lease([gpu for gpu in gpus if gpu in taken], wanted.seats, held.pop_all())
        return None

    return _wait(attempt, seats, f"{wanted} among {', '.join(sorted(gpus))}", gpus, patience)


def take_turn(gpus: Sequence[str], patience: Patience) -> ExitStack:
    """The turn of a run whose workers are about to lease: no other such run gets seats of these GPUs in between.
    Two runs that each had half of their workers would wait for one another. Local. Waits; raises `MachineError`."""
    seats = Seats()
    names = [turn(gpu) for gpu in gpus]
    what = f"the workers of another run to have their seats on {', '.join(sorted(gpus))}"
    return _wait(lambda: seats.take(names), seats, what, gpus, patience)


def _wait(attempt: Callable[[], Got | None], seats: Seats, what: str, gpus: Sequence[str], patience: Patience) -> Got:
    """What an attempt gives, once it gives something."""
    clock = patience.clock
    end = clock.now() + patience.seconds
    is_shown = False
    while True:
        with seats.alone() as alone:
            got = attempt() if alone else None
        if got is not None:
            return got
        left = end - clock.now()
        held_by = _held_by(seats.holders(gpus) if alone else seats.at_gate())
        if left <= 0:
            raise MachineError(f"waited {patience.seconds:g} s in vain for {what}{held_by}")
        if not is_shown:
            patience.show(f"waiting up to {patience.seconds:g} s for {what}{held_by}")
            is_shown = True
        clock.sleep(min(POLL, left))  # flock cannot wait with a limit, and seats are many files


def _held_by(pids: Sequence[int]) -> str:
    if not pids:
        return ""
    more = f" and {len(pids) - 3} more" * (len(pids) > 3)
    return f", held by {', '.join(described(pid) for pid in pids[:3])}{more}"
