"""The watch over one draw: when a wait ends, and every rank's fate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

import pytest

from harness.errors import MachineError, PluginError
from harness.ipc.memory import REGISTER, SharedMemory
from harness.ipc.messages import Asks, Broken, Done, Failed, Line, Raised, Refused, Reply, Said
from harness.ipc.rendezvous import Rendezvous
from harness.trace.draw import Fate
from harness.trace.events import Began, Finished
from harness.trace.raising import Raising
from harness.world import stacks
from harness.world.rank_process import RankProcess
from harness.world.stacks import Stack
from harness.world.watch import GRACE, LOOKS, POLL, Debugger, DrawWatch, Elsewhere
from tests.tools.clock import FakeClock

GROUP = (0, 1)
KILLED = 9


class PlayedRank:
    """A rank that answers with one reply, closes its connection, or does nothing; without a process."""

    pid = 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection, self._inside = Pipe()
        self.has_ended = False
        self.lines: list[object] = []

    def send(self, request: object) -> None:
        self.lines.append(request)

    def answer(self, reply: Reply) -> None:
        self._inside.send(reply)

    def die(self) -> None:
        self._inside.close()
        self.has_ended = True

    def close(self) -> None:
        """As a rank does whose connection breaks while its process lives."""
        self._inside.close()

    def receive(self) -> Reply:
        reply: Reply = self.connection.recv()
        return reply

    def is_dead(self, *, has_closed: bool) -> bool:
        return self.has_ended

    def printed(self) -> str:
        return f"printed by {self.number}"

    def ask_for_stack(self) -> int:
        return 0

    def written_since(self, start: int) -> str:
        return f'Current thread:\n  File "pool.py", line {self.number} in use\n  File "main.py", line 9 in _serve\n'


class Scene:
    """Two ranks under a watch, by a clock that moves when the watch waits."""

    def __init__(self, shared: SharedMemory) -> None:
        self.shared, self.fake = shared, FakeClock()
        self.ranks = [PlayedRank(0), PlayedRank(1)]
        self.is_killed = False
        self.at_each_wait: list[Any] = []

    def watch(
        self,
        deadline: float = 20.0,
        patience: float = 1e9,
        debugger: Debugger | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> DrawWatch:
        ranks: list[Any] = self.ranks
        clock = self.fake.clock
        groups = {0: GROUP}
        return DrawWatch(
            ranks,
            self.shared,
            groups,
            deadline,
            patience,
            clock=clock,
            wait=self.wait,
            debugger=debugger,
            elsewhere=elsewhere,
        )

    def wait(self, connections: Iterable[Any], seconds: float) -> Sequence[Any]:
        for act in self.at_each_wait:
            act()
        ready = wait([*connections], 0)
        if not ready:
            self.fake.advance(seconds)
        return ready

    def kill(self) -> list[int]:
        self.is_killed = True
        return [KILLED, KILLED]

    def fates(self, **limits: float) -> tuple[Fate, ...]:
        return self.watch(**limits).wait(self.kill)

    def begin(self) -> None:
        """Both ranks write their first step."""
        for rank in (0, 1):
            self.shared.journal(rank).append(Began(0))

    def finish(self, rank: int) -> None:
        self.shared.journal(rank).append(Finished())
        self.ranks[rank].answer(Done())


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(stacks, "py_spy", lambda: None)
    shared = SharedMemory.create(2)
    yield Scene(shared)
    shared.close()


def states(fates: Iterable[Fate]) -> list[str]:
    return [fate.state for fate in fates]


# the end of a wait


def test_ranks_that_are_done_have_finished_and_are_not_killed(scene: Scene) -> None:
    for rank in (0, 1):
        scene.finish(rank)
    fates = scene.fates()
    assert (states(fates), scene.is_killed) == (["finished"] * 2, False)
    assert [fate.printed for fate in fates] == ["printed by 0", "printed by 1"]


def test_ranks_that_do_not_answer_hang_at_the_deadline_and_not_before(scene: Scene) -> None:
    fates = scene.fates(deadline=7)
    assert states(fates) == ["hung", "hung"]
    assert 7 < scene.fake.seconds - sum(scene.fake.slept) < 7 + 3 * POLL


def writing_until(scene: Scene, seconds: float) -> None:
    """Have a rank write until then."""
    scene.begin()

    def act() -> None:
        if scene.fake.seconds < seconds:
            scene.shared.journal(1).append(Began(0))

    scene.at_each_wait.append(act)


def test_a_slow_draw_goes_on_past_the_deadline_while_a_rank_still_writes(scene: Scene) -> None:
    writing_until(scene, 20)

    def finish() -> None:
        if scene.fake.seconds > 12:
            scene.at_each_wait.clear()
            scene.finish(0)
            scene.finish(1)

    scene.at_each_wait.append(finish)
    assert states(scene.fates(deadline=8)) == ["finished", "finished"]


@pytest.mark.parametrize(("until", "ends"), [(7.0, 9.0), (9.0, 11.0), (100.0, 24.0)])
def test_it_hangs_a_quarter_of_the_deadline_after_its_last_event_or_at_three_deadlines(
    scene: Scene, until: float, ends: float
) -> None:
    writing_until(scene, until)
    assert states(scene.fates(deadline=8)) == ["hung", "hung"]
    assert ends - POLL < scene.fake.seconds - sum(scene.fake.slept) < ends + 3 * POLL


def test_time_in_which_everything_was_stopped_does_not_count(scene: Scene) -> None:
    writing_until(scene, 100)

    def stop() -> None:
        if scene.fake.seconds > 5:
            scene.at_each_wait.remove(stop)
            scene.fake.advance(60)

    def finish() -> None:
        if scene.fake.seconds > 70:
            scene.at_each_wait.clear()
            scene.finish(0)
            scene.finish(1)

    scene.at_each_wait += [stop, finish]
    assert states(scene.fates(deadline=8)) == ["finished", "finished"]


def test_ranks_that_wait_for_each_other_hang_after_a_few_looks(scene: Scene) -> None:
    for rank in (0, 1):
        Rendezvous(scene.shared, 0, GROUP, rank).note(REGISTER, 1)
    assert states(scene.fates()) == ["hung", "hung"]
    assert scene.fake.seconds - sum(scene.fake.slept) == pytest.approx(LOOKS * POLL)


class Hosts:
    """Hosts of which words are on their way until they are asked for the last time."""

    def __init__(self, scene: Scene, words: int) -> None:
        self.scene, self.words, self.asked = scene, words, 0

    def settle(self) -> None:
        self.asked += 1
        if self.words:
            self.words -= 1
            for rank in (0, 1):
                Rendezvous(self.scene.shared, 0, GROUP, rank).note(REGISTER, 0)

    def take(self, ranks: Mapping[int, RankProcess], native: bool) -> dict[int, Stack]:
        return {index: Stack("there (pool.py:1)", "SIGUSR1") for index in ranks}


def test_ranks_of_several_hosts_are_stuck_once_nothing_is_on_its_way(scene: Scene) -> None:
    def wait_again() -> None:
        for rank in (0, 1):
            Rendezvous(scene.shared, 0, GROUP, rank).note(REGISTER, 1)

    scene.at_each_wait = [wait_again]
    hosts = Hosts(scene, words=2 * LOOKS)
    fates = scene.watch(elsewhere=hosts).wait(scene.kill)
    assert (states(fates), hosts.asked) == (["hung", "hung"], 3 * LOOKS)
    assert [fate.stack for fate in fates] == ["there (pool.py:1)"] * 2


def test_ranks_that_look_stuck_once_and_go_on_do_not_hang(scene: Scene) -> None:
    meetings = [Rendezvous(scene.shared, 0, GROUP, rank) for rank in (0, 1)]
    waits = 0

    def act() -> None:
        nonlocal waits
        waits += 1
        for meeting in meetings:
            meeting.note(REGISTER, waits % LOOKS)  # now and then neither waits
        if waits == 5 * LOOKS:
            scene.finish(0)
            scene.finish(1)

    scene.at_each_wait = [act]
    assert states(scene.fates()) == ["finished", "finished"]


def test_silent_ranks_are_presumed_to_hang_after_the_patience(scene: Scene) -> None:
    scene.begin()
    watch = scene.watch(patience=2)
    assert (states(watch.wait(scene.kill)), watch.is_presumed) == (["hung", "hung"], True)
    assert 2 < scene.fake.seconds < 3


def test_ranks_that_go_on_are_not_presumed_to_hang(scene: Scene) -> None:
    scene.begin()
    waits = 0

    def act() -> None:
        nonlocal waits
        waits += 1
        scene.shared.journal(0).append(Began(waits))
        if waits == 200:
            scene.finish(0)
            scene.finish(1)

    scene.at_each_wait = [act]
    watch = scene.watch(patience=2)
    assert (states(watch.wait(scene.kill)), watch.is_presumed) == (["finished", "finished"], False)
    assert scene.fake.seconds > 2


def test_a_hang_at_the_deadline_is_not_a_presumed_one(scene: Scene) -> None:
    scene.begin()
    watch = scene.watch(deadline=1, patience=1)
    watch.wait(scene.kill)
    assert not watch.is_presumed


# fates


def test_a_dead_rank_has_crashed_and_the_other_was_stopped(scene: Scene) -> None:
    scene.ranks[1].die()
    assert states(scene.fates()) == ["stopped", "crashed"]


def test_a_crash_shows_the_death_beside_the_output(scene: Scene) -> None:
    scene.ranks[1].die()
    (fate,) = [fate for fate in scene.fates() if fate.state == "crashed"]
    assert (fate.how, fate.printed) == ("was killed by signal 9 (SIGKILL)", "printed by 1")


def test_every_fate_has_the_output_of_its_rank_however_it_ended(scene: Scene) -> None:
    scene.finish(0)
    assert [fate.printed for fate in scene.fates(deadline=1)] == ["printed by 0", "printed by 1"]


def test_a_broken_rank_has_crashed_with_its_own_error(scene: Scene) -> None:
    scene.ranks[0].answer(Broken("failed with ncclSystemError"))
    fates = scene.fates()
    assert (states(fates), fates[0].how.splitlines()[0]) == (["crashed", "stopped"], "failed with ncclSystemError")


RAISING = Raising("pool", "ValueError", "no")


def test_a_rank_on_which_the_system_raised_keeps_what_it_raised_and_the_other_was_stopped(scene: Scene) -> None:
    scene.ranks[1].answer(Raised(RAISING))
    fates = scene.fates()
    assert (states(fates), fates[1].raising, scene.is_killed) == (["stopped", "raised"], RAISING, True)


def test_ranks_that_all_raise_are_all_said_to(scene: Scene) -> None:
    for rank in scene.ranks:
        rank.answer(Raised(RAISING))
    assert (states(scene.fates()), scene.is_killed) == (["raised", "raised"], True)


def test_the_others_have_a_moment_after_a_rank_has_raised_and_not_the_deadline(scene: Scene) -> None:
    scene.ranks[1].answer(Raised(RAISING))
    scene.fates(deadline=20)
    assert GRACE < scene.fake.seconds - sum(scene.fake.slept) < GRACE + 3 * POLL


def test_a_rank_that_waits_for_one_that_raised_ends_the_draw_at_once(scene: Scene) -> None:
    Rendezvous(scene.shared, 0, GROUP, 0).note(REGISTER, 1)
    scene.ranks[1].answer(Raised(RAISING))
    assert states(scene.fates()) == ["stopped", "raised"]
    assert scene.fake.seconds - sum(scene.fake.slept) == pytest.approx(LOOKS * POLL)


def test_a_rank_that_ends_well_after_its_peer_raised_has_finished(scene: Scene) -> None:
    scene.ranks[1].answer(Raised(RAISING))
    scene.finish(0)
    assert states(scene.fates()) == ["finished", "raised"]


def test_next_to_a_death_what_was_raised_is_still_said(scene: Scene) -> None:
    scene.ranks[0].answer(Raised(RAISING))
    scene.ranks[1].die()
    assert states(scene.fates()) == ["raised", "crashed"]


class User:
    """Debugs rank 1, and takes their time: a line comes after an hour, and nothing after that."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self.shown = scene, ""
        self.lines = ["p 1\n"]

    def say(self, text: str) -> None:
        self.shown += text

    def ask(self) -> str:
        self._scene.fake.advance(3600)
        return self.lines.pop(0) if self.lines else ""


