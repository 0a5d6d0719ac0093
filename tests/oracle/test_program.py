"""What was run: a draw has its program, and a recording says only where each step is."""

from __future__ import annotations

from harness.oracle.program import program_of
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    Recreate,
    Release,
    Replay,
    Steady,
    Step,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from tests.tools.recordings import CALL, OWNED, recording
from tests.tools.scenes import CROSSED, PAIR, explicit

GRAPH = (Prepare("g"), Capture("g"), EndCapture("g"), Replay("g"), Replay("g"))


def drawn(*steps: Step, topology: Topology = PAIR) -> Draw:
    return Draw(Scenario(topology, steps, System("deferred", "triton"), seed=3), (), (), 1.0, 1.0)


def test_a_draw_names_its_steps_and_buffers() -> None:
    program = program_of(drawn(Allocate("a", "tp", 8)))
    assert (program.place(0), program.operand("a"), program.is_lockstep) == ("step 0 (allocate)", "'a'", True)


def test_a_draw_knows_its_graphs() -> None:
    program = program_of(drawn(*GRAPH))
    assert (program.captures, program.replays) == ({"g": range(1, 2)}, {3: "g", 4: "g"})


def test_a_draw_knows_where_steady_state_begins_and_ends() -> None:
    once = [(Allocate(name, "tp", 8), Release(name)) for name in "abc"]
    program = program_of(drawn(*once[0], *once[1], Steady(), *once[2], Steady(begins=False)))
    assert program.steady == {4: True, 7: False}


def test_sizes_that_were_meant_to_differ_and_do_not_are_known() -> None:
    for elements, is_even in (((8, 8), True), ((8, 9), False), (8, False)):
        assert program_of(drawn(Allocate("a", "tp", elements))).is_even_by_mistake is is_even  # type: ignore[arg-type]


def test_a_rank_passes_the_recreation_of_a_family_that_leaves_it_out() -> None:
    topology = explicit(tp=((0, 1), (2, 3)), cp=((0, 1),))
    program = program_of(drawn(Recreate("cp"), Recreate("tp"), Recreate("cp"), topology=topology))
    assert [program.recreated_without(rank, until) for rank, until in ((2, 2), (2, 1), (2, -1), (0, 2))] == [
        {0, 2},
        {0},
        set(),
        set(),
    ]


def test_a_rank_has_its_own_group_in_a_step() -> None:
    steps = Allocate("a", "cp", 8), AllGather("cp", View("a"), 2)
    program = program_of(drawn(*steps, topology=CROSSED))
    assert [program.group_of(1, rank) for rank in (0, 3)] == [GroupId((0, 2)), GroupId((1, 3))]


def test_a_draw_names_the_parts_of_its_system() -> None:
    program = program_of(drawn())
    assert (program.name_of("pool"), program.name_of("collectives")) == ("deferred", "triton")


def test_a_recording_says_where_a_step_is_and_nothing_of_what_was_to_come() -> None:
    program = program_of(recording(OWNED, OWNED))
    assert (program.place(2), program.operand("segment 3 + 8"), program.is_lockstep) == (CALL, "segment 3 + 8", False)
    assert (program.captures, program.replays, program.steady) == ({}, {}, {})
    assert (program.families, program.group_of(2, 0), program.recreated_without(0, 2)) == ((), None, set())
