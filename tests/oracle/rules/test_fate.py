"""Fate: a rank that dies, and ranks that wait for ever, are found with the place where each one stood."""

from __future__ import annotations

import re

import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, ReduceScatter, Release, Step, Trim
from harness.trace.draw import Draw, Fate
from harness.trace.events import Began, CommCreated, Entered, Mismatch, Raised
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import SQUARE, TURNED, explicit, findings, first, rules, scenario, unsaid

TWICE = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100), Allocate("b", "tp", 256))
BY_KERNEL = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100, via="kernel"))
SCATTER = (
    Allocate("whole", "tp", 512, dtype="bfloat16"),
    Allocate("part", "tp", 128, dtype="bfloat16"),
    ReduceScatter("tp", View("whole"), 100, View("part"), via="kernel"),
)

# rank-crash


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("Dies", "was killed by signal 11 (SIGSEGV)"),
        ("WritesToNull", "was killed by signal 11 (SIGSEGV)"),
        ("Exits", "exited with status 3"),
    ],
)
def test_a_rank_that_dies_in_its_pool_is_a_crash_at_that_step(ranks: World, pool: str, how: str) -> None:
    found = findings(ranks, scenario(*TWICE, pool=pool))
    assert rules(found) == ["rank-crash"]
    assert (found[0].step, found[0].ranks) == (2, (0,))
    assert unsaid(found[0], "rank 0", how, "step 2 (allocate)") == []


def test_a_rank_that_dies_in_a_kernel_is_a_crash_in_its_collective(ranks: World) -> None:
    found = findings(ranks, scenario(*BY_KERNEL, kernels="CrashesInKernel"))
    assert rules(found) == ["rank-crash"]
    assert found[0].ranks == (1,)
    assert unsaid(found[0], "rank 1", "SIGSEGV", "step 1 (all_gather)", "all_gather kernel of tp[0,1]") == []


def test_a_crash_ends_with_the_line_of_python_that_the_rank_died_in(ranks: World) -> None:
    crash = findings(ranks, scenario(*TWICE, pool="WritesToNull"))[0]
    assert re.sub(r":\d+", "", crash.explanation) == (
        "rank 0 was killed by signal 11 (SIGSEGV) at step 2 (allocate), in die (ends.py)."
    )


def test_a_crash_of_which_python_saw_nothing_names_no_line(ranks: World) -> None:
    crash = findings(ranks, scenario(*TWICE, pool="Exits"))[0]
    assert crash.explanation == "rank 0 exited with status 3 at step 2 (allocate)."


def test_a_fault_names_the_call_that_it_was_raised_in() -> None:
    """As on a GPU, where the rank goes on to write that the system raised."""
    comm, fault = CommCreated(0, (0, 1), 0, True), "failed with cudaErrorIllegalAddress from synchronize (a.py:1)"
    told = (comm, Began(1), Entered("all_gather kernel", 0), Raised("collectives", "AcceleratorError: …"))
    traces = Trace(0, told), Trace(1, (comm,))
    fates = Fate(0, "crashed", fault, "stderr:\nhints"), Fate(1, "stopped")
    (crash,) = judge(Draw(scenario(*BY_KERNEL), traces, fates, 1.0, 1.0))
    assert crash.explanation == f"rank 0 {fault} at step 1 (all_gather) in all_gather kernel of tp[0,1]."


def test_ranks_that_live_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TWICE)) == []


FATAL = "stderr:\nin doubt\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):"


OWN = """Traceback (most recent call last):
  File "mine.py", line 3, in use
KeyError: 'a'
Current thread 0x2 (most recent call first):
  File "mine.py", line 4 in use"""
