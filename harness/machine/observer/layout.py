"""The bytes of a fact, as `observer.h` lays them out, and the fact that they mean."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from harness.machine.observer import facts
from harness.machine.observer.facts import Fact

FACT = struct.Struct("<IiIiIIiiiiiiQQQQQQQQQ")
HOWS = (
    *("init", "config", "scalable", "all", "split", "shrink", "grow", "unknown"),
    *("finalize", "destroy", "abort", "revoke"),
)
FUNCTIONS = (
    *("AllGather", "ReduceScatter", "AllReduce", "AlltoAll", "Broadcast"),
    *("Reduce", "Send", "Recv", "Gather", "Scatter"),
)
DTYPES = (
    *("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "bfloat16"),
    *("float8_e4m3fn", "float8_e5m2"),
)
"""By NCCL's numbers, in torch's words."""
OPS = ("sum", "prod", "max", "min", "avg")
MODES = ("global", "thread-local", "relaxed")
"""Of captures, by CUDA's numbers."""


class Fields(NamedTuple):
    """`struct fact` of `observer.h`. What a kind has no use for is 0."""

    kind: int
    result: int
    communicator: int
    parent: int
    site: int
    name: int
    word: int
    flags: int
    rank: int
    size: int
    colour: int
    key: int
    address: int
    other: int
    amount: int
    handle: int
    caller: int
    calls: int
    symmetric: int
    legacy: int
    copy: int


def meant(fields: Fields, text: Callable[[int], str], identity: Callable[[int], int] = int) -> Fact:
    """The fact that `fields` mean. `text` gives a text by its number, `identity` the identity that one stands for.

    Raises `KeyError` or `IndexError` for numbers that mean nothing.
    """
    return MEANINGS[fields.kind](fields, text(fields.site), text(fields.name), identity)


def word(words: tuple[str, ...], number: int) -> str:
    """A word by NCCL's number; an operation that the program made is `custom`, none is empty."""
    if number < 0:
        return ""
    return words[number] if number < len(words) else "custom" if words is OPS else str(number)


_Meaning = Callable[[Fields, str, str, Callable[[int], int]], Fact]


def _created(of: Fields, site: str, name: str, identity: Callable[[int], int]) -> Fact:
    return facts.CommCreated(
        comm=of.communicator,
        identity=identity(of.other),
        size=of.size,
        rank=of.rank,
        how=HOWS[of.word],
        name=name,
        parent=of.parent,
        colour=of.colour,
        key=of.key,
        result=of.result,
        site=site,
    )


def _call(of: Fields, site: str, *_: object) -> Fact:
    return facts.Call(
        comm=of.communicator,
        function=FUNCTIONS[of.word],
        dtype=word(DTYPES, of.flags),
        op=word(OPS, of.size),
        root=of.rank,
        count=of.amount,
        send=of.address,
        receive=of.other,
        stream=of.handle,
        site=site,
        calls=of.calls,
        symmetric=of.symmetric,
        legacy=of.legacy,
        copy=of.copy,
        result=of.result,
        captured=bool(of.colour),
    )


def _failed(of: Fields, site: str, *_: object) -> Fact:
    return facts.AllocationFailed(size=of.amount, result=of.result, denied=bool(of.word), site=site)


def _register_entered(of: Fields, site: str, *_: object) -> Fact:
    return facts.RegisterEntered(**_registration(of), site=site, thread=of.key)


def _registered(of: Fields, site: str, *_: object) -> Fact:
    return facts.Registered(**_registration(of), window=of.other, site=site)


def _register_failed(of: Fields, site: str, *_: object) -> Fact:
    return facts.RegisterFailed(**_registration(of), result=of.result, site=site)


def _registration(of: Fields) -> dict[str, int]:
    return {"comm": of.communicator, "address": of.address, "size": of.amount, "flags": of.flags}


def _locally_registered(of: Fields, site: str, *_: object) -> Fact:
    return facts.LocallyRegistered(comm=of.communicator, address=of.address, size=of.amount, site=site)


def _deregistered(of: Fields, site: str, *_: object) -> Fact:
    return facts.Deregistered(comm=of.communicator, window=of.other, result=of.result, site=site)


def _capture_began(of: Fields, site: str, *_: object) -> Fact:
    return facts.CaptureBegan(stream=of.address, thread=of.flags, mode=word(MODES, of.word), site=site)


def _graph(of: Fields, site: str, name: str, _: object) -> Fact:
    return facts.Graph(
        capture=of.key,
        began=of.other,
        ended=of.amount,
        launches=of.calls,
        first=of.symmetric,
        last=of.legacy,
        is_for_window=bool(of.word),
        site=site,
        launched_at=name,
    )


def _held(of: Fields, _: str, name: str, __: object) -> Fact:
    memory = {"address": of.address, "size": of.amount}
    return facts.Held(**memory, since=of.other, until=of.handle, margin=of.caller, site=name)


MEANINGS: dict[int, _Meaning] = {
    1: _created,
    2: lambda of, *_: facts.CommGone(comm=of.communicator, how=HOWS[of.word], result=of.result),
    3: lambda of, site, *_: facts.Allocated(address=of.address, size=of.amount, site=site),
    4: _failed,
    5: lambda of, site, *_: facts.Freed(address=of.address, is_held=bool(of.word), site=site),
    6: _register_entered,
    7: _registered,
    8: _register_failed,
    9: _deregistered,
    10: lambda of, *_: facts.GroupStarted(thread=of.flags),
    11: lambda of, *_: facts.GroupEnded(result=of.result, thread=of.flags),
    12: _call,
    13: lambda of, site, name, *_: facts.Unobserved(path=name, calls=of.handle),
    14: _capture_began,
    15: lambda of, *_: facts.CaptureEnded(stream=of.address, thread=of.flags, result=of.result),
    16: _graph,
    17: lambda of, _, name, __: facts.History(state=name, since=of.other, rate=of.amount),
    18: _held,
    19: _locally_registered,
}
"""By the numbers of `enum kind`."""
