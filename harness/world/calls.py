"""A function that every rank calls, as the parent waits for it: what each returned, or the first thing that failed."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.ipc.messages import Broken, Failed, Refused, Returned
from harness.world.rank_process import RankProcess

DEADLINE = 300.0


def returned(ranks: Sequence[RankProcess], function: str, clock: Clock = CLOCK) -> list[Any]:
    """Every rank's reply to a call, in rank order. Raises `MachineError` where one has none within the deadline, and
    for the first thing that went wrong."""
    waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(ranks)}
    values: dict[int, Any] = {}
    end = clock.now() + DEADLINE
    while waiting:
        ready = wait(list(waiting), timeout=max(0.0, end - clock.now()))
        if not ready:
            raise MachineError(f"rank {min(waiting.values())} did not return from {function}")
        for connection in ready:
            assert isinstance(connection, Connection)
            index = waiting.pop(connection)
            values[index] = _value(index, ranks[index], function)
    return [values[index] for index in range(len(ranks))]


def _value(index: int, rank: RankProcess, function: str) -> Any:
    """What a rank returned from a call. Raises `MachineError` where it did not."""
    try:
        reply = rank.receive()
    except (EOFError, ConnectionError):
        raise MachineError(f"rank {index} died in {function}: {rank.printed()}") from None
    match reply:
        case Returned(value):
            return value
        case Failed(error) | Refused(error) | Broken(error):
            raise MachineError(f"{function} failed on rank {index}: {error}")
    raise MachineError(f"rank {index} answered a call of {function} with {type(reply).__name__}")