"""A plug-in's own traceback, and its own dump of a thread."""


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("", ()),
        ("stdout:\nfor everyone\nstderr:\nin confidence", ("stdout:", "for everyone", "stderr:", "in confidence")),
        (FATAL, ("stderr:", "in doubt")),
        (FATAL.replace("in doubt\n", ""), ()),
        ("\n".join(map(str, range(99))), tuple(map(str, range(87, 99)))),
        (f"stderr:\n{OWN}\nmore", ("stderr:", *OWN.splitlines(), "more")),
        (FATAL.replace("in doubt", OWN), ("stderr:", *OWN.splitlines())),
    ],
    ids=["nothing", "both", "before a fault", "a fault alone", "much", "its own traceback", "that before a fault"],
)
def test_a_crash_keeps_the_last_that_its_rank_printed(printed: str, kept: tuple[str, ...]) -> None:
    traces = Trace(0, (Began(1),)), Trace(1, ())
    fates = Fate(0, "crashed", "exited with status 3", printed), Fate(1, "stopped")
    (crash,) = judge(Draw(scenario(*BY_KERNEL), traces, fates, 1.0, 1.0))
    assert tuple(line for record in crash.stacks for line in record.frames) == kept


HOUSE = ("/w/harness/rank/collective.py", "/w/harness/rank/main.py", "<frozen runpy>")
TRITON = "/v/lib/python3.12/site-packages/triton/runtime/interpreter.py"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ((TRITON, "/u/mine.py", TRITON, "/u/outer.py", *HOUSE), "mine.py"),
        ((TRITON, "/w/harness/substrate/witness.py", TRITON, "/u/harness/mine.py", *HOUSE), "mine.py"),
        (("/v/lib/python3.12/ctypes/__init__.py", "/u/dist-packages/engine/pool.py", *HOUSE), "pool.py"),
        ((TRITON, "/w/harness/system/planted/kernels.py", *HOUSE), "kernels.py"),
        ((TRITON, "/w/harness/substrate/sim/spins.py", TRITON, "/w/harness/kernels/barrier.py", *HOUSE), "barrier.py"),
        (("/w/harness/substrate/sim/schedules/interpreted.py", TRITON, "/w/kernels/ring.py", *HOUSE), "ring.py"),
        (HOUSE, "collective.py"),
        ((TRITON,), "interpreter.py"),
    ],
    ids=[
        "a kernel",
        "behind a wrapper",
        "an installed one",
        "a built-in one",
        "before a spin",
        "in turns",
        "none",
        "nothing else",
    ],
)
def test_a_crash_names_the_innermost_line_of_the_system(files: tuple[str, ...], named: str) -> None:
    other = 'Thread 0x7 (most recent call first):\n  File "/u/other.py", line 1 in watch\n\nCurrent thread'
    frames = "".join(f'\n  File "{file}", line {line} in f' for line, file in enumerate(files))
    printed = FATAL.replace("Current thread", other) + frames + "\n\nExtension modules: numpy"
    fates = Fate(0, "crashed", "ended", printed), Fate(1, "stopped")
    (crash,) = judge(Draw(scenario(*BY_KERNEL), (Trace(0, (Began(1),)), Trace(1, ())), fates, 1.0, 1.0))
    line = [file.rpartition("/")[2] for file in files].index(named)
    assert crash.explanation.endswith(f", in f ({named}:{line}).")


def test_the_draw_after_a_crash_is_silent(ranks: World) -> None:
    ranks.run(scenario(*TWICE, pool="Dies"))
    assert findings(ranks, scenario(*TWICE)) == []


# raised

