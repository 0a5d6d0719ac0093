"""The world: ranks that live from draw to draw, whose every end is reported, and that outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from typing import Any

import msgspec
import psutil
import pytest

from harness import interrupts
from harness.clock import Clock
from harness.errors import MachineError, PluginError, UsageError
from harness.ipc.memory import REGISTER, SharedMemory
from harness.ipc.messages import Broken, Done, Reply
from harness.oracle.findings import Hang
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, ReduceScatter, Release, Step, Straggle
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.events import Event, Operand
from harness.world import ranks as ranks_module
from harness.world import stacks
from harness.world import world as world_module
from harness.world.platform import Platform, choose
from harness.world.rank_process import RankProcess, death
from harness.world.ranks import CUDA_ERROR, last_error
from harness.world.stacks import py_spy
from harness.world.world import World
from tests.tools.processes import left, marked, new_mark

needs_py_spy = pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed: it is in the extra `hang`")
PAIR = Topology("pair", "sglang", {"tp": 2})
THREE = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),), "cp": ((0, 2), (1,))})
QUAD = Topology("quad", "sglang", {"tp": 4, "attn_cp": 2, "attn_dp": 2})
SOUND: tuple[Step, ...] = (
    Allocate("a", "tp", 1024, "bfloat16"),
    Allocate("b", "tp", 256, "bfloat16"),
    AllGather("tp", View("a", 3), 100),
    ReduceScatter("tp", View("a"), 50, View("b"), via="kernel"),
    Release("a"),
    Allocate("c", "tp", 1 << 20),
    AllGather("tp", View("c"), 100, via="kernel"),
)


def scenario(*steps: Step, topology: Topology = PAIR, pool: str = "per-group") -> Scenario:
    """These steps, or sound ones that use every path, on a pool by its name or one of `tests.tools.unruly`."""
    name = pool if pool.islower() else f"tests.tools.unruly:{pool}"
    return Scenario(topology, steps or SOUND, System(name))


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


def states(draw: Draw) -> list[str]:
    return [fate.state for fate in draw.fates]


@contextmanager
def soon(call: Callable[[], object]) -> Iterator[None]:
    """Do something while a draw runs, unless it ends too early."""
    timer = threading.Timer(0.3, call)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# ranks are kept


def test_ranks_keep_their_processes_from_draw_to_draw(ranks: World) -> None:
    assert ranks.run(scenario()).is_clean
    before = ranks.pids
    assert ranks.run(scenario()).is_clean
    assert ranks.pids == before


def test_worlds_of_different_size_share_the_ranks(ranks: World) -> None:
    ranks.run(scenario())
    before = ranks.pids
    draws = [ranks.run(scenario(topology=topology)) for topology in (QUAD, PAIR, THREE, QUAD)]
    assert [(len(draw.traces), draw.is_clean) for draw in draws] == [(4, True), (2, True), (3, True), (4, True)]
    assert ranks.pids == before


def test_every_rank_is_a_process_of_its_own(ranks: World) -> None:
    ranks.run(scenario())
    assert len({*ranks.pids, os.getpid()}) == 5


def test_draws_stay_clean_when_rows_of_counters_are_given_out_anew(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "SLOTS", 4)
    topologies = (PAIR, QUAD, THREE, QUAD, THREE, PAIR)  # the fourth takes the row that was the first's
    assert [ranks.run(scenario(topology=topology)).is_clean for topology in topologies] == [True] * 6


def test_a_registration_that_one_rank_made_alone_does_not_outlive_its_draw(ranks: World) -> None:
    """As NCCL leaves it where a registration raised on some ranks only."""
    assert ranks.run(scenario()).is_clean
    for slot in ranks._slots.values():
        ranks._shared.counters[slot, 0, REGISTER] += 1
    assert ranks.run(scenario()).is_clean


def test_a_scenario_that_is_too_large_is_refused_with_both_sizes(ranks: World) -> None:
    eight = Topology("eight", "sglang", {"tp": 8})
    with pytest.raises(UsageError, match="8 ranks does not fit a world of 4"):
        ranks.run(scenario(topology=eight))


def test_a_world_without_ranks_is_refused() -> None:
    with pytest.raises(UsageError, match="a world of 0 ranks"):
        World(0, "sim")


# the same scenario, the same facts


def without_addresses(value: Any) -> Any:
    """An event, or an operand in one, with every address set to zero."""
    if not isinstance(value, Event | Operand):
        return value
    fields = {name: without_addresses(part) for name, part in msgspec.structs.asdict(value).items()}
    return type(value)(**{**fields, **({"address": 0} if "address" in fields else {})})


def facts(draw: Draw) -> list[list[Event]]:
    return [[without_addresses(event) for event in trace.events] for trace in draw.traces]


@pytest.mark.parametrize("topology", [PAIR, QUAD], ids=lambda topology: topology.name)
def test_a_scenario_run_twice_gives_the_same_trace(ranks: World, topology: Topology) -> None:
    first = facts(ranks.run(scenario(topology=topology)))
    ranks.run(scenario(Allocate("large", "tp", 1 << 22), topology=QUAD))  # so that there is something to inherit
    assert facts(ranks.run(scenario(topology=topology))) == first


def test_a_scenario_run_on_fresh_ranks_gives_the_same_trace(ranks: World) -> None:
    first = facts(ranks.run(scenario()))
    ranks.run(scenario(pool="Killed"))
    assert facts(ranks.run(scenario())) == first


# a rank dies


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("Killed", "was killed by signal 9 (SIGKILL)"),
        ("Aborts", "was killed by signal 6 (SIGABRT)"),
        ("Leaves", "exited with status 7"),
    ],
)
def test_a_rank_that_dies_in_a_draw_is_reported_with_how(ranks: World, pool: str, how: str) -> None:
    draw = ranks.run(scenario(pool=pool))
    assert (draw.fates[1].state, draw.fates[1].how.splitlines()[0]) == ("crashed", how)


def test_ranks_that_wait_for_a_dead_one_are_not_said_to_hang(ranks: World) -> None:
    assert states(ranks.run(scenario(topology=QUAD, pool="Killed"))) == ["stopped", "crashed", "stopped", "stopped"]


def test_a_rank_killed_in_a_draw_is_reported_with_its_signal(ranks: World) -> None:
    ranks.run(scenario())
    victim = ranks.pids[1]
    with soon(lambda: os.kill(victim, signal.SIGTERM)):
        draw = ranks.run(scenario(Straggle(0, 1500), *SOUND))
    assert draw.fates[1].how == "was killed by signal 15 (SIGTERM)"


def test_a_rank_killed_between_two_draws_is_reported_with_its_signal(ranks: World) -> None:
    ranks.run(scenario())
    os.kill(ranks.pids[0], signal.SIGKILL)
    draw = ranks.run(scenario())
    assert draw.fates[0].how == "was killed by signal 9 (SIGKILL)"


def test_a_rank_killed_before_a_draw_of_another_size_is_reported_with_its_signal(ranks: World) -> None:
    ranks.run(scenario(pool="Killed"))
    ranks.run(scenario())  # fresh ranks, which know of worlds of two alone
    os.kill(ranks.pids[1], signal.SIGKILL)
    draw = ranks.run(scenario(topology=QUAD))
    assert draw.fates[1].how == "was killed by signal 9 (SIGKILL)"


@pytest.mark.parametrize("pool", ["Killed", "Leaves", "Crashes", "Spins", "Stops", "Raises"])
def test_the_draw_after_a_broken_one_works(ranks: World, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "deadline", 0.5)
        try:
            ranks.run(scenario(pool=pool))
        except PluginError:
            assert pool == "Raises"
    assert judge(ranks.run(scenario())) == []


def test_broken_ranks_are_replaced_by_new_processes(ranks: World) -> None:
    ranks.run(scenario())
    before = ranks.pids
    ranks.run(scenario(pool="Killed"))
    ranks.run(scenario())
    assert not {*before} & {*ranks.pids}


@pytest.mark.parametrize("pool", ["Killed", "Spins", "Stops"])
def test_broken_ranks_are_gone_when_the_report_comes(ranks: World, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    ranks.run(scenario())
    before, own = ranks.pids, {*psutil.Process().children()}
    monkeypatch.setattr(ranks, "deadline", 0.5)
    ranks.run(scenario(pool=pool))
    assert [pid for pid in before if psutil.pid_exists(pid)] == []
    assert {*psutil.Process().children()} == own


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (signal.SIGBUS, "was killed by signal 7 (SIGBUS)"),
        (40, "was killed by signal 40"),
        (3 << 8, "exited with status 3"),
    ],
)
def test_a_death_is_told_by_its_status(status: int, how: str) -> None:
    assert death(status) == how


def test_a_crash_tells_stdout_from_stderr(ranks: World) -> None:
    draw = ranks.run(scenario(pool="SpeaksAndLeaves"))
    assert draw.fates[1].how.splitlines()[1:] == ["stdout:", "for everyone", "stderr:", "in confidence"]


def test_a_crash_tells_nothing_of_the_draw_before(ranks: World) -> None:
    assert ranks.run(scenario(pool="Speaks")).is_clean
    draw = ranks.run(scenario(pool="Leaves"))
    assert draw.fates[1].how == "exited with status 7"


# ranks hang

REFUSED = (Deny(1), Allocate("a", "tp", 1024), AllGather("tp", View("a"), 100))
"""Rank 1 is refused its segment, so that the others wait for its registration."""


def test_ranks_that_wait_for_each_other_are_found_long_before_the_deadline(ranks: World) -> None:
    draw = ranks.run(scenario(*REFUSED))
    assert states(draw) == ["hung", "hung"]
    assert draw.seconds < draw.deadline / 4


def test_a_hang_tells_where_every_rank_stood(ranks: World) -> None:
    findings = judge(ranks.run(scenario(*REFUSED, topology=QUAD)))
    hang = next(finding for finding in findings if isinstance(finding, Hang))
    where = "ranks 0, 2, 3 at step 1 (allocate) in register of tp[0,1,2,3]; rank 1 at the end"
    assert where in hang.explanation


def test_a_hang_shows_the_stack_of_every_rank(ranks: World) -> None:
    draw = ranks.run(scenario(*REFUSED))
    assert ["register (" in draw.fates[0].stack, "meet (" in draw.fates[1].stack] == [True, True]


@pytest.mark.parametrize("pool", ["Spins", "Stops"])
def test_a_rank_that_never_returns_is_reported_at_the_deadline(
    ranks: World, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    ranks.run(scenario())  # so that starting ranks takes none of the time below
    monkeypatch.setattr(ranks, "deadline", 1.0)
    began = time.monotonic()
    draw = ranks.run(scenario(pool=pool))
    took = time.monotonic() - began
    assert states(draw) == ["hung", "hung"]
    assert 1.0 <= took < 4.0


def test_a_rank_that_never_returns_shows_its_stack(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 0.5)
    draw = ranks.run(scenario(pool="Spins"))
    assert "misbehave (" in draw.fates[1].stack.splitlines()[0]


def test_ranks_that_are_known_to_wait_on_the_host_tell_their_stacks_themselves(ranks: World) -> None:
    draw = ranks.run(scenario(*REFUSED))
    assert [fate.witness for fate in draw.fates] == ["SIGUSR1", "SIGUSR1"]


@needs_py_spy
def test_ranks_that_the_deadline_ended_show_native_frames(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 0.5)
    monkeypatch.setattr(stacks, "SPYING", 30.0)  # on a busy machine too
    draw = ranks.run(scenario(pool="Naps"))
    assert [fate.witness for fate in draw.fates] == ["py-spy with native frames"] * 2
    assert ".so" in draw.fates[1].stack.splitlines()[0]


@needs_py_spy
def test_a_rank_that_is_stopped_shows_its_stack(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 0.5)
    monkeypatch.setattr(stacks, "SPYING", 30.0)
    draw = ranks.run(scenario(pool="Stops"))
    assert (draw.fates[1].witness, "misbehave (" in draw.fates[1].stack) == ("py-spy", True)


def test_a_hurried_draw_is_a_hang_once_all_ranks_have_been_silent(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_silences", deque())
    draw = ranks.run(scenario(pool="Spins"), hurried=True)
    assert "hang" in [finding.rule for finding in judge(draw)]
    assert (draw.is_presumed, ranks.platform.patience <= draw.seconds < ranks.deadline / 2) == (True, True)
    assert "py-spy with native frames" not in [fate.witness for fate in draw.fates]


def test_a_hurried_draw_waits_ten_times_the_longest_silence_of_those_that_ended_well(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_silences", deque())
    assert ranks.patience == ranks.platform.patience
    assert ranks.run(scenario(pool="Dawdles")).is_clean
    assert ranks.patience > 10
    assert ranks.run(scenario(pool="Dawdles"), hurried=True).is_clean


def test_a_hurried_draw_in_which_a_rank_goes_on_is_no_hang(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_silences", deque())
    monkeypatch.setattr(ranks, "platform", msgspec.structs.replace(ranks.platform, patience=0.5))
    draw = ranks.run(scenario(*[Straggle(0, 200)] * 5, *SOUND), hurried=True)
    assert (draw.is_clean, draw.seconds > 1.0) == (True, True)


def test_a_pause_that_the_program_asks_for_is_no_hang_and_makes_nobody_patient(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_silences", deque())
    assert ranks.run(scenario(Straggle(0, 1500), *SOUND), hurried=True).is_clean
    assert not ranks._silences


def test_one_long_silence_is_forgotten_after_a_hundred_draws(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_silences", deque([60.0], maxlen=ranks._silences.maxlen))
    before = ranks.patience
    for _ in range(100):
        assert ranks.run(scenario(SOUND[0])).is_clean
    assert (before, ranks.patience < 60) == (600, True)


def test_a_hang_of_eight_ranks_is_reported_soon_after_the_deadline(
    eight: tuple[World, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = eight
    topology = Topology("eight", "sglang", {"tp": 8})
    world.run(scenario(topology=topology))
    monkeypatch.setattr(world, "deadline", 1.0)
    began = time.monotonic()
    draw = world.run(scenario(topology=topology, pool="Stops"))
    assert states(draw) == ["hung"] * 8
    assert time.monotonic() - began < 12.0  # 3 s on an idle machine; tests share theirs


@pytest.mark.parametrize("via", ["library", "kernel"])
def test_a_slow_rank_is_not_taken_for_a_hang(ranks: World, via: str) -> None:
    slow = scenario(*SOUND[:2], Straggle(2, 1500), AllGather("tp", View("a"), 9, via=via), topology=QUAD)  # type: ignore[arg-type]
    draw = ranks.run(slow)
    assert (states(draw), draw.seconds > 1.5) == (["finished"] * 4, True)


def test_a_slow_pool_is_not_taken_for_a_hang(ranks: World) -> None:
    """Its peers wait in a registration, which has no straggle of its own."""
    assert judge(ranks.run(scenario(*SOUND[:1], AllGather("tp", View("a"), 9), pool="Dawdles"))) == []


# the system under test raises


def test_a_pool_that_raises_ends_the_draw_with_its_words(ranks: World) -> None:
    with pytest.raises(PluginError, match="rank 1: ValueError: no pool today"):
        ranks.run(scenario(pool="Raises"))


def test_a_pool_that_raises_is_named_with_the_place(ranks: World) -> None:
    with pytest.raises(PluginError, match=r"tests\.tools\.unruly:Raises.* \(in misbehave, unruly\.py:\d+\)$"):
        ranks.run(scenario(pool="Raises"))


# calls of a function


def test_a_call_returns_what_every_rank_returned(ranks: World) -> None:
    everyone = tuple(range(ranks.size))
    assert ranks.call("tests.tools.called:rank_and_group", "hello") == [(rank, everyone, "hello") for rank in everyone]


FAILED_CALLS = {
    "tests.tools.called:dies": "rank 1 died in tests.tools.called:dies",
    "tests.tools.called:raises": "tests.tools.called:raises failed on rank 1: ValueError: not today",
    "tests.tools.called:missing": "no 'missing'",
}


@pytest.mark.parametrize("function", FAILED_CALLS)
def test_a_call_that_fails_on_one_rank_says_so_at_once_and_the_next_draw_works(ranks: World, function: str) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError, match=FAILED_CALLS[function]):
        ranks.call(function)
    assert time.monotonic() - began < 20
    assert judge(ranks.run(scenario())) == []


def test_a_call_finds_room_for_its_group(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.world.world.SLOTS", 1)
    ranks.run(scenario())
    assert len(ranks.call("tests.tools.called:rank_and_group", "")) == ranks.size


# nothing outlives its user


def test_ctrl_c_in_a_draw_ends_the_ranks(ranks: World) -> None:
    ranks.run(scenario())
    before = ranks.pids
    with pytest.raises(KeyboardInterrupt), soon(press_ctrl_c):
        ranks.run(scenario(Straggle(0, 2000), *SOUND))
    assert [pid for pid in before if psutil.pid_exists(pid)] == []


def test_the_draw_after_ctrl_c_works(ranks: World) -> None:
    with pytest.raises(KeyboardInterrupt), soon(press_ctrl_c):
        ranks.run(scenario(Straggle(0, 2000), *SOUND))
    assert judge(ranks.run(scenario())) == []


def test_ctrl_c_while_ranks_are_forked_leaves_a_world_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with World(2, "sim") as world:
        world.run(scenario(pool="Killed"))  # the next draw forks new ranks
        with monkeypatch.context() as patched:
            patched.setattr("harness.ipc.packets.send", press)
            with pytest.raises(KeyboardInterrupt):
                world.run(scenario())
        assert judge(world.run(scenario())) == []


def descriptors() -> list[str]:
    """What this process holds open that belongs to a world: shared memory, output, sockets, pipes."""
    held = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith(("/memfd:", "socket:", "pipe:")):
            held.append(target)
    return sorted(held)


def mappings() -> int:
    """How often the memory of a world is mapped into this process."""
    with open("/proc/self/maps") as maps:
        return sum("symm-harness" in line for line in maps)


@pytest.fixture(scope="module")
def remains(ranks: World) -> dict[str, Any]:
    """What is left of a world that ran a draw, lost a rank, and was closed; `ranks` was there before and stays."""
    ranks.run(scenario())
    mark, before = new_mark(), (descriptors(), mappings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*next(iter(mark.items())))
        world = World(2, "sim")
    alive = marked(mark)
    world.run(scenario(pool="Killed"))
    world.run(scenario())
    world.close()
    return {"world": world, "alive": alive, "left": marked(mark), "before": before, "now": (descriptors(), mappings())}


def test_a_world_of_two_ranks_has_processes(remains: dict[str, Any]) -> None:
    assert len(remains["alive"]) == 3  # the ranks, and the zygote they are forked from


def test_a_closed_world_leaves_no_process(remains: dict[str, Any]) -> None:
    assert remains["left"] == []


def test_a_closed_world_leaves_no_descriptor(remains: dict[str, Any]) -> None:
    assert remains["now"][0] == remains["before"][0]


def test_a_closed_world_leaves_no_memory_mapped(remains: dict[str, Any]) -> None:
    assert remains["now"][1] == remains["before"][1]


def test_a_world_may_be_closed_twice(remains: dict[str, Any]) -> None:
    remains["world"].close()


def test_a_closed_world_refuses_a_draw(remains: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="closed"):
        remains["world"].run(scenario())


def refuse(*_: object) -> None:
    raise OSError(12, "Cannot allocate memory")


def test_memory_that_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError, match=r"\d+ MiB of shared memory: Cannot allocate memory"):
        SharedMemory.create(2)


def test_memory_that_is_refused_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError):
        SharedMemory.create(2)
    assert descriptors() == before


def test_a_world_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(MachineError, match="cannot start"):
        World(2, "sim")


def test_a_world_that_cannot_start_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(MachineError):
        World(2, "sim")
    assert descriptors() == before


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation whose ranks may be started again, as on a GPU under MPS."""

    def chosen(*_: object) -> Platform:
        return msgspec.structs.replace(choose("sim", 2), recovery=5.0)

    monkeypatch.setattr(world_module, "choose", chosen)