def test_a_debugger_on_a_rank_talks_with_the_user_and_no_deadline_ends_that(scene: Scene) -> None:
    user, rank = User(scene), scene.ranks[1]
    for message in (Said("(Pdb) "), Asks(), Said("1\n(Pdb) "), Asks(), Raised(RAISING)):
        rank.answer(message)
    fates = scene.watch(deadline=1, debugger=Debugger(1, user.say, user.ask)).wait(scene.kill)
    assert (states(fates), user.shown) == (["stopped", "raised"], "(Pdb) 1\n(Pdb) ")
    assert rank.lines == [Line("p 1\n"), Line("")]


def test_the_time_that_the_user_took_is_not_added_for_the_others(scene: Scene) -> None:
    user, rank = User(scene), scene.ranks[1]
    rank.answer(Asks())

    def act() -> None:
        if rank.lines:
            rank.answer(Raised(RAISING))
            scene.at_each_wait.clear()

    scene.at_each_wait = [act]
    scene.watch(debugger=Debugger(1, user.say, user.ask)).wait(scene.kill)
    assert GRACE < scene.fake.seconds - sum(scene.fake.slept) - 3600 < GRACE + 4 * POLL


def test_a_rank_that_dies_under_its_debugger_has_crashed(scene: Scene) -> None:
    user = User(scene)
    scene.ranks[1].answer(Said("(Pdb) "))
    scene.ranks[1].die()
    assert states(scene.watch(debugger=Debugger(1, user.say, user.ask)).wait(scene.kill)) == ["stopped", "crashed"]