RAISES = "tests.tools.planted.raises:"
IN_ITS_PLACE = {
    "Raises": ("pool", "ValueError: no room in die (raises.py:…) on rank 0 at step 2 (allocate)."),
    "NoRoomToBuild": (
        "pool",
        "OutOfMemoryError: no room to build in __init__ (raises.py:…) on ranks 0, 1 at the start.",
    ),
    "NoRoomToClose": ("pool", "OutOfMemoryError: no room to close in close (raises.py:…) on ranks 0, 1 at the end."),
    "FailsToTrim": ("pool", "LookupError: no such segment in forget (raises.py:…) on ranks 0, 1 at step 5 (trim)."),
    "AssertsSize": (
        "collectives",
        "AssertionError: assert source.numel() <= ROOM in all_gather (raises.py:…) on ranks 0, 1 "
        "at step 3 (all_gather) in all_gather kernel of tp[0,1].",
    ),
    "NoRoomInKernel": (
        "collectives",
        "OutOfMemoryError: no room in the kernel in all_gather (raises.py:…) on ranks 0, 1 "
        "at step 3 (all_gather) in all_gather kernel of tp[0,1].",
    ),
    "FailsToBuild": ("collectives", "OSError: no such device in __init__ (raises.py:…) on ranks 0, 1 at the start."),
    "RaisesInTorch": (
        "collectives",
        "IndexError: Dimension out of range (expected to be in range of [-2, 1], but got 7) in all_gather "
        "(raises.py:…) on ranks 0, 1 at step 3 (all_gather) in all_gather kernel of tp[0,1].",
    ),
    "RaisesInTriton": (
        "collectives",
        "IndexError: tuple index out of range in _out_of_bounds (raises.py:…) on ranks 0, 1 "
        "at step 3 (all_gather) in all_gather kernel of tp[0,1].",
    ),
}
LARGE = (*TWICE, AllGather("tp", View("b"), 101, via="kernel"), Release("a"), Trim())
TRIMMED = (*TWICE, Release("a"), Release("b"), Trim())


def raising(name: str, *steps: Step) -> Scenario:
    part = {"pool": "pool", "collectives": "kernels"}[IN_ITS_PLACE[name][0]]
    return scenario(*steps, **{part: RAISES + name})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", IN_ITS_PLACE)
def test_what_the_system_raises_is_found_at_its_own_innermost_line(ranks: World, name: str) -> None:
    steps = TRIMMED if name == "FailsToTrim" else LARGE
    (found,) = findings(ranks, raising(name, *steps))
    part, text = IN_ITS_PLACE[name]
    assert found.rule == "raised"
    assert re.sub(r"py:\d+", "py:…", found.explanation) == f"{part} '{RAISES}{name}' raised {text}"


def test_a_raise_at_one_rank_is_no_hang_of_its_peers(ranks: World) -> None:
    steps = Allocate("a", "tp", 256), Allocate("b", "tp", 256)
    draw = ranks.run(scenario(*steps, topology=SQUARE, pool=f"{RAISES}Raises"))
    assert [fate.state for fate in draw.fates] == ["raised", "stopped", "stopped", "stopped"]
    assert [(finding.rule, finding.ranks) for finding in judge(draw)] == [("raised", (0,))]


def test_a_peer_that_waits_in_a_registration_that_a_rank_raised_before_is_no_skew(ranks: World) -> None:
    found = findings(ranks, scenario(TWICE[0], Allocate("b", "tp", 1 << 20), pool=f"{RAISES}Raises"))
    assert [(finding.rule, finding.step) for finding in found] == [("raised", 1)]


def test_an_output_that_a_rank_never_wrote_as_it_raised_is_no_wrong_data(ranks: World) -> None:
    draw = ranks.run(scenario(*BY_KERNEL, kernels=f"{RAISES}RaisesAmongTheHasty"))
    assert any(isinstance(event, Mismatch) for event in draw.traces[1].events)
    assert [(finding.rule, finding.ranks) for finding in judge(draw)] == [("raised", (0,))]


def test_wrong_data_of_an_earlier_call_comes_before_what_raised_later(ranks: World) -> None:
    steps = *BY_KERNEL, AllGather("tp", View("a"), 101, via="kernel")
    found = findings(ranks, scenario(*steps, kernels=f"{RAISES}WritesNothingThenRaises"))
    assert rules(found) == ["wrong-data", "raised"]


