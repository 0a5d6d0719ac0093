"""The world: ranks that live from draw to draw, whose every end is reported, and that do not outlive their parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest

from harness import interrupts
from harness.errors import MachineError, PluginError, UsageError
from harness.ipc.messages import Request
from harness.oracle.findings import Hang
from harness.oracle.judge import judge
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, SendReceive, Straggle
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.events import Event, Operand
from harness.trace.trace import Trace
from harness.world import stacks
from harness.world import world as world_module
from harness.world.leftovers import PROCESS
from harness.world.rank_process import RankProcess
from harness.world.stacks import py_spy
from harness.world.world import World
from tests.tools.draws import EIGHT, PAIR, QUAD, REFUSED, SOUND, THREE, descriptors, mappings, scenario, states
from tests.tools.processes import marked, new_mark
from tests.tools.unruly import CHILD, DAWDLING

needs_py_spy = pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed: it is in the extra `hang`")


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


@pytest.fixture
def fresh() -> Iterator[World]:
    """A world that has seen no draw, and so learned no patience."""
    with World(2, "sim") as world:
        yield world


# ranks are kept


def test_ranks_keep_their_processes_from_draw_to_draw(ranks: World) -> None:
    assert ranks.run(scenario()).is_clean
    before = ranks.pids
    assert ranks.run(scenario()).is_clean
    assert ranks.pids == before


@pytest.mark.parametrize("keeps_connections", [True, False])
def test_where_connections_outlive_draws_ranks_are_replaced_after_a_lost_send(
    fresh: World, monkeypatch: pytest.MonkeyPatch, keeps_connections: bool
) -> None:
    monkeypatch.setattr(World, "_keeps_connections", keeps_connections)
    send = SendReceive("tp", View("o"), 4097, View("s"), 1)
    right, lost = (
        scenario(Allocate("o", "tp", 4097), Allocate("s", "tp", 4097, role=role), send)  # type: ignore[arg-type]
        for role in ("window", "plain")
    )
    assert not judge(fresh.run(right))
    assert fresh.restarts == 0
    assert judge(fresh.run(lost))
    assert fresh.restarts == keeps_connections
    assert not judge(fresh.run(right))


def test_worlds_of_different_size_share_the_ranks(ranks: World) -> None:
    ranks.run(scenario())
    before = ranks.pids
    draws = [ranks.run(scenario(topology=topology)) for topology in (QUAD, PAIR, THREE, QUAD)]
    assert [(len(draw.traces), draw.is_clean) for draw in draws] == [(4, True), (2, True), (3, True), (4, True)]
    assert ranks.pids == before


def test_every_rank_is_a_process_of_its_own(ranks: World) -> None:
    ranks.run(scenario())
    assert len({*ranks.pids, os.getpid()}) == 5


def test_draws_stay_clean_when_rows_of_counters_are_given_out_again(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "SLOTS", 4)
    topologies = (PAIR, QUAD, THREE, QUAD, THREE, PAIR)  # the fourth takes the row that was the first's
    assert [ranks.run(scenario(topology=topology)).is_clean for topology in topologies] == [True] * 6


def test_a_registration_that_one_rank_made_alone_does_not_outlive_its_draw(ranks: World) -> None:
    """As NCCL leaves it where a registration raised on some ranks only."""
    ranks.call("tests.tools.called:registers_alone")
    assert ranks.run(scenario(topology=QUAD)).is_clean


def test_a_scenario_that_is_too_large_is_refused_with_both_sizes(ranks: World) -> None:
    with pytest.raises(UsageError, match="8 ranks does not fit a world of 4"):
        ranks.run(scenario(topology=EIGHT))


def test_a_world_without_ranks_is_refused() -> None:
    with pytest.raises(UsageError, match="a world of 0 ranks"):
        World(0, "sim")


# the same scenario, the same events


def without_addresses(value: Any) -> Any:
    """An event, or an operand in one, with every address set to zero."""
    if not isinstance(value, Event | Operand):
        return value
    fields = {name: without_addresses(part) for name, part in msgspec.structs.asdict(value).items()}
    return type(value)(**{**fields, **({"address": 0} if "address" in fields else {})})


def events(draw: Draw) -> list[list[Event]]:
    return [[without_addresses(event) for event in trace.events] for trace in draw.traces]


@pytest.mark.parametrize("topology", [PAIR, QUAD], ids=lambda topology: topology.name)
def test_a_scenario_run_twice_gives_the_same_trace(ranks: World, topology: Topology) -> None:
    first = events(ranks.run(scenario(topology=topology)))
    ranks.run(scenario(Allocate("large", "tp", 1 << 22), topology=QUAD))  # so that there is something to inherit
    assert events(ranks.run(scenario(topology=topology))) == first


def test_a_scenario_run_on_fresh_ranks_gives_the_same_trace(ranks: World) -> None:
    first = events(ranks.run(scenario()))
    ranks.run(scenario(pool="Killed"))
    assert events(ranks.run(scenario())) == first


# a rank dies


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("Killed", "was killed by signal 9 (SIGKILL)"),
        ("Aborts", "was killed by signal 6 (SIGABRT)"),
        ("Terminated", "was killed by signal 15 (SIGTERM)"),
        ("Leaves", "exited with status 7"),
    ],
)
def test_a_rank_that_dies_in_a_draw_is_reported_with_how(ranks: World, pool: str, how: str) -> None:
    draw = ranks.run(scenario(pool=pool))
    assert (draw.fates[1].state, draw.fates[1].how.splitlines()[0]) == ("crashed", how)


def test_a_rank_that_writes_over_its_journal_has_crashed_and_the_next_draw_works(ranks: World) -> None:
    draw = ranks.run(scenario(pool="WritesOverItsJournal"))
    assert (states(draw), draw.fates[1].how[:23]) == (["finished", "crashed"], "its journal is damaged:")
    assert judge(draw)[0].rule == "rank-crash"
    assert states(ranks.run(scenario())) == ["finished", "finished"]


def test_of_a_rank_with_a_damaged_journal_what_it_raised_and_printed_is_kept(ranks: World) -> None:
    draw = ranks.run(scenario(pool="RaisesOverItsJournal"))
    fate = draw.fates[1]
    assert (fate.state, fate.how[:23]) == ("crashed", "its journal is damaged:")
    assert fate.raising is not None
    assert (fate.raising.text, "was here" in fate.printed) == ("ValueError: no more", True)
    assert {"rank-crash", "raised"} <= {found.rule for found in judge(draw)}


def test_what_loading_a_system_changed_is_noted_also_where_its_first_draw_raises(fresh: World) -> None:
    draw = fresh.run(msgspec.structs.replace(scenario(), system=System("tests.tools.changes_at_import:Raises")))
    assert states(draw) == ["raised", "raised"]
    assert ("environment", True) in [(left.what, left.at_import) for left in fresh.leftovers]


def test_a_rank_that_says_it_finished_and_did_not_write_so_is_the_machines_error(
    ranks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Trace, "has_finished", False)
        with pytest.raises(MachineError, match="rank 0 answered that it had finished"):
            ranks.run(scenario())
    assert states(ranks.run(scenario())) == ["finished", "finished"]


def test_ranks_that_wait_for_a_dead_one_are_not_said_to_hang(ranks: World) -> None:
    assert states(ranks.run(scenario(topology=QUAD, pool="Killed"))) == ["stopped", "crashed", "stopped", "stopped"]


def deaths(world: World, pool: str) -> dict[int, str]:
    """How ranks died between draws, after one of this pool."""
    return {left.rank: left.new for left in world.leftovers if (left.what, left.pool) == (PROCESS, pool)}


def test_a_rank_that_died_between_two_draws_is_not_blamed_on_the_next(fresh: World) -> None:
    fresh.run(scenario())
    before = fresh.pids
    kill_and_wait(fresh, 0)
    assert fresh.run(scenario(pool="deferred")).is_clean
    assert deaths(fresh, "per-group") == {0: "was killed by signal 9 (SIGKILL)"}
    assert not {*before} & {*fresh.pids}


def test_a_rank_killed_before_a_draw_of_another_size_is_not_blamed_on_it(ranks: World) -> None:
    ranks.run(scenario(pool="Killed"))
    ranks.run(scenario(pool="deferred"))  # fresh ranks, which know of worlds of two alone
    kill_and_wait(ranks, 1)
    assert ranks.run(scenario(topology=QUAD)).is_clean
    assert deaths(ranks, "deferred") == {1: "was killed by signal 9 (SIGKILL)"}


def test_a_rank_that_dies_before_it_takes_a_request_is_not_blamed_on_it(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.run(scenario())
    os.kill(fresh.pids[1], signal.SIGSTOP)  # so that it does not read what is sent to it
    send = RankProcess.send

    def send_and_kill(rank: RankProcess, request: Request) -> bool:
        is_there = send(rank, request)
        if rank.pid == stopped:
            os.kill(stopped, signal.SIGKILL)
        return is_there

    stopped = fresh.pids[1]
    monkeypatch.setattr(RankProcess, "send", send_and_kill)
    assert fresh.run(scenario(pool="deferred")).is_clean
    assert deaths(fresh, "per-group") == {1: "was killed by signal 9 (SIGKILL)"}


def test_a_call_finds_new_ranks_where_one_has_died(fresh: World) -> None:
    fresh.run(scenario())
    kill_and_wait(fresh, 0)
    assert [rank for rank, _, _ in fresh.call("tests.tools.called:rank_and_group", "word")] == [0, 1]


def kill_and_wait(world: World, rank: int) -> None:
    """Kill a rank, and wait until Linux has closed its end of the connection: after the last of its threads."""
    os.kill(world.pids[rank], signal.SIGKILL)
    assert world._ranks.processes[rank].connection.poll(10)


@pytest.mark.parametrize("pool", ["Killed", "Leaves", "Crashes", "Spins", "Stops", "Raises"])
def test_the_draw_after_a_broken_one_works(ranks: World, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "deadline", 0.5)
        assert not ranks.run(scenario(pool=pool)).is_clean
    assert judge(ranks.run(scenario())) == []


def test_a_process_that_a_dead_rank_had_started_is_gone_when_the_report_comes(ranks: World) -> None:
    assert ranks.run(scenario(pool="LeavesAChild")).fates[1].state == "crashed"
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(CHILD) in (each.info["cmdline"] or ())]


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


# ranks hang


def test_ranks_that_wait_for_each_other_are_found_long_before_the_deadline(ranks: World) -> None:
    draw = ranks.run(scenario(*REFUSED))
    assert states(draw) == ["hung", "hung"]
    assert draw.seconds < draw.deadline / 4


def test_a_hang_shows_where_every_rank_stood(ranks: World) -> None:
    findings = judge(ranks.run(scenario(*REFUSED, topology=QUAD)))
    hang = next(finding for finding in findings if isinstance(finding, Hang))
    where = "ranks 0, 2, 3 at step 1 (allocate) in register of tp[0,1,2,3]; rank 1 at the end"
    assert where in hang.explanation


def test_a_hang_shows_the_stack_of_every_rank(ranks: World) -> None:
    draw = ranks.run(scenario(*REFUSED))
    assert ["register (" in draw.fates[0].stack, "meet (" in draw.fates[1].stack] == [True, True]


@pytest.mark.parametrize("pool", ["Spins", "Stops"])
def test_a_rank_that_never_returns_is_reported_after_the_deadline(
    ranks: World, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setattr(ranks, "deadline", 0.5)
    draw = ranks.run(scenario(pool=pool))
    assert (states(draw), draw.seconds >= 0.5) == (["hung", "hung"], True)


def test_a_rank_that_never_returns_shows_its_stack(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 0.5)
    draw = ranks.run(scenario(pool="Spins"))
    assert "misbehave (" in draw.fates[1].stack.splitlines()[0]


def test_ranks_that_are_known_to_wait_on_the_host_write_their_stacks_themselves(ranks: World) -> None:
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


def test_a_hurried_draw_in_which_all_ranks_are_silent_is_presumed_to_hang(fresh: World) -> None:
    draw = fresh.run(scenario(pool="Spins"), hurried=True)
    assert (draw.is_presumed, "hang" in [finding.rule for finding in judge(draw)]) == (True, True)
    assert draw.seconds >= fresh.platform.patience


def test_a_presumed_hang_takes_no_time_for_native_frames(fresh: World) -> None:
    draw = fresh.run(scenario(pool="Spins"), hurried=True)
    assert "py-spy with native frames" not in [fate.witness for fate in draw.fates]


def test_a_draw_that_ends_well_teaches_patience(fresh: World) -> None:
    assert fresh.run(scenario(pool="Dawdles")).is_clean
    assert fresh.patience >= 10 * DAWDLING / 2  # looks at a silence may come late


def test_a_draw_that_ends_badly_teaches_nothing(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "deadline", 0.5)
    fresh.run(scenario(pool="Spins"))
    assert fresh.patience == fresh.platform.patience


def test_a_pause_that_the_program_asks_for_is_no_hang_and_teaches_nothing(fresh: World) -> None:
    draw = fresh.run(scenario(Straggle(0, int(1500 * fresh.platform.patience)), *SOUND), hurried=True)
    assert (draw.is_clean, fresh.patience) == (True, fresh.platform.patience)


@pytest.mark.parametrize("via", ["library", "kernel"])
def test_a_slow_rank_is_not_taken_for_a_hang(ranks: World, via: str) -> None:
    slow = scenario(*SOUND[:2], Straggle(2, 500), AllGather("tp", View("a"), 9, via=via), topology=QUAD)  # type: ignore[arg-type]
    draw = ranks.run(slow)
    assert (states(draw), draw.seconds > 0.5) == (["finished"] * 4, True)


def test_a_slow_pool_is_not_taken_for_a_hang(ranks: World) -> None:
    """Its peers wait in a registration, which has no straggle of its own."""
    assert judge(ranks.run(scenario(*SOUND[:1], AllGather("tp", View("a"), 9), pool="Dawdles"))) == []


# the system under test raises


def test_a_pool_that_raises_ends_the_draw_and_its_peers_with_it(ranks: World) -> None:
    draw = ranks.run(scenario(pool="Raises", topology=QUAD))
    assert (states(draw), draw.seconds < ranks.deadline / 2) == (["stopped", "raised", "stopped", "stopped"], True)


def test_what_a_pool_raised_is_kept_with_the_frames_of_the_pool_innermost_first(ranks: World) -> None:
    raising = ranks.run(scenario(pool="Raises")).fates[1].raising
    assert raising is not None
    assert (raising.where, raising.text) == ("pool", "ValueError: no pool today")
    assert [frame.function for frame in raising.own] == ["misbehave", "use"]


def test_a_pool_without_the_shape_of_one_is_an_error_of_the_request(ranks: World) -> None:
    with pytest.raises(
        PluginError, match=r"^pool '[\w.]+:NoContext' has a use\(\) that gives NoneType.*unruly.py:\d+\)$"
    ):
        ranks.run(scenario(pool="NoContext"))


# calls of a function


def test_a_call_returns_what_every_rank_returned(ranks: World) -> None:
    everyone = tuple(range(ranks.size))
    found = ranks.call("tests.tools.called:rank_and_group", "hello")
    assert found == [(rank, GroupId(everyone), "hello") for rank in everyone]


FAILED_CALLS = {
    "tests.tools.called:dies": "rank 1 died in tests.tools.called:dies",
    "tests.tools.called:raises": "tests.tools.called:raises failed on rank 1: ValueError: not today",
    "tests.tools.called:missing": "no 'missing'",
}


@pytest.mark.parametrize("function", FAILED_CALLS)
def test_a_call_that_fails_on_one_rank_is_reported_at_once_and_the_next_draw_works(ranks: World, function: str) -> None:
    """The other ranks sleep for an hour, which is longer than a call may take."""
    with pytest.raises(MachineError, match=FAILED_CALLS[function]):
        ranks.call(function)
    assert judge(ranks.run(scenario())) == []


def test_a_call_finds_room_for_its_group(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.world.world.SLOTS", 1)
    ranks.run(scenario())
    assert len(ranks.call("tests.tools.called:rank_and_group", "")) == ranks.size


# nothing outlives its user


def test_ctrl_c_in_a_draw_ends_the_ranks(ranks: World) -> None:
    ranks.run(scenario())
    before = ranks.pids
    with pytest.raises(KeyboardInterrupt):
        ranks.run(scenario(pool="Interrupts"))
    assert [pid for pid in before if psutil.pid_exists(pid)] == []


def test_the_draw_after_ctrl_c_works(ranks: World) -> None:
    with pytest.raises(KeyboardInterrupt):
        ranks.run(scenario(pool="Interrupts"))
    assert judge(ranks.run(scenario())) == []


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


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def test_a_call_after_ctrl_c_is_not_made(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "check", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        ranks.call("tests.tools.called:rank_and_group", "")
