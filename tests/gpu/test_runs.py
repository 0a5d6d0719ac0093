"""Runs of pytest on several real GPUs: workers with one and with two GPUs each, two runs at a time, killed runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
import pytest

from harness.machine import daemon, gpus, mps
from harness.machine import seats as seats_module
from harness.world import litter
from tests.tools import many_gpus
from tests.tools.lessee import free
from tests.tools.mps_daemon import until
from tests.tools.processes import left, marked, new_mark

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

COUNTS = [8, 4, 2]
TEST = """
import os, time
from pathlib import Path
import pytest
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios

worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
HOLDS = {holds}

@pytest.mark.parametrize("number", range(16))
def test_right_programs_are_clean(world, number):
    for scenario in sample(scenarios(world.size), 3, seed=number):
        world.check(scenario)
    Path(f"{{worker}}.saw").write_text(os.environ["CUDA_VISIBLE_DEVICES"] + f" {{world.substrate}} {{os.getpid()}}")
    time.sleep(HOLDS)
"""
IS_INSTALLED = any(point.name == "symm" for point in entry_points(group="pytest11"))
PLUGIN = () if IS_INSTALLED else ("-p", "harness.plugin")
GRACE = 60.0
"""Seconds in which all of a killed run is gone. A worker whose controller was killed ends within 15 (execnet)."""
READY = 200.0
"""Seconds for the workers of a run to start their ranks and run a test."""
SHARED_MEMORY = Path("/dev/shm")


class Run(NamedTuple):
    """A run of pytest while it runs, and afterwards."""

    process: subprocess.Popen[bytes]
    folder: Path
    mark: dict[str, str]

    @property
    def saw(self) -> dict[str, list[str]]:
        """The GPUs of each process that has run a test on NCCL, by the name of the worker."""
        found = {path.stem: path.read_text().split() for path in self.folder.glob("*.saw")}
        return {name: words[0].split(",") for name, words in found.items() if words[1:2] == ["nccl"]}

    def pid(self, worker: str) -> int:
        return int((self.folder / f"{worker}.saw").read_text().split()[2])

    @property
    def printed(self) -> str:
        return (self.folder / "printed").read_text()

    def has_run_on(self, workers: int) -> None:
        """Wait until so many workers have run a test."""
        until(lambda: len(self.saw) == workers or self.process.poll() is not None, READY)
        assert len(self.saw) == workers, self.printed

    def ends_well(self) -> None:
        assert self.process.wait(timeout=READY) == 0, self.printed


@pytest.fixture(scope="module", params=COUNTS, ids="{}gpus".format)
def visible(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with many_gpus.first(request.param) as uuids:
        yield uuids


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for runs. Its path is short: sockets of MPS lie in it, and theirs have 107 bytes at most."""
    with TemporaryDirectory(prefix="runs-") as folder:
        yield Path(folder)


@contextmanager
def running(place: Path, visible: Sequence[str], *options: str, holds: float = 0) -> Iterator[Run]:
    """A run with leases of its own, on the GPUs of this test; each of its tests lasts `holds` seconds longer."""
    folder, mark = place / f"run{len([*place.iterdir()])}", new_mark()
    folder.mkdir()
    (place / "tmp").mkdir(exist_ok=True)
    (folder / "test_mine.py").write_text(TEST.format(holds=holds))
    places = {seats_module.VARIABLE: str(place / "leases"), "TMPDIR": str(place / "tmp")}
    root = f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *PLUGIN, *options],
            cwd=folder,
            env={**many_gpus.own(), **places, **mark, gpus.VISIBLE: ",".join(visible), "PYTHONPATH": root},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Run(process, folder, mark)
        finally:
            process.kill()
            process.wait()
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def folders(place: Path) -> list[str]:
    """Folders for temporary files that the harness made and left."""
    return [path.name for path in (place / "tmp").glob("symm-*")]


def test_auto_gives_each_worker_two_gpus_for_two_ranks(place: Path, visible: list[str]) -> None:
    with running(place, visible, "-n", "auto", "--symm-world=2") as run:
        run.ends_well()
        assert [len(each) for each in run.saw.values()] == [2] * (len(visible) // 2)
        assert sorted(chain(*run.saw.values())) == sorted(visible)


def test_as_many_workers_as_gpus_have_one_each(place: Path, visible: list[str]) -> None:
    with running(place, visible, "-n", str(len(visible)), "--symm-world=2") as run:
        run.ends_well()
        assert sorted(run.saw.values()) == sorted([uuid] for uuid in visible)


def test_two_runs_at_a_time_have_half_of_the_gpus_each(place: Path, visible: list[str]) -> None:
    half = len(visible) // 2
    with (
        running(place, visible, f"--symm-world={half}", holds=1) as one,
        running(place, visible, f"--symm-world={half}", holds=1) as two,
    ):
        one.ends_well()
        two.ends_well()
        seen = [run.saw["alone"] for run in (one, two)]
    assert ([len(each) for each in seen], sorted(chain(*seen))) == ([half] * 2, sorted(visible))


def test_nothing_is_left_of_a_killed_run(place: Path, visible: list[str]) -> None:
    before = {*SHARED_MEMORY.iterdir()}
    with running(place, visible, "-n", "auto", "--symm-world=2", holds=120) as run:
        run.has_run_on(len(visible) // 2)
        mapped = litter.mapped(marked(run.mark))
        held = free(place / "leases", visible)
        run.process.kill()
        run.process.wait()
        processes = left(run.mark, GRACE)
    assert (held, processes, free(place / "leases", visible), folders(place)) == ([], [], visible, [])
    assert [path for path in mapped | {*SHARED_MEMORY.glob("nccl-*")} - before if path.exists()] == []


def test_nothing_is_left_of_a_killed_run_whose_ranks_share_gpus(place: Path, visible: list[str]) -> None:
    """One process with two ranks on each GPU, and MPS between them."""
    with running(place, visible, f"--symm-world={2 * len(visible)}", holds=120) as run:
        run.has_run_on(1)
        has_private = any(name.startswith("symm-mps-") for name in folders(place))
        run.process.kill()
        run.process.wait()
        processes = left(run.mark, GRACE)
        until(lambda: not folders(place), GRACE)
    assert (processes, folders(place), free(place / "leases", visible)) == ([], [], visible)
    assert has_private == (daemon.is_installed() and not mps.serves_already())


def test_a_worker_in_place_of_a_killed_one_runs_on_its_gpus(place: Path, visible: list[str]) -> None:
    workers = len(visible) // 2
    with running(place, visible, "-n", "auto", "--symm-world=2", holds=120) as run:
        run.has_run_on(workers)
        gone = [run.pid("gw0"), *(child.pid for child in psutil.Process(run.pid("gw0")).children(recursive=True))]
        os.kill(run.pid("gw0"), signal.SIGKILL)
        run.has_run_on(workers + 1)
        saw = run.saw
    (new,) = saw.keys() - {f"gw{number}" for number in range(workers)}
    assert (saw[new], [pid for pid in gone if daemon.is_running(pid)]) == (saw["gw0"], [])