def test_a_raise_keeps_its_own_frames_and_all_of_the_traceback_with_the_cause(ranks: World) -> None:
    (found,) = findings(ranks, scenario(*TWICE, pool=f"{RAISES}Raises"))
    own, whole = found.stacks
    assert [frame.partition(" ")[0] for frame in own.frames] == ["die", "use"]
    assert [line for line in whole.frames if line.startswith(("KeyError", "ValueError", "for details"))] == [
        "KeyError: 'missing'",
        "ValueError: no room",
        "for details see below",
    ]


def test_two_exceptions_at_two_places_are_two_findings(ranks: World) -> None:
    found = findings(ranks, scenario(*TWICE, pool=f"{RAISES}RaisesApart"))
    assert [(finding.rule, finding.ranks) for finding in found] == [("raised", (0,)), ("raised", (1,))]
    assert len({finding.key for finding in found}) == len({type(finding) for finding in found}) == 2


def test_a_call_within_the_room_of_the_kernel_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*BY_KERNEL, kernels=f"{RAISES}AssertsSize")) == []


def test_the_draw_after_a_raise_is_silent(ranks: World) -> None:
    ranks.run(scenario(*TWICE, pool=f"{RAISES}Raises"))
    assert findings(ranks, scenario(*TWICE)) == []


# hang


def test_a_rank_that_skips_the_last_barrier_of_a_kernel_hangs_the_others(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, topology=SQUARE, kernels="LeavesEarly"))
    assert rules(found) == ["hang"]
    assert found[0].step == 2
    where = "ranks 0–2 ", "step 2 (reduce_scatter)", "reduce_scatter kernel of tp[0,1,2,3]"
    assert unsaid(found[0], "ranks 0–3 had not finished", *where, "rank 3 ", "the end") == []


def test_a_rank_that_takes_the_library_alone_is_not_said_to_have_left(ranks: World) -> None:
    found = findings(ranks, scenario(*BY_KERNEL, kernels="FallsBackAlone"))
    assert rules(found) == ["hang"]
    said = (
        "rank 1 is still in all_gather kernel of tp[0,1], which rank 0 makes by the library instead, so that one call"
    )
    assert said in str(found[0])
    assert "left" not in str(found[0])


def test_a_kernel_whose_barriers_every_rank_enters_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*SCATTER, topology=SQUARE)) == []


def test_a_rank_that_skips_a_collective_hangs_the_others(ranks: World) -> None:
    """Its own output is wrong, which is seen before anyone waits."""
    found = findings(ranks, scenario(*BY_KERNEL, kernels="SkipsACall"))
    assert rules(found) == ["wrong-data", "hang"]
    assert found[0].ranks == (1,)
    assert unsaid(found[1], "rank 0 ", "step 1 (all_gather)", "all_gather kernel of tp[0,1]") == []


def test_a_collective_that_every_rank_enters_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*BY_KERNEL)) == []


def test_a_rank_refused_its_segment_hangs_the_others(ranks: World) -> None:
    """Registration-skew comes first: the rank never came to the registration that the others wait in."""
    found = findings(ranks, scenario(TWICE[0], Deny(1), Allocate("large", "tp", 1 << 19), pool="per-group"))
    assert rules(found) == ["registration-skew", "hang"]
    assert unsaid(found[1], "rank 0 ", "step 2 (allocate)", "register of tp[0,1]", "rank 1 ") == []


def test_a_refusal_that_no_rank_meets_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(TWICE[0], Deny(1), Allocate("small", "tp", 256), pool="per-group")) == []


def test_a_hang_after_a_refusal_names_the_buffer_that_was_not_allocated(ranks: World) -> None:
    """The pool registers nothing, so that the refusal alone keeps rank 1 from the collective."""
    found = findings(ranks, scenario(Deny(1), *TWICE[:2], pool="NeverRegisters"))
    assert rules(found) == ["unregistered", "hang"]
    assert unsaid(found[1], "rank 0 ", "step 2 (all_gather)", "all_gather of tp[0,1]") == []
    assert unsaid(found[1], "'a'") == []


