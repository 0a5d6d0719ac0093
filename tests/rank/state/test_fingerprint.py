"""Pieces of process state: a pool that changes one leaves nothing to the next draw, and the change is reported."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Release
from harness.scenario.system import System
from harness.trace.events import Placed
from harness.world.leftovers import Leftover
from harness.world.world import World
from tests.tools import stateful
from tests.tools.draws import PAIR

STEPS = Allocate("a", "tp", 1024), AllGather("tp", View("a"), 100), Release("a")
LEAKING = Scenario(PAIR, STEPS, System("harness.system.planted.pools:ForgetsToDeregister"))
CLEAN = Scenario(PAIR, STEPS, System("per-group"))
REPORTED = {
    "working_directory": ("working directory", "/"),
    "environment": ("environment", "NCCL_ALGO=Ring"),
    "environment_of_c": ("environment", "NCCL_ALGO=Ring"),
    "umask": ("umask", "0o077"),
    "default_dtype": ("default dtype", "torch.float64"),
    "default_device": ("default device", "meta"),
    "torch_equal": ("functions", "torch.equal=tests.tools.stateful."),
    "torch_empty": ("functions", "torch.empty=tests.tools.stateful."),
    "tensor_method": ("functions", "torch.Tensor.copy_=tests.tools.stateful."),
    "builtin": ("functions", "builtins.sorted=tests.tools.stateful."),
    "function_of_python": ("functions", "time.sleep=tests.tools.stateful."),
    "function_of_the_harness": ("functions", "SimCommunicator.register=tests.tools.stateful."),
    "garbage_collector": ("garbage collector", "on=True"),
    "garbage_thresholds": ("garbage collector", "thresholds=(1, "),
    "resource_limit": ("resource limits", "NOFILE=(200, "),
    "trace_function": ("trace functions", "trace=tests.tools.stateful."),
    "profile_function": ("trace functions", "profile=tests.tools.stateful."),
    "thread": ("threads", "left by a pool"),
    "descriptor": ("descriptors", "(/dev/null)"),
    "timer": ("timers", "real=armed"),
    "timer_that_kills": ("timers", "real=armed"),
    "alarm": ("timers", "real=armed"),
    "signal_handler": ("signal handlers", "SIGUSR2=SIG_IGN"),
    "blocked_signal": ("blocked signals", "SIGUSR2"),
    "module_path": ("module path", "/nowhere"),
    "module": ("modules", "json=<module 'json'>"),
    "thread_count": ("torch's threads", "in an operator=2"),
    "grad_mode": ("grad mode", "grad=False"),
    "inference_mode": ("grad mode", "inference=True"),
    "autocast": ("autocast", "cpu=True"),
    "deterministic_algorithms": ("deterministic algorithms", "on=True"),
    "kernel_of_an_operator": ("kernels of operators", "aten/clone/CPU"),
    "precision": ("precision", "matmul=medium"),
    "denormals": ("floating point", "keeps denormals=False"),
    "warnings_that_raise": ("warnings that raise", "Warning"),
    "recursion_limit": ("limits of Python", "recursion=5000"),
    "hook": ("hooks", "excepthook=tests.tools.stateful."),
    "priority": ("priority", "1"),
    "processors": ("processors", "["),
    "standard_output": ("standard streams", "(descriptor, 1, file, "),
    "child": ("child processes", "sleep"),  # without its arguments, as long as it is being executed
    "forked_child": ("child processes", "a fork of this process"),
    "grandchild": ("child processes", "sleep 600"),
}
"""The piece, and a part of its new value, that each change is reported as."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2, "sim") as world:
        yield world


def run(world: World, pool: str) -> list[Leftover]:
    """What one draw of a pool left, which has to end well."""
    assert judge(world.run(Scenario(PAIR, STEPS, System(stateful.pool(pool))))) == []
    return [left for left in world.leftovers if left.pool == stateful.pool(pool)]


def descendants(world: World) -> set[int]:
    return {each.pid for pid in world.pids for each in psutil.Process(pid).children(recursive=True)}


def test_every_change_has_its_line() -> None:
    assert REPORTED.keys() == stateful.CHANGES.keys()


@pytest.mark.parametrize("pool", stateful.CHANGES)
def test_a_change_is_reported_and_no_draw_inherits_it(world: World, pool: str) -> None:
    world.run(CLEAN)
    before = world.pids
    left = run(world, pool)
    assert [part in each.new for each in left for what, part in [REPORTED[pool]] if each.what == what] == [True], left
    assert {each.rank for each in left} <= {0, 1}
    assert [finding.rule for finding in judge(world.run(LEAKING))][:1] == ["freed-while-registered"]
    assert judge(world.run(CLEAN)) == []
    assert not {*before} & {*world.pids}
    assert descendants(world) == set()


def test_a_change_that_comes_again_is_counted(world: World) -> None:
    before = sum(left.draws for left in run(world, "umask"))
    assert [left.draws for left in run(world, "umask")] == [before + 1]


@pytest.mark.parametrize("pool", stateful.HARMLESS)
def test_what_no_draw_can_inherit_is_not_reported(world: World, pool: str) -> None:
    world.run(CLEAN)
    before = world.pids
    assert run(world, pool) == []
    assert world.pids == before


def test_a_pool_that_replaces_the_comparison_hides_no_wrong_data_in_its_own_draw(world: World) -> None:
    system = System("tests.tools.stateful:Blinds", "harness.system.planted.kernels:MissesTail")
    draw = world.run(Scenario(PAIR, (STEPS[0], AllGather("tp", View("a"), 100, via="kernel")), system))
    assert "wrong-data" in [finding.rule for finding in judge(draw)]


def test_what_loading_a_plug_in_changes_is_reported_and_kept_for_it_alone(world: World) -> None:
    world.run(CLEAN)
    own = Scenario(PAIR, STEPS, System("tests.tools.changes_at_import:Pool"))
    world.run(own)
    ranks = world.pids
    world.run(own)
    assert world.pids == ranks
    # a process is named without its arguments as long as it is being executed
    left = [
        (left.what, left.new.removesuffix(" 600"), left.at_import)
        for left in world.leftovers
        if left.pool == own.system.pool
    ]
    assert left == [("child processes", "sleep", True), ("environment", "NCCL_PROTO=LL", True)]
    world.run(CLEAN)
    assert not {*world.pids} & {*ranks}


def test_a_process_that_a_plug_in_starts_when_it_is_imported_lives_as_long_as_its_ranks(world: World) -> None:
    own = Scenario(PAIR, STEPS, System("tests.tools.changes_at_import:Pool"))
    for _ in range(2):
        assert judge(world.run(own)) == []
    assert len(helpers := descendants(world)) == 2
    world.run(CLEAN)
    assert [pid for pid in helpers if psutil.pid_exists(pid)] == []


def places(world: World, seed: int) -> list[int]:
    """Where the buffer lay on each rank, in a pool that places it at random."""
    draw = world.run(Scenario(PAIR, STEPS, System("tests.tools.stateful:AllocatesAtRandom"), seed))
    return [event.address for trace in draw.traces for event in trace.events if isinstance(event, Placed)]


def test_random_numbers_of_a_draw_follow_from_its_seed_and_the_rank(world: World) -> None:
    first = places(world, 1)
    assert places(world, 2) != first
    assert places(world, 1) == first