def test_next_to_a_death_a_broken_rank_is_a_consequence(scene: Scene) -> None:
    scene.ranks[0].answer(Broken("failed with ncclRemoteError"))
    scene.ranks[1].die()
    assert states(scene.fates()) == ["stopped", "crashed"]


def test_of_ranks_that_break_each_shows_its_own_error(scene: Scene) -> None:
    for rank in scene.ranks:
        rank.answer(Broken(f"failed with {rank.number}"))
    assert [fate.how.splitlines()[0] for fate in scene.fates()] == ["failed with 0", "failed with 1"]


def test_a_rank_that_had_finished_before_it_died_has_finished(scene: Scene) -> None:
    scene.shared.journal(0).append(Finished())
    for rank in scene.ranks:
        rank.die()
    assert states(scene.fates()) == ["finished", "crashed"]


def test_a_rank_that_closed_its_connection_and_lives_has_crashed(scene: Scene) -> None:
    scene.finish(1)
    scene.ranks[0].close()
    assert states(scene.fates()) == ["crashed", "finished"]


def test_ranks_that_hang_show_their_stacks(scene: Scene) -> None:
    assert [fate.stack for fate in scene.fates(deadline=1)] == ["use (pool.py:0)", "use (pool.py:1)"]


def test_ranks_are_killed_before_a_hang_is_reported(scene: Scene) -> None:
    scene.fates(deadline=1)
    assert scene.is_killed


# errors of the request


def test_a_refusal_is_an_error_of_the_plug_in(scene: Scene) -> None:
    scene.ranks[0].answer(Refused("no such pool"))
    with pytest.raises(PluginError, match=r"^no such pool$"):
        scene.fates()


def test_any_other_failure_is_the_machines(scene: Scene) -> None:
    scene.ranks[1].answer(Failed("KeyError: 3", ""))
    with pytest.raises(MachineError, match=r"^rank 1 failed: KeyError: 3$"):
        scene.fates()
