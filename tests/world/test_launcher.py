"""Rank processes outlive neither parent nor zygote, whichever thread starts them and wherever Ctrl-C comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from harness.errors import MachineError
from harness.oracle.judge import judge
from harness.world import launcher
from harness.world.world import World
from harness.world.zygote import Process, Zygote, spawn
from tests.tools.draws import descriptors, mappings, scenario
from tests.tools.processes import left, marked, new_mark

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
from tests.tools.draws import scenario
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Launchers with zygotes of their own that have a second to answer. Returns the mark of the zygotes."""
    mark = new_mark()
    monkeypatch.setenv(*next(iter(mark.items())))
    monkeypatch.setattr(launcher, "ANSWERING", 1.0)
    return mark


def test_a_zygote_that_is_stopped_is_the_machines_fault_and_takes_its_ranks_along(impatient: dict[str, str]) -> None:
    before = descriptors(), mappings()
    with World(2, "sim", deadline=1) as world:
        psutil.Process(world.pids[0]).parent().suspend()
        with pytest.raises(MachineError, match="does not answer: it is stopped, or a rank of it cannot be ended"):
            world.run(scenario(pool="Naps"))
        assert left(impatient, seconds=20) == []
        assert judge(world.run(scenario())) == []  # on new ones
    assert (left(impatient, seconds=20), (descriptors(), mappings())) == ([], before)


def test_a_zygote_that_is_stopped_forks_no_rank_and_is_not_waited_for(impatient: dict[str, str]) -> None:
    with World(2, "sim") as world:
        zygote = psutil.Process(world.pids[0]).parent()
        world.renew()
        zygote.suspend()
        with pytest.raises(MachineError, match="does not answer"):
            world.run(scenario())
    assert left(impatient, seconds=20) == []


def test_a_zygote_that_is_stopped_while_it_imports_is_not_waited_for(
    impatient: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Process:
        process = spawn(*_)  # type: ignore[arg-type]
        os.kill(process.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        return process

    monkeypatch.setattr(launcher, "OPENING", 1.0)
    monkeypatch.setattr(Zygote.__init__, "__defaults__", ((), stopped))
    with pytest.raises(MachineError, match="does not answer: it is stopped, or its imports do not end"):
        World(2, "sim")
    assert left(impatient, seconds=20) == []


def test_a_world_made_on_a_thread_works_after_the_thread_has_ended() -> None:
    worlds: list[World] = []
    thread = threading.Thread(target=lambda: worlds.append(World(2, "sim")))
    thread.start()
    thread.join()
    with worlds[0] as world:
        assert judge(world.run(scenario())) == []


def test_a_default_timeout_of_sockets_ends_no_rank() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        with World(2, "sim") as world:
            assert judge(world.run(scenario())) == []
    finally:
        socket.setdefaulttimeout(before)


def test_a_world_works_on_another_thread(simulation: World) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(judge(simulation.run(scenario()))))
    thread.start()
    thread.join()
    assert found == [[]]


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


def test_a_forked_child_that_closes_its_copy_of_a_world_leaves_the_parents_ranks_alone() -> None:
    with World(2, "sim") as world:
        before = world.call("tests.tools.called:rank_and_group", "before")
        if (child := os.fork()) == 0:
            world.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert [word for _, _, word in before] == ["before"] * 2
        assert [word for _, _, word in world.call("tests.tools.called:rank_and_group", "after")] == ["after"] * 2


def test_ranks_are_waited_for_where_the_parent_ignores_that_children_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in in the parent may set it. What is ignored is inherited, and no child can be waited for."""
    monkeypatch.setenv(*next(iter(new_mark().items())))  # so that its zygote is new
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with World(2, "sim") as world:
            world.run(scenario(pool="Killed"))
            assert judge(world.run(scenario())) == []
    finally:
        signal.signal(signal.SIGCHLD, before)
