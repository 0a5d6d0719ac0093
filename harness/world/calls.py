"""A function that every rank calls, as the parent waits for it: what each returned, or the first thing that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.ipc.messages import Broken, Failed, Refused, Reply, Returned
from harness.world.rank_process import RankProcess, first_replies

DEADLINE = 300.0


def returned(ranks: Sequence[RankProcess], function: str, clock: Clock = CLOCK) -> list[Any]:
    """Every rank's reply to a call, in rank order. Raises `MachineError` where one has none within the deadline, and
    for the first thing that went wrong."""
    waiting = dict(enumerate(ranks))
    values: dict[int, Any] = {}
    end = clock.now() + DEADLINE
    while waiting:
        heard = first_replies(waiting, end - clock.now(), clock)
        if not heard:
            raise MachineError(f"rank {min(waiting)} did not return from {function}")
        for index, reply in heard.items():
            values[index] = _value(index, waiting.pop(index), reply, function)
    return [values[index] for index in range(len(ranks))]


def _value(index: int, rank: RankProcess, reply: Reply | None, function: str) -> Any:
    """What a rank returned from a call. Raises `MachineError` where it did not."""
    match reply:
        case None:
            raise MachineError(f"rank {index} died in {function}: {rank.printed()}")
        case Returned(value):
            return value
        case Failed(error) | Refused(error) | Broken(error):
            raise MachineError(f"{function} failed on rank {index}: {error}")
    raise MachineError(f"rank {index} answered a call of {function} with {type(reply).__name__}")
