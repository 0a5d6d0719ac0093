"""Zygotes: shared where ranks would inherit the same, ended by the last user, and no world touches another's ranks."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.world.world import World
from harness.world.zygote import RUNNING_TEST, Zygote, Zygotes


class Pretended:
    """A zygote without a process."""

    def __init__(self, environment: dict[str, str], preload: tuple[str, ...]) -> None:
        self.users, self.has_ended, self.is_closed = 0, False, False

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def zygotes() -> Any:
    return Zygotes(start=Pretended)  # type: ignore[arg-type]


def test_equal_needs_share_a_zygote(zygotes: Any) -> None:
    assert zygotes.take({"A": "1"}, ("json",)) is zygotes.take({"A": "1"}, ("json",))


def test_ranks_import_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "triton", "msgspec"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    with World(1, "sim") as world:
        assert len(world.pids) == 1
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(("environment", "preload"), [({"A": "2"}, ("json",)), ({"A": "1"}, ())])
def test_other_needs_get_another_zygote(zygotes: Any, environment: dict[str, str], preload: tuple[str, ...]) -> None:
    assert zygotes.take({"A": "1"}, ("json",)) is not zygotes.take(environment, preload)


def test_a_changed_environment_of_the_process_gets_another_zygote(
    zygotes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = zygotes.take({}, ())
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    assert zygotes.take({}, ()) is not before


def test_another_folder_gets_another_zygote(zygotes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = zygotes.take({}, ())
    monkeypatch.chdir(tmp_path)
    assert zygotes.take({}, ()) is not before


def test_a_forked_child_does_not_use_its_parents_zygote(zygotes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = zygotes.take({}, ())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert zygotes.take({}, ()) is not before


def test_the_name_of_the_running_test_makes_no_difference(zygotes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = zygotes.take({}, ())
    monkeypatch.setenv(RUNNING_TEST, "another")
    assert zygotes.take({}, ()) is before


def test_a_zygote_that_has_ended_is_replaced(zygotes: Any) -> None:
    before = zygotes.take({}, ())
    before.has_ended = True
    assert zygotes.take({}, ()) is not before


def test_the_last_user_closes_a_zygote(zygotes: Any) -> None:
    zygote = zygotes.take({}, ())
    zygotes.take({}, ())
    zygotes.give_back(zygote)
    after_one = zygote.is_closed
    zygotes.give_back(zygote)
    assert (after_one, zygote.is_closed) == (False, True)


def test_a_closed_zygote_is_replaced(zygotes: Any) -> None:
    before = zygotes.take({}, ())
    zygotes.give_back(before)
    assert zygotes.take({}, ()) is not before


def test_a_kept_zygote_waits_for_the_next_user(zygotes: Any) -> None:
    with zygotes.keep({}, ()):
        before = zygotes.take({}, ())
        zygotes.give_back(before)
        assert (before.is_closed, zygotes.take({}, ()) is before) == (False, True)


def test_a_kept_zygote_without_users_is_closed_at_the_end(zygotes: Any) -> None:
    with zygotes.keep({}, ()):
        zygote = zygotes.take({}, ())
        zygotes.give_back(zygote)
    assert zygote.is_closed


def test_a_kept_zygote_that_is_in_use_is_closed_by_its_user(zygotes: Any) -> None:
    with zygotes.keep({}, ()):
        zygote = zygotes.take({}, ())
    in_use = zygote.is_closed
    zygotes.give_back(zygote)
    assert (in_use, zygote.is_closed) == (False, True)


@pytest.fixture
def second(simulation: World) -> Iterator[World]:
    """A world beside the one that every test uses."""
    simulation.call("tests.tools.called:rank_and_group", "")
    with World(2, "sim") as world:
        yield world


def zygote_of(world: World) -> psutil.Process:
    return psutil.Process(world.pids[0]).parent()


def test_worlds_of_one_process_share_a_zygote(simulation: World, second: World) -> None:
    assert zygote_of(second) == zygote_of(simulation)


def test_a_closed_world_leaves_the_ranks_of_another_alone(simulation: World, second: World) -> None:
    gone = second.pids
    second.close()
    assert [psutil.pid_exists(pid) for pid in gone + simulation.pids] == [False] * 2 + [True] * 4


def test_a_stopped_rank_disturbs_no_other_world(simulation: World, second: World) -> None:
    os.kill(second.pids[1], signal.SIGSTOP)
    assert len(simulation.call("tests.tools.called:rank_and_group", "")) == 4


def test_a_world_keeps_no_memory_of_another_open(simulation: World, second: World) -> None:
    """A rank that held it would keep the memory of a closed world."""

    def memories(pid: int) -> set[int]:
        paths = [path for path in Path(f"/proc/{pid}/fd").iterdir() if "memfd:symm-harness" in str(path.readlink())]
        return {path.stat().st_ino for path in paths}

    one, other = memories(simulation.pids[0]), memories(second.pids[0])
    assert (len(one), len(other), one & other) == (1, 1, set())


def test_a_zygote_that_cannot_start_shows_the_last_line_that_it_printed() -> None:
    zygote = Zygote({"PYTHONHOME": "/nowhere"})  # where Python finds no library of its own
    with zygote.connect((0,)) as line:
        assert line.recv(1) == b""
    error = str(zygote.error())
    zygote.close()
    assert re.fullmatch("rank processes cannot start: .*<no Python frame>", error)
