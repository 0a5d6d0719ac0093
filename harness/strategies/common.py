"""Strategies for scenarios that both substrates can run: free programs and flows, with good systems and faulty ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from hypothesis import strategies as st

from harness.scenario.hazards import hazards
from harness.scenario.scenario import Scenario
from harness.scenario.steps import STREAMS
from harness.scenario.system import Sites, System
from harness.scenario.topology import Topology
from harness.strategies.actions import Via
from harness.strategies.flows import Tokens, flows
from harness.strategies.programs import scenarios
from harness.strategies.topologies import topologies as all_topologies

SITES: tuple[Sites, ...] = get_args(Sites)
TOKENS: tuple[Tokens, ...] = ("engine", "padded")


@st.composite
def common(draw: st.DrawFn, world: int = 8, *, pools: Sequence[str], via: Via = "mixed") -> Scenario:
    """Free programs of every convention, on up to three streams, and layers of flows, each with one of `pools` and
    either kind of sites.

    All ranks are on one node, and nothing is drawn that a right system may not survive: on GPUs a hang may cost
    the whole deadline. Nor are falling addresses, which only the simulation can choose. `world` is at least 2.
    """
    system = System(draw(st.sampled_from(pools)), sites=draw(st.sampled_from(SITES)))
    if draw(st.booleans()):
        tokens = draw(st.sampled_from(TOKENS))
        return draw(flows(world, tokens=tokens, system=system, via=via).filter(is_common))
    one_node = all_topologies(world).filter(_is_on_one_node)
    return draw(scenarios(world, topologies=one_node, system=system, via=via, streams=STREAMS, falling=False))


def is_common(scenario: Scenario) -> bool:
    """Whether both substrates can run it: one node, and no hazard."""
    return _is_on_one_node(scenario.topology) and not hazards(scenario.steps, scenario.topology)


def _is_on_one_node(topology: Topology) -> bool:
    return len(set(zip(topology.node_of, topology.domain_of, strict=True))) == 1