def failing(monkeypatch: pytest.MonkeyPatch, times: int, text: str) -> list[list[int]]:
    """Have that many starts fail with this text; the process ids of the ranks of every start."""
    collect, started = ranks_module.collect, []

    def fails(ranks: list[RankProcess], clock: Clock) -> list[Reply]:
        replies = collect(ranks, clock)
        pids = [rank.pid for rank in ranks]
        if len(started) <= times and pids not in started:
            started.append(pids)
            if len(started) <= times:
                raise MachineError(text)
        return replies

    monkeypatch.setattr(ranks_module, "collect", fails)
    return started


def test_ranks_that_cuda_does_not_let_start_are_started_again(lenient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = failing(monkeypatch, 2, "rank 0 died while starting: CUDA error: the MPS server is not ready")
    with World(2) as world:
        assert world.pids == started[2]
        assert not any(psutil.pid_exists(pid) for pids in started[:2] for pid in pids)
        assert judge(world.run(scenario())) == []


@pytest.mark.parametrize("words", ["rank 0 cannot start: no such file", "rank 1 did not start within 120 s"])
def test_ranks_that_cannot_start_for_another_reason_are_not_started_again(
    lenient: None, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    failing(monkeypatch, 1, words)
    with pytest.raises(MachineError, match=words):
        World(2)


def test_where_nothing_recovers_ranks_are_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 1, "rank 0 died while starting: CUDA error: out of memory")
    with pytest.raises(MachineError, match="out of memory"):
        World(2, "sim")


@pytest.mark.parametrize(
    ("words", "is_cudas"),
    [
        ("torch.AcceleratorError: CUDA error: the MPS server is not ready to accept new MPS client requests", True),
        ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions", True),
        ("RuntimeError: CUDA driver error: unknown error", True),
        ("cannot start: failed with cudaErrorMpsClientTerminated from init", True),
        ("cannot start: failed with ncclUnhandledCudaError from init", True),
        ("cannot start: failed with ncclRemoteError from init", False),
        ("ModuleNotFoundError: No module named 'cuda'", False),
    ],
)
def test_what_cuda_says_is_told_from_what_others_say(words: str, is_cudas: bool) -> None:
    assert bool(CUDA_ERROR.search(words)) == is_cudas


class FailingRank:
    """Has sent one reply, or has died."""

    def __init__(self, reply: Reply | None) -> None:
        self.connection, inside = Pipe()
        if reply:
            inside.send(reply)
        inside.close()

    def receive(self) -> Reply:
        reply: Reply = self.connection.recv()
        return reply

    def printed(self) -> str:
        return "CUDA error: gone"


def test_of_ranks_that_fail_at_once_the_one_that_cuda_refused_is_reported() -> None:
    ranks: list[Any] = [FailingRank(reply) for reply in (Broken("failed with ncclRemoteError"), None, Done())]
    with pytest.raises(MachineError, match="rank 1 died while starting: CUDA error: gone"):
        ranks_module.collect(ranks)


def test_a_call_after_ctrl_c_is_not_made(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_signal", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ranks.call("tests.tools.called:rank_and_group", "")


def test_thelast_error_of_a_rank_is_its_exceptions_first_line() -> None:
    hints = "For debugging consider passing a variable\nCompile with a macro"
    printed = f"stderr:\nTraceback:\n  File\nValueError: a\ntorch.AcceleratorError: CUDA error: not ready\n{hints}"
    assert last_error(printed) == "torch.AcceleratorError: CUDA error: not ready"
    assert last_error(f"{printed}\nAssertionError\nhint") == "AssertionError"
    assert last_error("ValueError: a\nFatal Python error: Aborted\n\nThread 1") == "Fatal Python error: Aborted"
    assert (last_error("stderr:\nkilled"), last_error("")) == ("killed", "no message")


USES = {
    "in a draw": "world = World(2, 'sim', deadline=60)\nready()\nworld.run(spinning)",
    "made on another thread": """
def use():
    global world
    world = World(2, 'sim', deadline=60)
    ready()
    world.run(spinning)
threading.Thread(target=use).start()
""",
}
PREAMBLE = """
import threading, time
from harness import World
from tests.world.test_world import scenario
def ready():
    threading.Timer(0.3, print, ["ready"], {"flush": True}).start()
spinning = scenario(pool="Spins")
"""


@pytest.mark.parametrize("use", USES)
def test_ranks_die_with_their_parent(use: str, request: pytest.FixtureRequest) -> None:
    mark = new_mark()
    parent = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + USES[use]],
        env={**os.environ, **mark},
        cwd=request.config.rootpath,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        alive = marked(mark)
        parent.kill()
        parent.wait()
        assert (len(alive), left(mark, seconds=20)) == (4, [])  # parent, zygote and two ranks


def test_a_zygote_that_starts_dies_with_its_parent(request: pytest.FixtureRequest) -> None:
    mark = new_mark()
    parent = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + "World(2, 'sim')"], env={**os.environ, **mark}, cwd=request.config.rootpath
    )
    while len(marked(mark)) < 2:
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert left(mark, seconds=20) == []


