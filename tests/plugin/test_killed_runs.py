"""Runs of pytest on four and eight GPUs that are killed: nothing of theirs is left, and their GPUs are free again.

The GPUs are pretended, MPS is played by a script, and the worlds are simulated; leases, processes and guardians are
real.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from harness.machine import daemon
from tests.cli.nights.test_killed import in_shared_memory
from tests.plugin import test_workers
from tests.plugin.test_workers import PLUGINS, SEES, environment, until
from tests.tools import mps_daemon
from tests.tools.fake_gpus import UUIDS
from tests.tools.lessee import free
from tests.tools.processes import left, marked, new_mark

HOLDS = (
    SEES
    + """
import time
from contextlib import nullcontext
from harness.machine import mps
from harness.world.world import World
@pytest.mark.parametrize("number", range(16))
def test_holds(number):
    with World(2, "sim") if worker == "gw0" else nullcontext():  # in one, as starting them takes the time of a core
        served = mps.start()
        Path(f"{worker}.holds.new").write_text(f"{os.getpid()} {served.how}")
        Path(f"{worker}.holds.new").rename(f"{worker}.holds")
        time.sleep(120)
"""
)
EQUIPPED = """
import pytest
from tests.tools.fake_gpus import equip
equip(pytest.MonkeyPatch(), {gpus}, is_mps_played=False)
"""
GRACE = 60.0
"""Seconds in which all is gone. A worker whose controller was killed ends its test within 15 (execnet)."""


class Machine(NamedTuple):
    """A machine with so many GPUs, and the program of MPS on the PATH."""

    place: Path
    gpus: int

    @property
    def uuids(self) -> tuple[str, ...]:
        return UUIDS[: self.gpus]

    @property
    def free(self) -> list[str]:
        """GPUs of which no seat is held."""
        return free(self.place / "leases", self.uuids)

    @property
    def folders(self) -> list[str]:
        """What is in its folder for temporary files, beside pytest's own."""
        return [path.name for path in (self.place / "tmp").iterdir() if not path.name.startswith("pytest-of-")]


class Run(NamedTuple):
    """A run while it runs."""

    process: subprocess.Popen[str]
    folder: Path
    mark: dict[str, str]

    @property
    def holders(self) -> dict[str, int]:
        """Processes that run the test, by the name of the worker."""
        return {path.stem: int(path.read_text().split()[0]) for path in self.folder.glob("*.holds")}

    @property
    def saw(self) -> dict[str, str]:
        """GPUs that each process saw."""
        return {path.stem: path.read_text().partition(" ")[0] for path in self.folder.glob("*.saw")}

    @property
    def mps(self) -> set[str]:
        """How ranks of the workers share GPUs."""
        return {path.read_text().partition(" ")[2] for path in self.folder.glob("*.holds")}

    def holds(self, workers: int) -> None:
        """Wait until so many workers run their test."""
        until(lambda: len(self.holders) == workers or self.process.poll() is not None)
        assert len(self.holders) == workers, self.process.communicate()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This test is no part of the runs, and its machine has the program of MPS."""
    for name in ("bin", "tmp"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / daemon.CONTROL
    program.write_text(mps_daemon.CONTROL)
    program.chmod(0o755)
    for name in os.environ:
        if name.startswith((*test_workers.NOT_OURS, daemon.PIPES)):
            monkeypatch.delenv(name)


@contextmanager
def running(machine: Machine, name: str, *options: str) -> Iterator[Run]:
    folder = machine.place / name
    folder.mkdir()
    (folder / "test_mine.py").write_text(HOLDS)
    (folder / "equipped.py").write_text(EQUIPPED.format(gpus=machine.gpus))
    mark = new_mark()
    places = {"PATH": f"{machine.place / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(machine.place / "tmp")}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *PLUGINS, "--symm-lease-timeout=60", *options],
        cwd=folder,
        env={**environment(folder), **places, **mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Run(process, folder, mark)
        finally:
            process.kill()
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """A process and all that it has started, its guardian, zygote and ranks among them."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def in_memory(run: Run) -> list[str]:
    return [path for pid in marked(run.mark) for path in in_shared_memory(pid)]


RUNS = [
    pytest.param(4, 4, ("-n", "4", "--symm-world=2"), id="4 GPUs, one a worker"),
    pytest.param(8, 2, ("-n", "auto", "--symm-world=4"), id="8 GPUs, four a worker"),
]


@pytest.mark.parametrize(("gpus", "workers", "options"), RUNS)
def test_nothing_is_left_of_a_killed_run(tmp_path: Path, gpus: int, workers: int, options: tuple[str, ...]) -> None:
    machine = Machine(tmp_path, gpus)
    with running(machine, "run", *options) as run:
        run.holds(workers)
        held, daemons, shared = machine.free, machine.folders, in_memory(run)
        run.process.kill()
        run.process.wait()
        processes = left(run.mark, GRACE)
        assert (held, run.mps, len(daemons)) == ([], {"a private MPS daemon"}, workers)
        assert (processes, machine.free, machine.folders) == ([], [*machine.uuids], [])
        assert [path for path in shared if Path(path).exists()] == []


def test_a_worker_in_place_of_a_killed_one_has_its_gpus_and_nothing_else_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 4)
    with running(machine, "run", "-n", "auto", "--symm-world=2") as run:
        run.holds(2)
        before, of_killed = {*machine.folders}, descendants(run.holders["gw0"])
        os.kill(run.holders["gw0"], signal.SIGKILL)
        run.holds(3)
        kept = {run.saw["gw1"], run.saw["gw0"]}
        assert (run.saw["gw2"], len(kept), len(machine.folders)) == (run.saw["gw0"], 2, 2)
        assert len(before & {*machine.folders}) == 1
        assert [pid for pid in of_killed if daemon.is_running(pid)] == []


@pytest.mark.parametrize("gpus", [4, 8])
def test_two_runs_at_a_time_have_half_of_the_gpus_each(tmp_path: Path, gpus: int) -> None:
    machine, world = Machine(tmp_path, gpus), f"--symm-world={gpus // 2}"
    with running(machine, "one", world) as one, running(machine, "two", world) as two:
        one.holds(1)
        two.holds(1)
        seen = [run.saw["alone"].split(",") for run in (one, two)]
    assert ([len(each) for each in seen], sorted(chain(*seen))) == ([gpus // 2] * 2, sorted(machine.uuids))


def test_a_run_that_waits_gets_the_gpus_of_a_killed_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 4)
    with running(machine, "one", "-n", "auto", "--symm-world=2") as one:
        one.holds(2)
        with running(machine, "two", "--symm-world=4") as two:
            assert two.process.stderr is not None
            assert "waiting up to 60 s for 4 whole GPUs" in two.process.stderr.readline()
            one.process.kill()
            two.holds(1)
            assert (two.saw, left(one.mark, GRACE)) == ({"alone": "GPU-c,GPU-a,GPU-b,GPU-d"}, [])
