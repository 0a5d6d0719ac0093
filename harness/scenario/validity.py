"""Which programs exist: the check behind every `Scenario`.

Invariant: what passes here can be executed on every rank without looking at another rank's state;
what does not is refused with the number of the step, its kind and the reason.

The rules of each kind of step are one function here, or in `harness.scenario.valid_calls` for collectives. A kind
without one may run wherever its fields hold.
"""

from __future__ import annotations

from functools import singledispatch

import msgspec

from harness.errors import not_one_of
from harness.scenario.alive import Alive, Graph
from harness.scenario.bases import BaseStep, CollectiveStep
from harness.scenario.layouts.groups import ids_of
from harness.scenario.operands import GUARD, ITEMSIZE
from harness.scenario.refusal import Refused, check_acting, counts, live_buffer
from harness.scenario.steps import (
    STREAMS,
    Allocate,
    Ballast,
    Capture,
    Collective,
    EndCapture,
    InFlight,
    Prepare,
    ProgramError,
    Release,
    Replay,
    Stall,
    Steady,
    Step,
    Straggle,
)
from harness.scenario.topology import Topology
from harness.scenario.valid_calls import check_call

CAPTURED = Allocate | Release | Collective | EndCapture
_KINDS = "allocate, release, collectives and end_capture"
FLYING = Allocate | Release | Collective | Straggle | Stall | InFlight
MAX_BYTES = 64 << 20
MAX_STRAGGLE_MS = 2000


def check(topology: Topology, steps: tuple[Step, ...]) -> None:
    """Raise `ProgramError` for the first step that cannot run, naming it and the reason."""
    alive = Alive(topology)
    for index, step in enumerate(steps):
        try:
            _check_fields(step, alive)
            _check_kind(step, alive)
        except Refused as refused:
            raise ProgramError(f"step {index} ({step.kind}): {refused}") from None
        alive.take(step)
    if alive.open is not None:
        raise ProgramError(f"graph {alive.open.name!r} is prepared or captured, and its capture never ends")
    for index, step in enumerate(steps):
        if isinstance(step, Steady) and step.begins:
            _check_steady(steps, index)


def _check_steady(steps: tuple[Step, ...], index: int) -> None:
    """Refuse steady state at `index` in which pools might have to grow."""
    ends = (at for at in range(index + 1, len(steps)) if isinstance(steps[at], Steady))
    stretch = steps[index + 1 : next(ends, len(steps))]
    if not _is_repetition(steps, index, len(stretch)):
        raise ProgramError(f"step {index} (steady): what follows does not repeat the two stretches before it")
    kept = {step.allocates for step in stretch} - {step.drops for step in stretch}
    if named := sorted(filter(None, kept)):
        raise ProgramError(f"step {index} (steady): what follows keeps {named[0]!r}, for which a pool may have to grow")


def _is_repetition(steps: tuple[Step, ...], index: int, size: int) -> bool:
    """Whether the steps in steady state from `index` on are those before it, twice, but for names of buffers."""
    starts = index - 2 * size, index - size, index + 1
    return size > 0 and starts[0] >= 0 and len({_nameless(steps[start : start + size]) for start in starts}) == 1


def _nameless(steps: tuple[Step, ...]) -> bytes:
    """Steps with the buffers that they allocate named by their order."""
    text = msgspec.json.encode(steps)
    for number, name in enumerate(step.buffer for step in steps if isinstance(step, Allocate | Ballast)):
        text = text.replace(msgspec.json.encode(name), b'"#%d"' % number)
    return text


def _check_fields(step: Step, alive: Alive) -> None:
    """The rules that hold for every kind: fields of their types, and a family, a stream and a rank that exist."""
    try:
        msgspec.convert(msgspec.to_builtins(step), type(step))
    except msgspec.ValidationError as error:
        raise Refused(str(error)) from None
    if alive.capturing is not None and not isinstance(step, CAPTURED):
        raise Refused(f"graph {alive.capturing.name!r} is being captured, which allows only {_KINDS}")
    if alive.flight is not None and not isinstance(step, FLYING):
        raise Refused("calls are in flight, which allows only allocate, release, collectives, straggle and stall")
    families = alive.topology.families
    for name in (step.family, *step.other_families):
        if name is not None and name not in families:
            raise Refused(str(not_one_of("family", name, families)))
    if not 0 <= step.stream < STREAMS:
        raise Refused(f"stream {step.stream} is not one of the {STREAMS} that programs may use")
    if step.stream and alive.open is not None:
        # a freed block stays with its stream: after a warm-up on another one the pool grows in the capture (PyTorch)
        raise Refused(f"graph {alive.open.name!r} is prepared or captured on a stream of its own, not on {step.stream}")
    if step.rank is not None and not 0 <= step.rank < alive.topology.world:
        raise Refused(f"rank {step.rank} is not in a world of {alive.topology.world}")


