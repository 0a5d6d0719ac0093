"""One rank's process: how it ended, what it printed, and the moment to end after it has closed its connection."""

from __future__ import annotations

import pickle
import signal
from multiprocessing import Pipe
from typing import Any

import pytest

from harness.ipc.messages import Broken, Done
from harness.world.rank_process import RankProcess, death
from harness.world.world import World
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
