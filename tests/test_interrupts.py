"""Ctrl-C ends a command also where Python drops it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.campaign import LONG
from tests.tools.commands import ALONE, forked_code
from tests.tools.processes import left, new_mark

DROPPED = """
import signal, sys
from harness.cli import main as cli
from harness.world import world

class Fleeting:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

run, runs = world.World.run, []

def pressing(self, scenario, **how):
    runs.append(scenario)
    if len(runs) == 3:
        Fleeting()
    return run(self, scenario, **how)

world.World.run = pressing
sys.argv = ["symm", "fuzz", "--draws", "30", "--world", "2", "--substrate", "sim"]
cli.main()
"""


COVERED = """
import signal, sys
from harness.cli import main as cli
from harness.world import world

def pressing(self, scenario, **how):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        assert not "what Hypothesis was in the middle of"

world.World.run = pressing
sys.argv = ["symm", "fuzz", "--draws", "30", "--world", "2", "--substrate", "sim"]
cli.main()
"""


@pytest.mark.parametrize("way", [DROPPED, COVERED], ids=["in a finalizer", "under another error"])
def test_ctrl_c_that_python_loses_ends_the_command(tmp_path: Path, way: str) -> None:
    run = forked_code(tmp_path, way)
    assert (run.status, run.err, run.processes) == (130, "symm: interrupted\n", [])


def test_ctrl_c_while_the_command_line_is_imported_ends_as_elsewhere(tmp_path: Path) -> None:
    command = ["symm", "fuzz", "--substrate", "sim"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **ALONE}, stderr=subprocess.PIPE, text=True)
    with process:
        while "msgspec" not in Path(f"/proc/{process.pid}/maps").read_text():  # among the first that are imported
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "symm: interrupted\n")


NAPS = """
import time
from pathlib import Path
from harness.system.pools.per_group import PerGroup

class Naps(PerGroup):
    def use(self, group):
        Path("asleep").touch()
        time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("signals", "to_group", "status"),
    [
        ((signal.SIGINT,), False, 130),
        ((signal.SIGHUP,), False, 129),  # as a terminal that is closed does
        ((signal.SIGTERM,), True, 143),  # as `timeout` does: ranks are signalled too
        ((signal.SIGINT, signal.SIGTERM), True, 130),  # as runners cancel a job
    ],
    ids=["Ctrl-C", "SIGHUP", "SIGTERM to all", "both to all"],
)
def test_a_draw_that_hangs_until_the_command_is_interrupted_is_kept_and_told(
    tmp_path: Path, signals: tuple[int, ...], to_group: bool, status: int
) -> None:
    mark = new_mark()
    (tmp_path / "naps.py").write_text(NAPS)
    command = "symm fuzz --substrate sim --world 2 --pool naps:Naps --json found.json"

    def hear() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup would have it ignored

    streams = {
        "preexec_fn": hear,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    with subprocess.Popen(command.split(), cwd=tmp_path, env={**os.environ, **ALONE, **mark}, **streams) as process:
        while not (tmp_path / "asleep").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(LONG + 0.5)
        for number in signals:
            os.killpg(process.pid, number) if to_group else process.send_signal(number)
            time.sleep(0.05)
        said, error = process.communicate(timeout=60)
    assert (process.returncode, error, left(mark, seconds=2)) == (status, "symm: interrupted\n", [])
    (kept,) = (tmp_path / "symm-seeds").iterdir()
    assert re.search(r"Draw \d+ had run for \d+\.\d s", said)
    assert f"replay: symm replay symm-seeds/{kept.name}" in said
    assert seeds.load(kept).scenario.system.pool == "naps:Naps"
    assert json.loads((tmp_path / "found.json").read_bytes())["findings"] == []


def test_while_results_are_told_a_signal_is_remembered_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_signal", 0)
    with interrupts.held():
        interrupts._press(signal.SIGTERM, None)
        interrupts._press(signal.SIGINT, None)
    assert (interrupts.has_come(), interrupts.status()) == (True, 143)
    with pytest.raises(KeyboardInterrupt):
        interrupts._press(signal.SIGINT, None)


@pytest.mark.parametrize(
    ("way", "number"),
    [
        (interrupts.leave_at_once, signal.SIGINT),
        (interrupts.heed, signal.SIGINT),
        (interrupts.heed, signal.SIGHUP),  # as nohup has it
    ],
)
def test_a_process_that_ignores_a_signal_goes_on_ignoring_it(way: Callable[[], None], number: signal.Signals) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, hook = [signal.getsignal(each) for each in numbers], sys.unraisablehook
    signal.signal(number, signal.SIG_IGN)
    try:
        way()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        sys.unraisablehook = hook
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)


def test_without_ctrl_c_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts.check()
    monkeypatch.setattr(interrupts, "_signal", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
