"""Every state that draws can reach with a right system, on either substrate: what a night may say it never saw.

Invariant: what `harness.oracle.states.reached` names of the kinds `nearly`, `group` and `size` is listed here. Of paths
those are left out on which the library stood in for another way, and of interleavings the rarest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from typing import get_args

from harness.oracle.states import calls
from harness.oracle.states.state import KINDS, State
from harness.scenario.steps import Collective

_NEARLY = {
    "freed-while-registered": ("deregistered in the step that frees", "deregistered in a step before"),
    "stale-window": ("the group had a window there before",),
    "oversized-window": ("a segment lies right behind",),
    "double-registration": (
        "again after it was deregistered",
        "one segment, two communicators",
        "an address again",
    ),
    "hot-path-growth": ("allocated in steady state", "grown in the turn before"),
    "registration-skew": (
        "some ranks register with other groups, too",
        "other registrations in between on some ranks",
        "windows of different sizes",
    ),
    "registered-in-capture": ("allocated in a capture", "registered right before"),
    "overlapping-buffers": ("side by side with a live buffer",),
    "captured-reuse": ("released before a replay", "allocated between capture and replay"),
    "null-window": ("a registration gave none",),
    "wrong-owner": (
        "another communicator has a window there, too",
        "one over equal ranks has a window there, too",
        "a communicator over equal ranks has other windows",
        "memory of the same group before",
        "memory of another group before",
    ),
    "unregistered": ("registered after the segment came",),
    "partly-registered": ("the operand ends near the end of its window",),
    "segment-mismatch": ("one of several windows", "some ranks have more segments", "some ranks have other segments"),
    "offset-mismatch": ("some ranks had other blocks in the segment",),
    "half-registered": ("both sides have windows", "neither side has a window"),
    "slow-path": ("owned and not eligible",),
    "result-overwritten": ("a result is kept over the next call",),
    "stale-peer-address": ("a kernel where the group had another window",),
    "out-of-bounds": ("the operand ends with its buffer",),
    "source-changed": ("in place",),
    "wrong-data": ("an average over no power of two",),
    "hang": ("a call after memory was refused", "a call after a window was refused"),
}
"""By rule, what was one thing short of breaking it."""
_GROUPS = (
    *(name for _, name in calls.WIDTHS),
    calls.WIDEST,
    "ranks not in rising order",
    "ranks with gaps",
    "without windows",
    "two communicators over equal ranks",
    "one group inside another",
    "two groups that overlap",
)
_SIZES = (
    *(name for _, name in calls.BUCKETS),
    calls.LARGEST,
    "uneven",
    "some ranks without bytes",
    "one element below a power of two",
    "a power of two",
    "one element above one",
    "unaligned",
)
_CALLS = ("call", "kernel")
_OF_KERNELS = ("kernel",)
"""Words of the states that need a kernel."""
_OF_GRAPHS = ("capture", "replay")
"""Words of the states that need a graph."""
_RELATIONS = ("another communicator over equal ranks", "a group inside it or around it", "a group that overlaps")


def universe(*, library: bool = True, kernels: Collection[str] | None = None, graphs: bool = True) -> tuple[State, ...]:
    """All of them, by kind. `kernels` are the operations that kernels make; None for all that can be made so. Without
    `library`, they are made by nothing else. Without `graphs`, no draw has one."""
    names = {
        "nearly": [f"{rule}: {state}" for rule, states in _NEARLY.items() for state in states],
        "path": [*_paths(library, kernels)],
        "group": [*_GROUPS],
        "size": [*_SIZES],
        "interleaving": [*_on_buffers(), *_on_communicators(), *_on_memory(), *_on_ranks()],
    }
    words = (*(() if kernels is None or kernels else _OF_KERNELS), *(() if graphs else _OF_GRAPHS))
    return tuple(State(kind, name) for kind in KINDS for name in names[kind] if not any(word in name for word in words))


def _paths(library: bool, kernels: Collection[str] | None) -> Iterator[str]:
    """The operations with the ways that they may be made, and the path that each takes where its buffers are owned."""
    for kind in get_args(Collective):
        name = kind.__struct_config__.tag
        is_made = kind.has_kernels and (kernels is None or name in kernels)
        if is_made:
            yield f"{name} kernel kernel"
        if is_made and not library:
            continue
        yield from (f"{name} library {path}" for path in ("copy", "legacy"))
        if kind.peer_operands:
            yield f"{name} library symmetric"
        if kind.has_copies:
            yield f"{name} copy-engine copy engine"


def _on_buffers() -> Iterator[str]:
    for before, after in product(("allocate", *_CALLS), (*_CALLS, "release", "recreate")):
        yield f"buffer: {before}, {after}"
    for before, after in product(("allocate", *_CALLS), (*_CALLS, "release")):
        yield f"buffer: {before} in flight, {after} in flight"
    for call in _CALLS:
        yield f"buffer: allocate captured, {call} captured"
        yield f"buffer: {call} captured, release captured"
        yield f"buffer: {call} captured, replay"
    yield from ("buffer: release captured, replay", "buffer: replay, replay", "buffer: recreate, release")


def _on_communicators() -> Iterator[str]:
    for before, after in product(("register", *_CALLS), ("register", *_CALLS, "recreate")):
        if (before, after) != ("register", "recreate"):
            yield f"communicator: {before}, {after}"
    for before, after in product(_CALLS, _CALLS):
        yield f"communicator: {before} in flight, {after} in flight"
    yield from (f"communicator: {call}, {call} captured" for call in _CALLS)
    yield from ("communicator: recreate, register", "communicator: call, deregister")


def _on_memory() -> Iterator[str]:
    for released, allocated, call in product(("", " in flight"), ("", " in flight"), _CALLS):
        yield f"memory: release{released}, allocate{allocated}, {call}{allocated}"
    for by, call in product(("", " by another group"), _CALLS):
        if by:
            yield f"memory: release, allocate{by}, {call}"
        else:
            yield f"memory: release, allocate captured, {call} captured"


def _on_ranks() -> Iterator[str]:
    return (f"rank: call, call of {relation}" for relation in _RELATIONS)
