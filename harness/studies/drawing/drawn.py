"""Histograms of what is drawn: how often each operation, type, size, place and path comes up.

Invariant: every draw, step, collective and call adds one to each histogram of its unit, so that shares of different
histograms of a unit compare. The only exception is `op`, to which reductions alone add. What could come up and never
does has a count of 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, get_args

from harness.scenario.alive import Alive
from harness.scenario.bases import Op, Via
from harness.scenario.operands import ITEMSIZE
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Collective, Step
from harness.strategies.topologies import CONVENTIONAL, EXPLICIT
from harness.studies.drawing.calls import OFFSETS, PATHS, PLACES, VALUES, Call, dtype, offset, place

EXACT = 16
"""Largest number with a bar of its own; larger ones share one up to the next power of two."""
WAITS = ("at once", "in flight")
"""When the host waits for a call: before its next step, or for several together."""
ORDERS = ("rising", "falling on some ranks")
UNITS = ("draws", "steps", "collectives", "calls")
"""What is counted. A collective is a step of the program, and a call is one of its groups running it."""

Histogram = Counter[Any]
"""Counts by name, or by the least number of a bar."""


class Drawn:
    """An account of scenarios. Give it each one with `take`."""

    def __init__(self, scenarios: Iterable[Scenario] = ()) -> None:
        self.totals = Counter(dict.fromkeys(UNITS, 0))
        self.layouts: set[Any] = set()
        self.groups: set[Any] = set()
        self.by: dict[str, dict[str, Histogram]] = {
            unit: {name: Counter(dict.fromkeys(known, 0)) for name, known in _KNOWN[unit].items()} for unit in UNITS
        }
        """By unit and name."""
        for scenario in scenarios:
            self.take(scenario)

    def take(self, scenario: Scenario) -> None:
        """Count one draw."""
        topology = scenario.topology
        self.layouts.add(topology.key)
        self.groups.update(scenario.groups)
        alive, most, collectives = Alive(topology), 0, 0
        for step in scenario.steps:
            self._add("steps", kind=step.kind)
            if isinstance(step, Collective):
                self._collective(step, scenario, alive)
                collectives += 1
            alive.take(step)
            most = max(most, len(alive.buffers))
        self._add(
            "draws",
            convention=topology.convention,
            ranks=topology.world,
            nodes=len(set(topology.node_of)),
            steps=bar(len(scenario.steps)),
            collectives=bar(collectives),
            live_buffers=bar(most),
            addresses=ORDERS[bool(scenario.falls_on)],
            streams=len({step.stream for step in scenario.steps if isinstance(step, Allocate | Collective)}),
        )

    def _collective(self, step: Collective, scenario: Scenario, alive: Alive) -> None:
        acting = scenario.acting(step)
        reduction = {} if step.op is None else {"op": step.op}
        self._add(
            "collectives",
            operation=step.kind,
            via=step.via,
            dtype=dtype(step, alive),
            place=place(step, alive),
            offset=offset(step.whole),
            groups=bar(len(acting)),
            live_buffers=bar(len(alive.buffers)),
            waited_for=WAITS[alive.flight is not None],
            **reduction,
        )
        for group in acting:
            call = Call(step, group, alive)
            self._add(
                "calls",
                width=call.width,
                bytes=size(call.bytes),
                counts=call.counts,
                values=call.values,
                symmetric_path=call.path,
            )

    def _add(self, unit: str, **what: str | int) -> None:
        self.totals[unit] += 1
        for name, value in what.items():
            self.by[unit][name][value] += 1


def bar(number: int) -> int:
    """The least number of the bar that a number adds to: its own, or above `EXACT` one above a power of two."""
    return number if number <= EXACT else (1 << (number - 1).bit_length() - 1) + 1


def size(count: int) -> int:
    """The least number of bytes of the bar: 0, or a power of two."""
    return 1 << count.bit_length() - 1 if count else 0


def _kinds(union: Any) -> tuple[str, ...]:
    return tuple(str(kind.__struct_config__.tag) for kind in get_args(union))


_KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "draws": {
        "convention": (*CONVENTIONAL, EXPLICIT),
        "addresses": ORDERS,
        **dict.fromkeys(("ranks", "nodes", "steps", "collectives", "live_buffers", "streams"), ()),
    },
    "steps": {"kind": _kinds(Step)},
    "collectives": {
        "operation": _kinds(Collective),
        "via": get_args(Via),
        "op": get_args(Op),
        "dtype": tuple(ITEMSIZE),
        "place": PLACES,
        "offset": OFFSETS,
        "groups": (),
        "live_buffers": (),
        "waited_for": WAITS,
    },
    "calls": {"width": (), "bytes": (), "counts": ("equal", "unequal"), "values": VALUES, "symmetric_path": PATHS},
}
"""The histograms of each unit, with the names that could come up; those of numbers have none."""
