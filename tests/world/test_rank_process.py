"""One rank's process: how it ended, what it printed, and the moment to end after it has closed its connection."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from harness.clock import Clock
from harness.ipc.messages import Broken, Call, Done
from harness.oracle.judge import judge
from harness.world import rank_process
from harness.world.rank_process import RankProcess, death, first_replies
from harness.world.world import World
from tests.tools.clock import FakeClock
from tests.tools.draws import scenario


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (signal.SIGBUS, "was killed by signal 7 (SIGBUS)"),
        (40, "was killed by signal 40"),
        (3 << 8, "exited with status 3"),
    ],
)
def test_a_death_is_described_by_its_status(status: int, how: str) -> None:
    assert death(status) == how


def test_a_crash_shows_stdout_and_stderr_under_their_names(ranks: World) -> None:
    draw = ranks.run(scenario(pool="SpeaksAndLeaves"))
    assert draw.fates[1].printed.splitlines() == ["stdout:", "for everyone", "stderr:", "in confidence"]


def test_a_crash_shows_no_output_of_the_draw_before(ranks: World) -> None:
    assert ranks.run(scenario(pool="Speaks")).is_clean
    draw = ranks.run(scenario(pool="Leaves"))
    assert draw.fates[1].how == "exited with status 7"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (pickle.dumps(Done())[:9], "gave an answer that cannot be read (UnpicklingError)"),
        (pickle.dumps(7), "gave an answer of type int"),
    ],
    ids=["cut", "no-message"],
)
def test_an_answer_that_is_none_breaks_its_rank(sent: bytes, error: str) -> None:
    """As where a plug-in has replaced `len` or `isinstance`."""
    here, there = Pipe()
    launcher: Any = None
    rank = RankProcess(0, here, -1, -1, -1, launcher)
    with here, there:
        there.send_bytes(sent)
        assert rank.receive() == Broken(error)
        there.send(Done())
        assert rank.receive() == Done()


def test_a_rank_that_stops_in_its_answer_hangs_at_the_deadline(ranks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "deadline", 1.0)
    draw = ranks.run(scenario(pool="StopsInItsAnswer"))
    assert draw.fates[1].state == "hung"
    assert judge(ranks.run(scenario())) == []


def test_a_request_that_a_stopped_rank_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for its reply finds that there is none."""
    monkeypatch.setattr(rank_process, "PATIENCE", 0.2)
    rank, there = played()
    with rank.connection, there:
        began = time.monotonic()
        assert rank.send(Call("module:function", {}, ("x" * 4_000_000,)))
        assert 0.1 < time.monotonic() - began < 20
        assert first_replies({0: rank}, 0.1) == {}


def test_a_default_timeout_of_sockets_cuts_no_request_short() -> None:
    request, before = Call("module:function", {}, ("x" * 4_000_000,)), socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        rank, there = played()
        with rank.connection, there:
            sending = threading.Thread(target=rank.send, args=[request])
            sending.start()
            sending.join(0.2)
            assert sending.is_alive()  # it waits for the rank to read
            assert there.recv() == request
            sending.join(20)
    finally:
        socket.setdefaulttimeout(before)


def played() -> tuple[RankProcess, Connection]:
    here, there = Pipe()
    launcher: Any = None
    return RankProcess(0, here, -1, -1, -1, launcher), there


def test_a_part_of_a_reply_is_none() -> None:
    rank, there = played()
    with rank.connection, there:
        os.write(there.fileno(), struct.pack("!i", 1000) + b"only a part")
        assert (rank.receive(), first_replies({0: rank}, 0.1)) == (None, {})


def test_a_rank_that_writes_on_and_on_has_not_replied_in_time() -> None:
    rank, there = played()
    fake = FakeClock()

    def now() -> float:
        os.write(there.fileno(), b"\0\0\1\0")
        fake.advance(0.1)
        return fake.seconds

    with rank.connection, there:
        os.write(there.fileno(), struct.pack("!i", 1000))
        assert first_replies({0: rank}, 3, Clock(now, fake.clock.sleep)) == {}


def test_the_first_replies_are_those_that_are_there_and_the_ends() -> None:
    (silent, one), (done, two), (gone, three) = played(), played(), played()
    with silent.connection, one, done.connection, two, gone.connection:
        two.send(Done())
        three.close()
        assert first_replies({0: silent, 3: done, 7: gone}, 60) == {3: Done(), 7: None}