def test_a_rank_that_never_returns_hangs_when_time_is_up(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 2.5)
    found = findings(ranks, scenario(*TWICE, pool="Sleeps"))
    assert rules(found) == ["hang"]
    assert unsaid(found[0], "rank 0 ", "step 2 (allocate)") == []


def explained(ranks: World, played: Scenario) -> str:
    """The whole text of a draw's hang, its time left out."""
    return re.sub(r"After [\d.]+ s", "After … s", first(findings(ranks, played), "hang").explanation)


def test_a_rank_that_never_comes_is_named_with_the_step_it_is_at(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 1.0)
    assert explained(ranks, scenario(*TWICE[:2], Allocate("b", "tp", 1 << 20), pool="Sleeps")) == (
        "rank 0 is still at step 2 (allocate) while rank 1 waits in register of tp[0,1]. "
        "After … s ranks 0, 1 had not finished: "
        "rank 0 at step 2 (allocate); rank 1 at step 2 (allocate) in register of tp[0,1]."
    )


def test_two_communicators_in_opposite_order_are_named_as_the_cycle_they_are(ranks: World) -> None:
    steps = Allocate("a", "tp", 256), Allocate("b", "cp", 256)
    assert explained(ranks, scenario(*steps, topology=TURNED, pool="OppositeOrder")) == (
        "rank 0 registers for tp[0,1] while rank 1 waits in register of cp[1,0]. "
        "After … s ranks 0, 1 had not finished: rank 0 at step 1 (allocate) in register of tp[0,1]; "
        "rank 1 at step 1 (allocate) in register of cp[1,0]."
    )


def test_a_chain_is_told_from_the_rank_that_is_done(ranks: World) -> None:
    chain = explicit(cp=((0,), (1, 2)), tp=((0, 1), (2,)))
    steps = Allocate("a", "cp", 256), Allocate("b", "tp", 256)
    assert explained(ranks, scenario(*steps, topology=chain, pool="RegistersAlone")) == (
        "rank 2 has run every step while rank 1 waits in register of cp[1,2]. "
        "Rank 0 waits for rank 1 in register of tp[0,1]. "
        "After … s ranks 0–2 had not finished: rank 0 at step 1 (allocate) in register of tp[0,1]; "
        "rank 1 at step 0 (allocate) in register of cp[1,2]; rank 2 at the end."
    )


def test_a_rank_out_of_memory_is_named_with_the_buffer_it_was_refused(ranks: World) -> None:
    steps = Deny(1), Allocate("a", "tp", 256)
    assert explained(ranks, scenario(*steps, topology=SQUARE, pool="per-group")) == (
        "rank 1 could not allocate 'a' at step 1 (allocate) and has run every step "
        "while ranks 0, 2, 3 wait in register of tp[0,1,2,3]. "
        "After … s ranks 0–3 had not finished: "
        "ranks 0, 2, 3 at step 1 (allocate) in register of tp[0,1,2,3]; rank 1 at the end."
    )


def test_a_hang_holds_the_stack_of_every_rank_and_tells_none_of_it(ranks: World) -> None:
    hang = first(findings(ranks, scenario(Deny(1), *TWICE[:2], pool="per-group")), "hang")
    assert [(stack.rank, stack.witness) for stack in hang.stacks] == [(0, "SIGUSR1"), (1, "SIGUSR1")]
    assert "meet" not in hang.explanation


@pytest.mark.parametrize("system", [{"pool": "OppositeOrder"}, {"pool": "RegistersAlone"}])
def test_the_draw_after_a_cycle_is_silent(ranks: World, system: dict[str, str]) -> None:
    steps = Allocate("a", "tp", 256), Allocate("b", "cp", 256)
    assert "hang" in rules(findings(ranks, scenario(*steps, topology=TURNED, **system)))
    assert findings(ranks, scenario(*TWICE)) == []


def test_the_draw_after_a_hang_is_silent(ranks: World) -> None:
    ranks.run(scenario(*SCATTER, kernels="LeavesEarly"))
    assert findings(ranks, scenario(*TWICE)) == []
