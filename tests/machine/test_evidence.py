"""Evidence: what a version has, what is taken if nothing is named, and what stamps and the other path find."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import judge
from harness.errors import MachineError, UsageError
from harness.machine import profiler
from harness.machine.evidence import KINDS, NAMES, check_names, on_nccl, on_sim
from harness.oracle.case import Case
from harness.oracle.judge import data
from harness.scenario import topology
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, ReduceScatter, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.trace.draw import Draw
from harness.trace.events import Differs, Strayed
from harness.world.world import World

PAIR = Topology("pair", "sglang", {"tp": 2})
BOTH: tuple[Step, ...] = (
    Allocate("a", "tp", 64),
    Allocate("b", "tp", 32),
    AllGather("tp", View("a"), 32),
    ReduceScatter("tp", View("a"), 16, View("b")),
)
SKEWED = Scenario(PAIR, (Allocate("z", "tp", 16), Ballast("x", "tp", 1, 256), *BOTH), System("per-group"))
"""Its operands lie elsewhere on rank 1 than on rank 0, in windows of the right group."""


def names(*asked: str, version: tuple[int, ...] = (2, 32, 3)) -> list[str]:
    return [kind.name for kind in on_nccl(asked, version)]


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "why_missing", lambda: "no C compiler")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "why_missing", lambda: "")


# which there are


@pytest.mark.parametrize(
    ("version", "taken"), [((2, 32, 3), "forced"), ((2, 30, 7), "profiler"), ((2, 27, 3), "profiler")]
)
def test_the_sharpest_evidence_of_the_path_is_taken_where_none_is_named(
    no_compiler: None, version: tuple[int, ...], taken: str
) -> None:
    assert names(version=version) == [taken]


@pytest.mark.parametrize("version", [(2, 32, 3), (2, 31, 2)])
def test_nccls_own_word_comes_beside_the_forced_path(compiler: None, version: tuple[int, ...]) -> None:
    assert names(version=version) == ["forced", "calls"]


def test_the_forced_path_and_nccls_word_can_be_named_alone_and_together(compiler: None) -> None:
    assert (names("forced"), names("calls"), names("calls", "forced")) == (["forced"], ["calls"], ["forced", "calls"])
    check_names(["calls", "forced"])


def test_nccls_word_is_refused_with_the_reason_where_it_cannot_be_had(no_compiler: None) -> None:
    with pytest.raises(MachineError, match="evidence 'calls' cannot be had: no C compiler"):
        names("calls")


def test_processes_are_told_where_the_plug_in_is() -> None:
    needs = {kind.name: kind.needs() for kind in KINDS if kind.name in ("calls", "check")}
    assert needs == {"calls": {profiler.VARIABLE: profiler.library()}, "check": {"NCCL_CHECK_MODE": "DEBUG_GLOBAL"}}


def test_a_kind_that_is_named_is_taken() -> None:
    assert names("log") == ["log"]


def test_kinds_that_are_not_of_the_path_come_beside_the_sharpest_that_is(no_compiler: None) -> None:
    assert names("stamps", "check") == ["forced", "check", "stamps"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.since > (2, 27)], ids=lambda kind: kind.name)
def test_a_version_without_a_kind_is_refused_with_the_one_that_has_it(kind) -> None:
    with pytest.raises(
        MachineError, match=f"evidence '{kind.name}' needs NCCL {'.'.join(map(str, kind.since))}; 2.27.3"
    ):
        on_nccl([kind.name], (2, 27, 3))


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="evidence 'luck' is not one of forced, calls, profiler"):
        check_names(["luck"])


def test_two_kinds_of_the_path_are_refused() -> None:
    with pytest.raises(UsageError, match="'forced' and 'log' both say which path"):
        check_names(["log", "forced"])


@pytest.mark.parametrize("name", [kind.name for kind in KINDS if not kind.is_simulated])
def test_the_simulation_refuses_what_only_nccl_has(name: str) -> None:
    with pytest.raises(MachineError, match=f"'{name}' comes from NCCL"):
        on_sim([name])


def test_the_simulation_needs_no_evidence_of_its_paths() -> None:
    assert on_sim([]) == ()


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(KINDS)


# stamps, and the other path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(4, "sim", evidence=("stamps", "differential")) as running:
        yield running


def facts(draw: Draw, kind: type) -> int:
    return sum(isinstance(event, kind) for trace in draw.traces for event in trace.events)


def test_drawn_scenarios_are_clean_under_both(world: World) -> None:
    assert [judge(world.run(scenario)) for scenario in sample(scenarios(4), 25, seed=2)] == [[]] * 25


def test_named_nodes_are_clean_under_both(world: World) -> None:
    across = Topology("across", "sglang", {"tp": 4, "attn_dp": 2}, topology.Placement(2, 2))
    steps = (Allocate("a", "tp", 128), AllGather("tp", View("a"), 32))
    steps = (*steps, Allocate("c", "attn_tp", 64), AllGather("attn_tp", View("c"), 32))
    assert judge(world.run(Scenario(across, steps))) == []


@pytest.fixture
def skewed(world: World) -> Draw:
    return world.run(SKEWED)


def test_stamps_show_peers_that_are_reached_at_a_wrong_place(skewed: Draw) -> None:
    assert facts(skewed, Strayed) > 0


def test_the_other_path_shows_what_reaching_a_wrong_place_does_to_the_data(skewed: Draw) -> None:
    assert facts(skewed, Differs) > 0


def test_both_are_explained(skewed: Draw) -> None:
    texts = [str(finding) for finding in data.judge(Case(skewed))]
    assert any("rank 0 reached other memory than 'a' of rank 1 through its peer pointer" in text for text in texts)
    assert any("the symmetric and the legacy path left different bits in" in text for text in texts)


def test_data_that_is_wrong_in_itself_comes_first(skewed: Draw) -> None:
    first = next(finding for finding in judge(skewed) if finding.rule == "wrong-data")
    assert "is wrong in 32 of 64 elements" in str(first)


def test_without_them_neither_runs() -> None:
    with World(2, "sim") as plain:
        draw = plain.run(SKEWED)
    assert (facts(draw, Strayed), facts(draw, Differs)) == (0, 0)


def test_stamps_leave_the_data_as_it_was(world: World) -> None:
    tiny = (Allocate("a", "tp", 2, "float8_e4m3fn"), AllGather("tp", View("a"), 1))
    assert judge(world.run(Scenario(PAIR, tiny))) == []
