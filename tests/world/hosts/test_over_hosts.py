"""A world over two hosts is one: its ranks meet, end and are judged as on one host, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import psutil
import pytest

from harness.errors import UsageError
from harness.oracle.judge import judge
from harness.scenario.schedule import Schedule
from harness.world.hosts.gathering import Gathering
from harness.world.hosts.hosts import Over
from harness.world.hosts.launch import Launch
from harness.world.stacks import py_spy
from harness.world.world import World
from tests.tools.draws import REFUSED, mappings, scenario, states
from tests.tools.processes import marked, new_mark
from tests.tools.tasks import TOKEN, free_port, start, variables

HOST = 1
"""Ranks on each of the two hosts, so that rank 1, which misbehaves, is on the other one."""


class TwoHosts(NamedTuple):
    """A world of this process and one task, which is another host by its id."""

    world: World
    task: subprocess.Popen[str]
    mark: dict[str, str]


def memory() -> tuple[int, int, int]:
    """Files of memory and bells that this process holds, and mappings of a world."""
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum("/memfd:" in each for each in held), sum("eventfd" in each for each in held), mappings()


@pytest.fixture(scope="module")
def two(simulation: World) -> Iterator[TwoHosts]:  # which is there before, so that all that is new is of this world
    port, mark = free_port(), new_mark()
    task = start({**variables(1, 2, HOST, port), **mark}, "fuzz")
    gathering = Gathering(Launch(0, 2, "127.0.0.1", port + 1, TOKEN, "torchrun"), "symm fuzz")
    before = memory()
    with World(2, "sim", deadline=3, over=Over(*gathering.others())) as world:
        yield TwoHosts(world, task, mark)
    assert marked(mark) == [task.pid], "a world that is closed leaves its task alone"
    assert memory() == before
    gathering.dismiss(0)
    assert (task.communicate(timeout=30), task.returncode) == (("", ""), 0)


def test_ranks_on_two_hosts_run_what_ranks_on_one_do(two: TwoHosts, simulation: World) -> None:
    over, alone = two.world.run(scenario()), simulation.run(scenario())
    assert (over.is_clean, judge(over)) == (True, [])
    assert [len(trace.events) for trace in over.traces] == [len(trace.events) for trace in alone.traces]
    zygote = psutil.Process(two.world.pids[1]).parent()
    assert zygote is not None
    assert zygote.ppid() == two.task.pid


def test_no_draw_inherits_from_the_one_before(two: TwoHosts) -> None:
    assert two.world.run(scenario()).is_clean
    before = two.world.pids
    assert [two.world.run(scenario()).is_clean for _ in range(5)] == [True] * 5
    assert two.world.pids == before


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("Killed", "was killed by signal 9 (SIGKILL)"),
        ("Leaves", "exited with status 7"),
        (
            "WritesOverItsJournal",
            "its journal is damaged: something in this rank or one of its peers wrote over memory",
        ),
    ],
)
def test_a_rank_of_another_host_that_dies_has_crashed_and_is_replaced(two: TwoHosts, pool: str, how: str) -> None:
    draw = two.world.run(scenario(pool=pool))
    assert draw.fates[1].state == "crashed"
    assert draw.fates[1].how.startswith(how)
    assert two.world.run(scenario()).is_clean


def test_a_deadlock_over_hosts_is_decided_before_the_deadline(two: TwoHosts) -> None:
    two.world.run(scenario())
    draw = two.world.run(scenario(*REFUSED))
    assert (states(draw), draw.seconds < 2) == (["hung", "hung"], True)
    assert all("meet" in fate.stack for fate in draw.fates)


def test_a_rank_of_another_host_that_spins_has_its_stack_read_there(two: TwoHosts) -> None:
    fate = two.world.run(scenario(pool="Spins")).fates[1]
    assert (fate.state, "misbehave" in fate.stack) == ("hung", True)


@pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed: it is in the extra `hang`")
def test_a_stopped_rank_of_another_host_is_read_by_py_spy_there(two: TwoHosts) -> None:
    fate = two.world.run(scenario(pool="Stops")).fates[1]
    assert (fate.state, "misbehave" in fate.stack, fate.witness.startswith("py-spy")) == ("hung", True, True)


def test_what_a_rank_of_another_host_raises_and_prints_comes_over(two: TwoHosts) -> None:
    fate = two.world.run(scenario(pool="RaisesOverItsJournal")).fates[1]
    assert "was here" in fate.printed


def test_a_rank_that_died_between_two_draws_is_replaced(two: TwoHosts) -> None:
    assert two.world.run(scenario()).is_clean
    os.kill(two.world.pids[1], signal.SIGKILL)
    time.sleep(0.5)
    assert two.world.run(scenario()).is_clean
    assert "was killed by signal 9 (SIGKILL)" in [leftover.new for leftover in two.world.leftovers]


def test_what_only_one_host_can_run_is_refused(two: TwoHosts) -> None:
    with pytest.raises(UsageError, match="by a schedule on one host alone"):
        two.world.run(msgspec.structs.replace(scenario(), schedule=Schedule((0, 1))))
    with pytest.raises(UsageError, match="runs on one host"):
        two.world.call("tests.tools.called:rank_and_group", "word")