@singledispatch
def _check_kind(step: BaseStep, alive: Alive) -> None:
    """The rules of one kind. Kinds that are not registered have none."""


@_check_kind.register
def _allocate(step: Allocate, alive: Alive) -> None:
    acting = check_acting(step, alive.topology)
    elements = counts("elements", step.elements, alive.topology, acting)
    if step.site == "global":
        for group, _ in acting:
            # the site of a global buffer takes one size, as the engine's does (`harness.system.sites`)
            if len({elements[rank] for rank in group}) > 1:
                raise Refused(f"ranks of {step.family}{list(group)} differ in elements of a global buffer")
    lead = counts("lead", step.lead, alive.topology, acting)
    if step.registered is None and any(lead.values()):
        raise Refused("lead goes with registered and with nothing else")
    if step.registered is not None:
        _check_registered(step, alive)
    size = max(elements[rank] + lead[rank] for rank in elements) + GUARD
    _check_new(step.buffer, size * ITEMSIZE[step.dtype], alive)


def _check_registered(step: Allocate, alive: Alive) -> None:
    lists = len(step.registered or ())
    if lists not in (1, alive.topology.world):
        raise Refused(f"registered has {lists} lists, and needs one, or one for each of {alive.topology.world} ranks")
    if step.role != "window" or step.site != "local":
        raise Refused("registered goes with role window and site local alone")
    if alive.open is not None:
        raise Refused(f"graph {alive.open.name!r} is prepared or captured, and registered is for memory outside graphs")


@_check_kind.register
def _ballast(step: Ballast, alive: Alive) -> None:
    acting = check_acting(step, alive.topology)
    if not ids_of(acting, step.rank):
        raise Refused(f"rank {step.rank} is in no group of {step.family} that acts")
    _check_new(step.buffer, step.size, alive)


def _check_new(name: str, size: int, alive: Alive) -> None:
    # a name is used once, so that findings and traces can name a buffer without a step
    if name in alive.names:
        raise Refused(f"buffer {name!r} was allocated before")
    if not 0 < size <= MAX_BYTES:
        raise Refused(f"buffer {name!r} of {size} bytes is not between 1 and {MAX_BYTES}")


@_check_kind.register
def _release(step: Release, alive: Alive) -> None:
    live_buffer(step.buffer, alive)
    if alive.capturing is not None and step.buffer not in alive.capturing.own:
        raise Refused(f"{step.buffer!r} was allocated before the capture of graph {alive.capturing.name!r} began")


@_check_kind.register
def _collective(step: CollectiveStep, alive: Alive) -> None:
    check_call(step, alive)


@_check_kind.register
def _in_flight(step: InFlight, alive: Alive) -> None:
    if step.begins and alive.flight is not None:
        raise Refused("calls are in flight already")
    if alive.open is not None:
        raise Refused(f"graph {alive.open.name!r} is prepared or captured, which waits for every call")


@_check_kind.register(Straggle)
@_check_kind.register(Stall)
def _pause(step: Straggle | Stall, alive: Alive) -> None:
    if not 0 <= step.milliseconds <= MAX_STRAGGLE_MS:
        raise Refused(f"{step.milliseconds} ms is not between 0 and {MAX_STRAGGLE_MS}")


@_check_kind.register
def _prepare(step: Prepare, alive: Alive) -> None:
    _check_alone(step.graph, alive)
    if step.graph in alive.graphs:
        raise Refused(f"graph {step.graph!r} was prepared before")


@_check_kind.register
def _capture(step: Capture, alive: Alive) -> None:
    if alive.open is None or alive.open.name != step.graph:  # a warm-up may be left out
        _check_alone(step.graph, alive)
        if step.graph in alive.graphs:
            raise Refused(f"graph {step.graph!r} was captured before")


def _check_alone(name: str, alive: Alive) -> None:
    # all graphs are warmed up and captured on one stream
    if alive.open is not None:
        raise Refused(f"graph {alive.open.name!r} is prepared or captured; one graph at a time")


@_check_kind.register
def _end_capture(step: EndCapture, alive: Alive) -> None:
    if alive.capturing is None or alive.capturing.name != step.graph:
        raise Refused(f"graph {step.graph!r} is not being captured")


@_check_kind.register
def _replay(step: Replay, alive: Alive) -> None:
    graph = alive.graphs.get(step.graph)
    if graph is None or graph is alive.open:
        raise Refused(f"graph {step.graph!r} was not captured")
    if graph.ended_by is not None:
        raise Refused(_why_ended(graph))


def _why_ended(graph: Graph) -> str:
    if isinstance(graph.ended_by, Release):
        return f"{graph.ended_by.buffer!r}, which graph {graph.name!r} uses and did not allocate, was released"
    # NCCL waits for ever to destroy a communicator while a graph holds calls on it, so the graph goes first
    return f"communicators that graph {graph.name!r} uses were replaced"