def test_the_end_of_the_zygote_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out the kernel may end any process. The first draw may still report the ranks alone."""
    monkeypatch.setenv(*next(iter(new_mark().items())))  # so that no other world is on it
    with World(2, "sim") as world:
        psutil.Process(world.pids[0]).parent().kill()
        twice = [scenario(), scenario()]
        with pytest.raises(MachineError):
            [world.run(drawn) for drawn in twice]


# other ways to start


def test_a_world_made_on_a_thread_works_after_the_thread_has_ended() -> None:
    worlds: list[World] = []
    thread = threading.Thread(target=lambda: worlds.append(World(2, "sim")))
    thread.start()
    thread.join()
    with worlds[0] as world:
        assert judge(world.run(scenario())) == []


def test_a_world_works_on_another_thread(ranks: World) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(judge(ranks.run(scenario()))))
    thread.start()
    thread.join()
    assert found == [[]]


@pytest.fixture(scope="module")
def spawned() -> Iterator[World]:
    """Two ranks that are each a fresh interpreter."""
    with World(2, "sim", start="spawn") as world:
        yield world


def test_spawned_ranks_share_no_parent(spawned: World) -> None:
    parents = {psutil.Process(pid).ppid() for pid in spawned.pids}
    assert len(parents) == 2


def test_spawned_ranks_run_draws(spawned: World) -> None:
    assert judge(spawned.run(scenario())) == []


def test_a_spawned_rank_that_dies_is_reported_with_its_signal(spawned: World) -> None:
    draw = spawned.run(scenario(pool="Killed"))
    assert draw.fates[1].how == "was killed by signal 9 (SIGKILL)"


@pytest.fixture(scope="module")
def eight() -> Iterator[tuple[World, float]]:
    """Eight ranks, and the seconds they took to start."""
    began = time.monotonic()
    with World(8, "sim") as world:
        yield world, time.monotonic() - began


def test_eight_ranks_start_in_less_than_eight_seconds(eight: tuple[World, float]) -> None:
    assert eight[1] < 8


def test_eight_ranks_use_less_than_four_gibibytes_together(eight: tuple[World, float]) -> None:
    world, _ = eight
    world.run(scenario(topology=Topology("eight", "sglang", {"tp": 8})))
    zygote = psutil.Process(world.pids[0]).parent()
    processes = [zygote, *map(psutil.Process, world.pids)]
    assert sum(process.memory_full_info().pss for process in processes) < 4 << 30
