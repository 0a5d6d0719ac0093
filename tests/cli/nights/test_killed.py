"""A shard that is ended from outside at a moment that nobody chose: what it had found is there, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from harness.campaign import seeds
from harness.nights.refreshing import SECONDS
from tests.tools.commands import ALONE, forked
from tests.tools.processes import left, marked, new_mark

NOTING = """
import json, sys, time
from harness.campaign import keeper, tally
from harness.cli import main

notes = open("notes", "a", buffering=1)
keep, count = keeper.Keeper.keep, tally.Tally.count

def keep_and_note(self, *given, **named):
    found = keep(self, *given, **named)
    notes.write(json.dumps({"found": found.finding.rule}) + "\\n")
    return found

def count_and_note(self, *given, **named):
    count(self, *given, **named)
    notes.write(json.dumps({"draws": self.draws, "at": time.time()}) + "\\n")

keeper.Keeper.keep, tally.Tally.count = keep_and_note, count_and_note
sys.argv = ["symm", *sys.argv[1:]]
main.main()
"""
"""The command, with a line in a file for each draw that is counted and each finding that is kept."""
SHARD = (
    *("fuzz", "--shard", "2/4", "--seed", "5", "--world", "2", "--substrate", "sim", "--minutes", "5"),
    *("--pool", "shared-at-alloc", "--shrink-seconds", "2", "--run", "night/2"),
)
WAYS = {
    "SIGTERM to the command": (signal.SIGTERM, False),  # as Kubernetes does
    "SIGTERM to all its processes": (signal.SIGTERM, True),  # as Slurm does
    "SIGKILL to the command": (signal.SIGKILL, False),
}
GRACE = 20.0
"""Seconds in which a command has to be over; engines give 30 and more."""


class Killed(NamedTuple):
    status: int
    seconds: float
    at: float
    after: float
    processes: list[int]
    shared: list[str]
    """Files in /dev/shm that a process had open, and that are there still."""
    folder: Path

    @property
    def run(self) -> Any:
        return json.loads((self.folder / "night/2/run.json").read_bytes())

    @property
    def notes(self) -> list[dict[str, Any]]:
        """What had been noted when it was killed; the last line may be half there."""
        lines = (self.folder / "notes").read_text().split("\n")[:-1]
        return [note for note in map(json.loads, lines) if note.get("at", 0) <= self.at]


@pytest.fixture(scope="module")
def killed(place: Callable[[str], Path]) -> Callable[[str], Killed]:
    """A shard that is killed at a random moment after it has found something, once a way."""

    @cache
    def kill(way: str) -> Killed:
        number, to_all = WAYS[way]
        folder, mark, after = place(way), new_mark(), 3 * Random().random()
        command = [sys.executable, "-c", NOTING, *SHARD]
        environment = {**os.environ, **ALONE, **mark}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet) as process:
            try:
                while '"found"' not in ((folder / "notes").read_text() if (folder / "notes").exists() else ""):
                    assert process.poll() is None
                    time.sleep(0.02)
                time.sleep(after)
                shared = [path for pid in marked(mark) for path in in_shared_memory(pid)]
                at = time.time()
                os.killpg(process.pid, number) if to_all else process.send_signal(number)
                status = process.wait(60)
                seconds = time.time() - at
            finally:
                process.kill()
        remaining = left(mark, seconds=5)
        return Killed(status, seconds, at, after, remaining, [path for path in shared if Path(path).exists()], folder)

    return kill


def in_shared_memory(pid: int) -> list[str]:
    """The files of /dev/shm that a process has open."""
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has just ended
        return []
    return [link for link in links if link.startswith("/dev/shm/")]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_it(killed: Callable[[str], Killed], way: str) -> None:
    assert (killed(way).processes, killed(way).shared) == ([], []), f"killed {killed(way).after:.2f} s after a finding"


@pytest.mark.parametrize("way", WAYS)
def test_each_finding_that_was_kept_is_in_a_whole_seed_file(killed: Callable[[str], Killed], way: str) -> None:
    found = {note["found"] for note in killed(way).notes if "found" in note}
    files = [path for path in (killed(way).folder / "night/2/seeds").iterdir() if not path.name.startswith(".")]
    assert found <= {record.rule for path in files for record in seeds.load(path).findings}


@pytest.mark.parametrize("way", WAYS)
def test_its_json_is_whole_and_says_that_it_was_interrupted(killed: Callable[[str], Killed], way: str) -> None:
    run = killed(way).run
    assert (run["shard"]["index"], run["seed"], run["interrupted"]) == (2, 5, True)
    assert run["findings"]


@pytest.mark.parametrize("way", [way for way in WAYS if "TERM" in way])
def test_sigterm_ends_it_within_a_grace_and_loses_no_draw_that_was_over(
    killed: Callable[[str], Killed], way: str
) -> None:
    ended, run = killed(way), killed(way).run
    assert (ended.status, ended.seconds < GRACE) == (143, True)
    assert run["draws"] >= max(note.get("draws", 0) for note in ended.notes)
    assert {each["rule"] for each in run["findings"]} >= {note["found"] for note in ended.notes if "found" in note}


def test_sigkill_loses_a_few_seconds_of_figures(killed: Callable[[str], Killed]) -> None:
    ended = killed("SIGKILL to the command")
    before = [note["draws"] for note in ended.notes if note.get("at", ended.at) < ended.at - 2 * SECONDS]
    assert ended.status == -signal.SIGKILL
    assert ended.run["ended"] is None
    assert ended.run["draws"] >= max(before, default=0)


@pytest.mark.parametrize("way", WAYS)
def test_what_it_left_can_be_joined(killed: Callable[[str], Killed], way: str) -> None:
    found = {note["found"] for note in killed(way).notes if "found" in note}
    run = forked(killed(way).folder, "merge", "night", "--into", "joined", "--json", "-")
    assert found <= {each["rule"] for each in run.data["findings"]}
    assert "Left out" not in run.err
    assert all(seeds.load(killed(way).folder / each["seed_file"]) for each in run.data["findings"])
