"""Path: a call that owns its buffers and took the legacy path is found, and so is a claim that cannot hold."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, AllReduce, ReduceScatter, Step
from harness.trace.draw import Draw
from harness.trace.events import Ran
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import APART, findings, rules, scenario

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))

# the claim of an ineligible call


def scatter(dtype: str = "float32", **how: object) -> tuple[Step, ...]:
    """A reduce-scatter between two windows."""
    return (
        Allocate("whole", "tp", 256, dtype=dtype),  # type: ignore[arg-type]
        Allocate("part", "tp", 128, dtype=dtype),  # type: ignore[arg-type]
        ReduceScatter("tp", View("whole"), 100, View("part"), **how),  # type: ignore[arg-type]
    )


def test_a_claim_for_int32_is_slow_path(ranks: World) -> None:
    found = findings(ranks, scenario(*scatter("int32", claim=True)))
    assert rules(found) == ["slow-path"]
    assert (found[0].step, found[0].ranks) == (2, (0, 1))
    assert "on tp[0,1] claims the symmetric path, which a reduce-scatter of int32 never takes" in str(found[0])
    assert "the call took the legacy path" in str(found[0])


def test_a_claim_for_max_is_slow_path(ranks: World) -> None:
    found = findings(ranks, scenario(*scatter(op="max", claim=True)))
    assert rules(found) == ["slow-path"]
    assert "which a reduce-scatter with op max never takes" in str(found[0])


def test_a_claim_on_a_group_without_windows_is_slow_path(ranks: World) -> None:
    found = findings(ranks, scenario(GATHER[0], AllGather("tp", View("a"), 100, claim=True), topology=APART))
    assert rules(found) == ["slow-path"]


@pytest.mark.parametrize("op", ["avg", "max"])
def test_a_claim_for_an_all_reduce_that_nccl_has_no_symmetric_kernel_for_is_slow_path(ranks: World, op: str) -> None:
    whole, part = Allocate("whole", "tp", 256), Allocate("part", "tp", 256)
    call = AllReduce("tp", View("whole"), 100, View("part"), op=op, claim=True)  # type: ignore[arg-type]
    found = findings(ranks, scenario(whole, part, call))
    assert rules(found) == ["slow-path"]
    assert f"which an all-reduce with op {op} never takes" in str(found[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["sum", "avg"])
def test_a_claim_for_an_eligible_reduction_is_silent(ranks: World, dtype: str, op: str) -> None:
    assert findings(ranks, scenario(*scatter(dtype, op=op, claim=True))) == []


@pytest.mark.parametrize("how", [{"dtype": "int32"}, {"op": "max"}])
def test_an_ineligible_reduction_that_claims_nothing_is_silent(ranks: World, how: dict[str, str]) -> None:
    assert findings(ranks, scenario(*scatter(**how))) == []


def test_a_claim_for_a_kernel_of_any_dtype_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*scatter("int32", claim=True, via="kernel"), kernels="triton")) == []


# owned, eligible, and yet on the legacy path


def rerouted(draw: Draw, rank: int, evidence: str, is_free: bool = False) -> Draw:
    """The draw as if the rank's collectives had taken the legacy path."""
    events = tuple(
        Ran("legacy", evidence, is_free=is_free) if isinstance(event, Ran) else event
        for event in draw.traces[rank].events
    )
    traces = (Trace(rank, events) if trace.rank == rank else trace for trace in draw.traces)
    return msgspec.structs.replace(draw, traces=tuple(traces))


def test_an_owned_and_eligible_call_on_the_legacy_path_is_slow_path(ranks: World) -> None:
    found = judge(rerouted(ranks.run(scenario(*GATHER)), rank=1, evidence="the log"))
    assert rules(found) == ["slow-path"]
    assert (found[0].step, found[0].ranks) == (1, (1,))
    assert "on tp[0,1] owns its output on every rank and is eligible, yet on rank 1 the call took the legacy path " in (
        str(found[0])
    )
    assert "(the log)" in str(found[0])


def test_the_legacy_path_by_nccls_own_choice_is_silent(ranks: World) -> None:
    draw = rerouted(ranks.run(scenario(*GATHER)), rank=1, evidence="the log", is_free=True)
    assert judge(draw) == []


def test_the_legacy_path_without_evidence_is_silent(ranks: World) -> None:
    assert judge(rerouted(ranks.run(scenario(*GATHER)), rank=1, evidence="")) == []


def test_the_legacy_path_of_an_ineligible_call_is_silent(ranks: World) -> None:
    assert judge(rerouted(ranks.run(scenario(*scatter("int32"))), rank=1, evidence="the log")) == []


def test_the_legacy_path_of_a_group_without_windows_is_silent(ranks: World) -> None:
    assert judge(rerouted(ranks.run(scenario(*GATHER, topology=APART)), rank=1, evidence="the log")) == []


def test_an_owned_and_eligible_call_on_the_symmetric_path_is_silent(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER))
    assert {event.path for event in draw.traces[1].events if isinstance(event, Ran)} == {"symmetric"}
    assert judge(draw) == []
