"""Nodes and NVLink domains on one machine, with real NCCL: no windows across domains, symmetric kernels inside one."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness import judge
from harness.oracle.case import Case
from harness.scenario import topology
from harness.scenario.placement import Placement
from harness.world.world import World
from tests.world.test_nodes import BLOCKS, CYCLIC, MULTI_NODE, ONE_NODE, PAIRS, TRAYS, program

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]
RANKS = 8
HIDDEN = msgspec.structs.replace(ONE_NODE, placement=Placement(1, 4, peers_hidden=True))
NAMED = [name for name in MULTI_NODE if topology.find(name).world <= RANKS]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(RANKS, "nccl", deadline=60) as running:
        yield running


@pytest.mark.parametrize(
    "on", [BLOCKS, CYCLIC, ONE_NODE, PAIRS, TRAYS, *map(topology.find, NAMED)], ids=lambda on: on.name
)
def test_exactly_the_groups_inside_a_domain_take_the_symmetric_path(world, on):
    draw = world.run(program(on))
    calls = {group: {use.ran.path for use in uses if use.ran} for (_, group), uses in Case(draw).calls.items()}
    assert judge(draw) == []
    assert calls == {group: {"symmetric" if on.has_windows(group) else "legacy"} for group in calls}


def test_groups_across_nodes_have_no_windows(world):
    draw = world.run(program(BLOCKS))
    comms = {comm.group: comm.has_windows for trace in draw.traces for comm in trace.comms().values()}
    assert comms == {group: BLOCKS.has_windows(group) for group in comms}


def test_processes_that_see_their_own_gpu_alone_have_windows(world):
    draw = world.run(program(HIDDEN))
    assert judge(draw) == []
    assert all(comm.has_windows for trace in draw.traces for comm in trace.comms().values())
