"""The catalogue: every planted fault, what it must break, where it can be shown, and the scenarios that show it.

Invariant: a fault is a change to a pool, a site, a collective or a program, never to the harness or its oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st

from harness.errors import UsageError, did_you_mean
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    STREAMS,
    Allocate,
    Collective,
    InFlight,
    Recreate,
    Release,
    Step,
    Trim,
    of_one_size,
)
from harness.scenario.system import System
from harness.strategies.flows import flows
from harness.strategies.placements import on_nodes
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.strategies.schedules import scheduled

Strategy = st.SearchStrategy[Scenario]
POOLS, KERNELS = "harness.system.planted.pools", "harness.system.planted.kernels"
CALLS, PLACES = "harness.system.planted.calls", "harness.system.planted.places"
RESULTS, ORDER = "harness.system.planted.results", "harness.system.planted.order"
TRANSFERS = "harness.system.planted.transfers"
FAULT = "not looked for on GPUs: an access where nothing is mapped ends the process, and one elsewhere may go well"
ORDERS = "not looked for on GPUs: there only luck shows an order that is missing"
SPINS = "not looked for on GPUs: where ranks share one, they meet on the host, and no barrier runs on the device"


class Fault(msgspec.Struct, frozen=True):
    """A planted fault: the rules of which one is named first in a draw that shows it, and its scenarios."""

    id: str
    name: str
    rules: tuple[str, ...]
    """A second one is as right as the first: F01 where the group that sites name spans nodes, so that no buffer has a
    window; F05 where the allocator chooses among equal blocks by address, as PyTorch does up to 2.12, or where buffers
    of another group left one rank a segment more to register; F08 where the rank that was refused memory is waited for
    without a registration; F20 where a buffer of another size came before; F31 where the memory had a window of the
    communicator that was re-created before, or every rank of a group was refused; K12 where a peer was through its
    replays before this rank looked at its flags, so that its stores came too early and in order; K24 where the
    buffer of the result was released before the write landed; K26 where a rank of the other group has no operand of
    the call there."""
    draws: Callable[[int], Strategy]
    """Of a largest world."""
    not_on: dict[str, str] = {}
    """Substrates that cannot show it, and why."""


def _free(pool: str = "deferred", kernel: str | None = None, *hazards: str) -> Callable[[int], Strategy]:
    """Free programs. With a kernel, every collective that kernels can run goes through it."""
    return lambda world: scenarios(world, **_under_test(pool, kernel), hazards=hazards)  # type: ignore[arg-type]


def _ordered(kernel: str, **options: Any) -> Callable[[int], Strategy]:
    """Free programs by schedules."""
    return lambda world: scheduled(scenarios(world, **_under_test("deferred", kernel), **options))


def _under_test(pool: str, kernel: str | None) -> dict[str, Any]:
    return {
        "system": System(_named(POOLS, pool), _named(KERNELS, kernel or "triton")),
        "via": "kernel" if kernel else "library",
        "falling": False,  # most of these pools rest on the order of addresses, which would show first
    }


def _named(module: str, name: str) -> str:
    """The system of that name: built in, or a class of `module`."""
    return f"{module}:{name}" if name[0].isupper() else name


def _twice(pool: str, kernel: str) -> Callable[[int], Strategy]:
    """Free programs, each of which runs again on new communicators when its buffers are gone."""
    return lambda world: _free(pool, kernel)(world).map(_repeated)


def _repeated(drawn: Scenario) -> Scenario:
    released = {step.buffer for step in drawn.steps if isinstance(step, Release)}
    flights = [step.begins for step in drawn.steps if isinstance(step, InFlight)]
    landing = (InFlight(begins=False),) * (flights[-1:] == [True])
    ends = [Release(buffer) for buffer in drawn.allocations if buffer not in released]
    anew = [Recreate(family) for family in drawn.families]
    steps = (*drawn.steps, *landing, *ends, *anew, *map(_renamed, drawn.steps))
    return msgspec.structs.replace(drawn, steps=steps)


def _renamed(step: Step) -> Step:
    """The step on other buffers."""
    fields = msgspec.structs.asdict(step)
    views = {name: View(f"{at.buffer}-again", at.offset) for name, at in fields.items() if isinstance(at, View)}
    named = {"buffer": f"{step.buffer}-again"} if isinstance(step, Allocate | Release) else {}
    return msgspec.structs.replace(step, **views, **named)


def _streams(pool: str) -> Callable[[int], Strategy]:
    """Free programs on several streams."""
    return lambda world: scenarios(world, **_under_test(pool, None), streams=STREAMS)


def _layers(pool: str, tokens: str = "padded", sites: str = "explicit") -> Callable[[int], Strategy]:
    """The flows around a layer."""
    system = System(_named(POOLS, pool), sites=sites)  # type: ignore[arg-type]
    return lambda world: flows(world, tokens=tokens, system=system, via="library")  # type: ignore[arg-type]


def _spmd(pool: str, kernel: str | None = None) -> Callable[[int], Strategy]:
    """Free programs of which every rank takes every step."""
    return lambda world: scenarios(world, **_under_test(pool, kernel), spmd=True)


def _alike(pool: str, kernel: str) -> Callable[[int], Strategy]:
    """The same, and every rank has buffers of the same sizes: a pool that registers with every group needs them."""
    return lambda world: _spmd(pool, kernel)(world).map(
        lambda drawn: msgspec.structs.replace(drawn, steps=of_one_size(drawn.steps))
    )


def _steady(pool: str) -> Callable[[int], Strategy]:
    """Layers that repeat until pools need not grow."""
    return lambda world: flows(world, tokens="padded", system=System(_named(POOLS, pool)), via="library", steady=True)


def _kept(pool: str) -> Callable[[int], Strategy]:
    """Free programs of which every rank takes every step, and that keep their communicators and their segments."""
    # Where ranks leave steps out, a shared pool registers with different groups on them, which hides all else.
    return lambda world: _spmd(pool)(world).map(_without_ends)


def _without_ends(drawn: Scenario) -> Scenario:
    steps = tuple(step for step in drawn.steps if not isinstance(step, Recreate | Trim))
    return msgspec.structs.replace(drawn, steps=steps)


def _graphs(pool: str) -> Callable[[int], Strategy]:
    """Free programs that capture and replay."""
    return lambda world: scenarios(world, **_under_test(pool, None), max_steps=WITH_GRAPHS, graphs=True)


def _apart(pool: str) -> Callable[[int], Strategy]:
    """Free programs on nodes of one rank each, so that no group has windows."""
    return lambda world: on_nodes(_free(pool)(world), world, world)


def _domains(pool: str) -> Callable[[int], Strategy]:
    """Free programs on nodes that are no NVLink domains: one node of several, or two nodes of one."""
    drawn = _free(pool)
    return lambda world: (
        on_nodes(drawn(world), world, 1, max(1, world // 4)) | on_nodes(drawn(world), world, 2, 2 * -(-world // 2))
    )


def _claiming(world: int) -> Strategy:
    """Free programs whose caller relies on the symmetric path in every call (F21)."""
    return scenarios(world, via="library", falling=False).map(
        lambda drawn: msgspec.structs.replace(drawn, steps=tuple(map(_claimed, drawn.steps)))
    )


def _claimed(step: Step) -> Step:
    return msgspec.structs.replace(step, claim=True) if isinstance(step, Collective) else step


FAULTS = (
    Fault("F01", "wrong-site-group", ("wrong-owner", "unregistered"), _layers("deferred", sites="implicit")),
    # where the group that allocated first spans nodes, its registration gave no window, and no group has one
    Fault("F02", "cross-group-reuse", ("wrong-owner", "unregistered"), _layers("shared-at-alloc")),
    Fault("F03", "offset-skew", ("offset-mismatch",), _free("ScratchOnOddRanks")),
    Fault("F04", "segment-skew", ("segment-mismatch",), _free("PicksByAddress")),
    Fault(
        "F05",
        "history-coupling",
        ("offset-mismatch", "segment-mismatch", "registration-skew"),
        _kept("shared-at-exit"),
    ),
    Fault("F06", "register-count-skew", ("registration-skew",), _free("RegistersAlone")),
    Fault("F07", "register-order-skew", ("registration-skew",), _spmd("OppositeOrder")),
    Fault("F08", "one-rank-oom", ("registration-skew", "hang"), _free("per-group", None, "deny")),
    Fault("F09", "hot-path-growth", ("hot-path-growth",), _steady("GivesBackWhenIdle")),
    Fault("F10", "register-in-capture", ("registered-in-capture",), _graphs("WarmsUpElsewhere")),
    Fault("F11", "captured-block-reuse", ("captured-reuse",), _graphs("OnePoolForGraphs")),
    Fault("F12", "graph-uses-eager-pool", ("captured-reuse",), _graphs("SharesWithGraphs")),
    Fault("F13", "stale-window", ("stale-window",), _free("RemembersSegments")),
    Fault("F14", "free-before-deregister", ("freed-while-registered",), _free("ForgetsToDeregister")),
    Fault("F15", "double-registration", ("double-registration",), _free("AlwaysRegisters")),
    Fault("F16", "stream-stranding", ("registered-in-capture",), _graphs("WarmsUpOnAnotherStream")),
    Fault("F17", "leak", ("leak",), _free("KeepsATensor")),
    Fault("F18", "null-window-ignored", ("null-window",), _apart("IgnoresNull")),
    Fault("F19", "lazy-communicator", ("unregistered",), _free("WaitsForTheCommunicator")),
    Fault("F20", "uneven-tokens", ("registration-skew", "offset-mismatch"), _layers("per-group", "uneven")),
    Fault("F21", "ineligible-call", ("slow-path",), _claiming),
    # a view at the far end of its buffer lies past such a window as a whole
    Fault("F22", "overrun", ("partly-registered", "unregistered"), _free("ShortWindow")),
    Fault("F23", "first-communicator-capture", ("wrong-data",), _free("deferred", "BindsToTheFirstGroup")),
    Fault("F24", "thread-local-pool", ("unregistered",), _free("OutsideThePool")),
    Fault("F25", "debug-check-lies", ("wrong-owner",), _layers("ChecksAnyGroup")),
    Fault("F26", "keyed-by-ranks", ("wrong-owner",), _free("KeyedByRanks")),
    Fault("F27", "keyed-by-family", ("wrong-owner", "registration-skew", "hang"), _free("KeyedByFamily")),
    Fault("F28", "waits-for-idle-ranks", ("hang", "registration-skew"), _free("AgreesWithTheWidest")),
    # a registration that gave no window is made again in steady state
    Fault("F29", "domain-is-not-node", ("null-window", "unregistered", "hot-path-growth"), _domains("TrustsHostNames")),
    Fault("F30", "one-rank-declines", ("registration-skew", "unregistered"), _free("DeclinesAlone")),
    Fault(
        "F31",
        "swallowed-refusal",
        ("registration-skew", "hang", "stale-window", "unregistered"),
        _free("SwallowsRefusals", None, "refuse"),
    ),
    Fault(
        "F32",
        "one-stream-for-all",
        ("result-overwritten", "wrong-data", "source-changed", "out-of-bounds"),
        _streams(f"{PLACES}:AllocatesOnOneStream"),
    ),
    Fault(
        "F33",
        "idle-rank-left-out",
        ("hang", "wrong-data"),
        _free("deferred", f"{CALLS}:LeavesIdleRanksOut"),
    ),
    Fault("F34", "own-count-for-all", ("wrong-data", "out-of-bounds"), _free("deferred", f"{CALLS}:TakesItsOwnCount")),
    Fault("F35", "remainder-of-large", ("wrong-data",), _free("deferred", f"{CALLS}:LargeWithoutRemainder")),
    Fault("F36", "extreme-from-zero", ("wrong-data",), _free("deferred", f"{CALLS}:ExtremesFromZero")),
    Fault(
        "F37",
        "counter-of-all-groups",
        ("hang", "wrong-data"),
        _ordered(f"{CALLS}:CountsEveryGroup"),
        {"nccl": SPINS},
    ),
    Fault("F38", "one-granule", ("partly-registered", "unregistered"), _free(f"{PLACES}:OneGranule")),
    Fault("F39", "one-size-class", ("unregistered",), _free(f"{PLACES}:OneSizeClass")),
    Fault("F40", "growth-in-free-programs", ("hot-path-growth",), _free("GivesBackWhenIdle")),
    Fault("K01", "lost-rank", ("wrong-data",), _free("deferred", "LosesLastPeer")),
    Fault("K02", "off-by-one-tail", ("wrong-data",), _free("deferred", "MissesTail")),
    Fault("K03", "missing-acquire", ("race", "wrong-data"), _ordered("NoFirstBarrier")),
    Fault("K04", "single-slot-barrier", ("hang",), _ordered("OneSlotBarrier"), {"nccl": SPINS}),
    Fault("K05", "low-precision-accumulate", ("wrong-data",), _free("deferred", "AddsInBfloat16")),
    Fault("K06", "group-order", ("wrong-data",), _free("deferred", "OrdersByGlobalRank")),
    Fault("K07", "out-of-bounds-write", ("out-of-bounds",), _free("deferred", "Overruns")),
    Fault("K08", "in-place-alias", ("wrong-data",), _free("deferred", "ClearsFirst")),
    Fault("K09", "no-last-barrier", ("race",), _ordered(f"{ORDER}:NoLastBarrier"), {"nccl": ORDERS}),
    Fault("K10", "one-parity-slot", ("hang",), _ordered(f"{ORDER}:OneParitySlot"), {"nccl": SPINS}),
    Fault("K11", "shared-flags", ("race",), _ordered(f"{ORDER}:SharesFlags"), {"nccl": ORDERS}),
    Fault(
        "K12",
        "epoch-in-a-graph",
        ("race", "wrong-data", "out-of-bounds"),
        _ordered(f"{ORDER}:BakesEpoch", max_steps=WITH_GRAPHS, graphs=True),
        {"nccl": ORDERS},
    ),
    Fault("K13", "threshold-off-by-one", ("wrong-data",), _free("deferred", f"{TRANSFERS}:OffByOne")),
    Fault("K14", "index-of-32-bits", ("wrong-data",), _free("deferred", f"{TRANSFERS}:IndexOf32Bits")),
    Fault("K15", "pads-assumed-zero", ("race",), _ordered(f"{ORDER}:AssumesZeroPads"), {"nccl": ORDERS}),
    Fault("K16", "relaxed-release", ("race",), _ordered(f"{ORDER}:RelaxedSignals"), {"nccl": ORDERS}),
    Fault(
        "K17",
        "workspace-kept",
        ("stale-peer-address",),
        _twice("deferred", f"{TRANSFERS}:KeepsItsWorkspace"),
        {"nccl": FAULT},
    ),
    Fault("K18", "taken-for-aligned", ("wrong-data",), _free("deferred", f"{TRANSFERS}:TakesForAligned")),
    Fault("K19", "fp32-added-in-bfloat16", ("wrong-data",), _free("deferred", "AddsFloatsInBfloat16")),
    Fault("K20", "truncation", ("wrong-data",), _free("deferred", "Truncates")),
    Fault("K21", "detour-through-fp16", ("wrong-data",), _free("deferred", "PassesThroughHalf")),
    Fault("K22", "lost-sign", ("wrong-data",), _free("deferred", "LosesSign")),
    Fault("K23", "scratch-returned-twice", ("result-overwritten",), _free("deferred", f"{RESULTS}:ReturnsItsScratch")),
    Fault("K24", "late-write", ("result-overwritten", "out-of-bounds"), _free("deferred", f"{RESULTS}:ClearsLate")),
    Fault(
        "K25", "stale-peer-address", ("stale-peer-address",), _twice("deferred", "KeepsPeerAddresses"), {"nccl": FAULT}
    ),
    Fault(
        "K26",
        "foreign-peer-address",
        ("wrong-data", "out-of-bounds", "result-overwritten"),
        _alike("EveryGroup", "AsksTheFirstGroup"),
    ),
    Fault(
        "K27",
        "transposed-splits",
        ("wrong-data", "out-of-bounds", "result-overwritten"),
        _free("deferred", f"{CALLS}:TransposesSplits"),
    ),
)


def select(ids: Iterable[str]) -> list[Fault]:
    """The faults of those ids or names, one or several with commas between, or all. Raises `UsageError` for an unknown
    one."""
    known = {fault.id: fault for fault in FAULTS} | {fault.name: fault for fault in FAULTS}
    for ident in (wanted := [ident for listed in ids for ident in listed.split(",")]):
        if ident not in known:
            every = ", ".join(fault.id for fault in FAULTS)
            raise UsageError(f"fault {ident!r} is neither a name nor one of {every}{did_you_mean(ident, known)}")
    chosen = {known[ident].id: known[ident] for ident in wanted}
    return [*chosen.values()] or list(FAULTS)
