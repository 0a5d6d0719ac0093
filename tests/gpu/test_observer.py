"""The observer in front of real NCCL: it changes nothing, judges pools that call NCCL by themselves, and watches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from harness import judge
from harness.machine import mps
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Refuse
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.system.check import observed, prepare
from harness.trace.draw import Draw
from harness.trace.events import Registered, SegmentAllocated
from harness.world.platform import Watched
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
BY_ITSELF = "tests.tools.gpu_systems:ByItself"
TP2 = Topology("tp2", "sglang", {"tp": 2})
TP4_DPA2 = Topology("tp4-dpa2", "sglang", {"tp": 4, "attn_dp": 2})
OWNED = (Allocate("a", "tp", 64), AllGather("tp", View("a"), 16), ReduceScatter("tp", View("a"), 16))
IMPLICIT = (Allocate("a", "attn_tp", 64, site="local"), AllGather("attn_tp", View("a"), 16))
BYTES = 1 << 36
"""Beyond every size and number of a trace: a greater integer is an address or a hash."""


@pytest.fixture(scope="module")
def plain() -> Iterator[World]:
    with World(4, "nccl", deadline=60, evidence=("digests",)) as running:
        yield running


@pytest.fixture(scope="module")
def watched() -> Iterator[World]:
    with World(4, "nccl", deadline=15, evidence=("digests",), watched=Watched(observed(BY_ITSELF), prepare)) as running:
        yield running


def rules(draw: Draw) -> list[str]:
    return [finding.rule for finding in judge(draw)]


def told(draw: Draw) -> list[list[object]]:
    """All events of every rank. Addresses, which the driver chooses anew in each process, as a segment and an
    offset."""
    return [_placed(trace.events) for trace in draw.traces]


def _placed(events: object) -> list[object]:
    bases: list[tuple[int, int, int]] = []

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, int) and value > BYTES:
            held = [(ident, value - base) for ident, base, size in bases if base <= value < base + size]
            return held[-1] if held else "elsewhere"
        return value

    found = []
    for event in events:  # type: ignore[attr-defined]
        if isinstance(event, SegmentAllocated):
            bases.append((event.segment, event.address, event.size))
        found.append(plain(msgspec.to_builtins(event)))
    return found


def test_the_harness_s_own_pools_record_the_same_with_the_observer_and_without(plain: World, watched: World) -> None:
    drawn = sample(scenarios(4, via="library"), 24)
    for scenario in drawn:
        assert told(watched.run(scenario)) == told(plain.run(scenario))


def test_a_pool_that_calls_nccl_by_itself_owns_what_it_registered(watched: World) -> None:
    draw = watched.run(Scenario(TP2, OWNED, System(BY_ITSELF)))
    assert rules(draw) == []
    assert all(any(isinstance(event, Registered) for event in trace.events) for trace in draw.traces)


def test_a_wrong_owner_is_found_in_a_pool_that_calls_nccl_by_itself(watched: World) -> None:
    draw = watched.run(Scenario(TP4_DPA2, IMPLICIT, System(BY_ITSELF, sites="implicit")))
    assert rules(draw) == ["wrong-owner"]


def test_a_registration_that_is_refused_on_one_rank_is_found(watched: World) -> None:
    draw = watched.run(Scenario(TP2, (Refuse(1), *OWNED), System(BY_ITSELF)))
    assert rules(draw)[0] in {"registration-skew", "hang", "raised"}


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, str]]:
    """The environment in which two ranks share a GPU."""
    served = mps.start()
    kept = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    yield {**os.environ, **served.environment, **kept, "NCCL_MAX_CTAS": "8", "COLUMNS": "200"}
    served.close()


def watch(environment: dict[str, str], out: Path, *program: str, options: Sequence[str] = ()) -> tuple[int, str]:
    """Status and output of `symm watch` over two processes of a program."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "harness", "watch", *options, "--out", str(out), "--", *torchrun, *program]
    run = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    return run.returncode, run.stdout


def test_the_bug_reports_fault_is_named_in_a_program_that_knows_nothing_of_us(
    shared: dict[str, str], tmp_path: Path
) -> None:
    status, said = watch(shared, tmp_path / "run", "examples/two_groups.py")
    assert (status, "wrong-owner" in said, "two_groups.py" in said) == (1, True, True)


def test_nothing_is_found_where_the_right_group_owns_the_buffer(shared: dict[str, str], tmp_path: Path) -> None:
    status, said = watch(shared, tmp_path / "run", "examples/two_groups.py", "--right")
    assert (status, "wrong-owner" in said) == (0, False)


@pytest.mark.parametrize(
    ("job", "rule"),
    [
        ("register-in-capture", "registered-in-capture"),
        ("stranding-in-capture", "registered-in-capture"),
        ("right-capture", ""),
        ("right-captured-calls", ""),
        ("right-stream-after-capture", ""),
        ("captured-block-reuse", "captured-reuse"),
        ("captured-block-reuse-later", "captured-reuse"),
        ("graph-uses-eager-pool", "captured-reuse"),
        ("right-static-buffer", ""),
        ("right-graph-pool", ""),
        ("right-handed-back", ""),
        ("right-graph-that-never-runs", ""),
    ],
)
def test_a_registration_in_a_capture_of_pytorchs_and_a_reuse_of_its_memory_are_named(
    shared: dict[str, str], tmp_path: Path, job: str, rule: str
) -> None:
    met = {"FAKE_NCCL_FOLDER": str(tmp_path)}
    status, said = watch(shared | met, tmp_path / "run", "tests/tools/plain_jobs.py", job, options=["--graph-memory"])
    named = [each for each in ("registered-in-capture", "captured-reuse") if each in said]
    assert ("captured" in said, named) == (True, [rule] if rule else []), said
    assert "Whether other tensors got memory" not in said, said
    assert status == bool(rule), said
