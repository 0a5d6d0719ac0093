"""The ranks of a world: started together or not at all, again where CUDA recovers, from one zygote or one each."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import Pipe
from typing import Any

import msgspec
import psutil
import pytest

from harness.clock import Clock
from harness.errors import MachineError
from harness.ipc.messages import Broken, Done, Reply
from harness.oracle.judge import judge
from harness.world import ranks as ranks_module
from harness.world import world as world_module
from harness.world.platform import Platform, choose
from harness.world.rank_process import RankProcess
from harness.world.ranks import CUDA_ERROR, last_error
from harness.world.world import World
from tests.tools.draws import EIGHT, scenario, states


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


@pytest.mark.parametrize("text", ["rank 0 cannot start: no such file", "rank 1 did not start within 120 s"])
def test_ranks_that_cannot_start_for_another_reason_are_not_started_again(
    lenient: None, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    failing(monkeypatch, 1, text)
    with pytest.raises(MachineError, match=text):
        World(2)


def test_where_nothing_recovers_ranks_are_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 1, "rank 0 died while starting: CUDA error: out of memory")
    with pytest.raises(MachineError, match="out of memory"):
        World(2, "sim")


@pytest.mark.parametrize(
    ("text", "is_cudas"),
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
def test_an_error_of_cuda_is_distinguished_from_others(text: str, is_cudas: bool) -> None:
    assert bool(CUDA_ERROR.search(text)) == is_cudas


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


def test_the_last_error_of_a_rank_is_its_exceptions_first_line() -> None:
    hints = "For debugging consider passing a variable\nCompile with a macro"
    printed = f"stderr:\nTraceback:\n  File\nValueError: a\ntorch.AcceleratorError: CUDA error: not ready\n{hints}"
    assert last_error(printed) == "torch.AcceleratorError: CUDA error: not ready"
    assert last_error(f"{printed}\nAssertionError\nhint") == "AssertionError"
    assert last_error("ValueError: a\nFatal Python error: Aborted\n\nThread 1") == "Fatal Python error: Aborted"
    assert (last_error("stderr:\nkilled"), last_error("")) == ("killed", "no message")


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
def eight() -> Iterator[World]:
    with World(8, "sim") as world:
        yield world


def test_eight_ranks_use_less_than_four_gibibytes_together(eight: World) -> None:
    eight.run(scenario(topology=EIGHT))
    zygote = psutil.Process(eight.pids[0]).parent()
    processes = [zygote, *map(psutil.Process, eight.pids)]
    assert sum(process.memory_full_info().pss for process in processes) < 4 << 30


def test_a_hang_of_eight_ranks_is_reported_as_one(eight: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight, "deadline", 1.0)
    draw = eight.run(scenario(topology=EIGHT, pool="Stops"))
    assert states(draw) == ["hung"] * 8
