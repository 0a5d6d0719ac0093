"""Strategies for free programs and whole scenarios.

A program is drawn as a list of small independent actions (`harness.strategies.actions`), which
`harness.strategies.builder` then compiles against the topology.
"""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.scenario import Scenario, lack_of_implicit
from harness.scenario.steps import STREAMS, Steady, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.actions import COMMON, Hazard, Via, actions, of_kinds
from harness.strategies.builder import Builder
from harness.strategies.topologies import topologies as all_topologies

WITH_GRAPHS = 48
"""Most steps of a program with graphs; one takes up to sixteen, and two of one family up to thirty."""
LONGEST = 40
USUAL = 6
"""Most actions of a usual program, most of which have up to 16 steps. Draws a second go by the number of calls."""
LENGTHS = (0,) * 7 + (10,)
"""Actions that a program has at least. An eighth of programs is long."""
FALLING = ("",) * 21 + ("first", "last", "odd")
"""On which ranks addresses fall: in an eighth of the draws on some."""
HAZARDS: tuple[Hazard, ...] = ("ballast", "deny", "refuse", "uneven")


@st.composite
def programs(
    draw: st.DrawFn,
    topology: Topology,
    *,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = LONGEST,
    graphs: bool = False,
    streams: int = 1,
    spmd: bool = False,
    pulls: bool = False,
) -> tuple[Step, ...]:
    """Steps for one topology: at most `max_steps`, with at least one collective. `graphs`: capture and replay too.

    `max_steps` is at least 2. `hazards` adds what even a right system may not survive without agreement between ranks.
    `streams`: on how many streams buffers are allocated and collectives run, at most `harness.scenario.steps.STREAMS`.
    `spmd`: every rank acts in every step that names a family. `pulls`: calls by kernels have both operands in windows,
    for a plug-in that says so.
    """
    if not 1 <= streams <= STREAMS:
        raise UsageError(f"{streams} streams are not between 1 and {STREAMS}")
    if graphs and hazards:
        raise UsageError(f"programs with graphs have no hazards: {', '.join(hazards)}")
    most = max(0, max_steps // 2 - 1)
    least = min(most, draw(st.sampled_from(LENGTHS)))
    largest = most if least or graphs else min(most, USUAL)
    chosen = draw(st.lists(actions(hazards, via, graphs, streams), min_size=least, max_size=largest))
    last = draw(of_kinds(COMMON, frozenset(hazards), via, streams))
    return Builder(topology, max_steps, spmd, streams, pulls).build(chosen, last)


@st.composite
def scenarios(
    draw: st.DrawFn,
    world: int = 8,
    *,
    topologies: st.SearchStrategy[Topology] | None = None,
    system: System | None = None,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = LONGEST,
    graphs: bool = False,
    streams: int = 1,
    spmd: bool = False,
    falling: bool = True,
    pulls: bool = False,
) -> Scenario:
    """Whole draws for a world of at most `world` ranks.

    `system` is the pool policy and kernel collective under test (default `System()`); `topologies`
    a strategy that replaces the default mixture of random and named ones. With implicit sites, programs are `spmd`.
    `pulls`: as in `programs`. `falling`: in a share of draws some ranks have their segments in the other order of
    addresses, which pools such as `per-group` rest on. `deferred` takes a fresh pool then, so that such draws have no
    steady state.
    """
    system = system or System()
    if topologies is None:
        topologies = all_topologies(world)
    spmd = spmd or system.sites == "implicit"  # the ranks of a group that is asked for in place of another have to come
    if spmd:
        topologies = topologies.filter(lambda topology: not lack_of_implicit(topology))
    topology = draw(topologies)
    of_it = programs(
        topology,
        hazards=hazards,
        via=via,
        max_steps=max_steps,
        graphs=graphs,
        streams=streams,
        spmd=spmd,
        pulls=pulls,
    )
    steps, seed = draw(of_it), draw(st.integers(0, 255))
    falls = draw(st.sampled_from(FALLING)) if falling else ""
    if any(isinstance(step, Steady) for step in steps):
        falls = ""
    return Scenario(topology, steps, system, seed, _falling_ranks(falls, topology.world))


def _falling_ranks(falls: str, world: int) -> tuple[int, ...]:
    """The ranks whose segments get falling addresses: none, the first, the last, or every other one."""
    return {"": (), "first": (0,), "last": (world - 1,), "odd": tuple(range(1, world, 2))}[falls]
