"""`pytest -n` on GPUs: every process that runs tests has GPUs of its own, or a part of one, and nobody else's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.machine import seats as seats_module
from harness.machine.leases import Patience, Share, lease, take_turn
from harness.machine.seats import RANKS_PER_GPU, Seats
from harness.plugin import workers
from tests.tools.commands import forked_pytest
from tests.tools.fake_gpus import MPS_LOG, MPS_VARIABLE, equip
from tests.tools.lessee import first_line, lessee

SEES = f"""
import os
from pathlib import Path
import pytest
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
Path(f"{{worker}}.saw").write_text(visible + " " + os.environ.get("{MPS_VARIABLE}", "no MPS"))
"""
PLAIN = SEES + "@pytest.mark.parametrize('number', range(4))\ndef test_plain(number): pass\n"
MINE = (
    SEES
    + """
import time
def test_mine():
    mark = Path(os.environ["MARKS"]) / visible
    mark.touch(exist_ok=False)
    time.sleep(0.3)
    mark.unlink()
test_mine_too = test_mine
"""
)
WAITS = SEES + "import time\ndef test_waits():\n    Path('waits').touch()\n    time.sleep(60)\n"
DIES = SEES + "def test_dies():\n    os.kill(os.getpid(), 9)\ndef test_lives(): pass\n"
TURN = (
    SEES
    + """
from harness.machine.leases import Patience, take_turn
def test_turn():
    take_turn(["GPU-c"], Patience(5, print)).close()  # the other worker does the same
test_turn_again = test_turn
"""
)
NESTED = (
    SEES
    + """
import subprocess, sys
def test_nested():
    options = "-n", "2", "-p", "equipped", "-k", "none", "--symm-lease-timeout=0"
    assert subprocess.run([sys.executable, "-m", "pytest", *options]).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
"""
)
NOT_OURS = ("CUDA_VISIBLE_DEVICES", workers.VARIABLE, "PYTEST_XDIST_", "PYTEST_ADDOPTS")

NCCL = "2, 32, 3"
ROOT = str(Path(__file__).parents[2])
"""Where `tests` is found by the pytest that a test starts elsewhere."""


class Played(NamedTuple):
    """A pytest run that has ended."""

    status: int
    out: str
    err: str
    folder: Path
    pid: int

    @property
    def saw(self) -> dict[str, str]:
        """What each process saw when it imported the tests."""
        return {path.stem: path.read_text() for path in self.folder.glob("*.saw")}

    @property
    def mps(self) -> list[str]:
        log = self.folder / MPS_LOG
        return log.read_text().splitlines() if log.exists() else []


def furnish(folder: Path, test: str, gpus: int, nccl: str) -> None:
    """The test, and a plug-in that gives the machine its GPUs."""
    folder.mkdir(exist_ok=True)
    (folder / "test_mine.py").write_text(test)
    (folder / "equipped.py").write_text(
        f"import pytest\nfrom tests.tools.fake_gpus import equip\nequip(pytest.MonkeyPatch(), {gpus}, ({nccl}))\n"
    )


PLUGINS = ("-p", "no:cacheprovider", "-p", "equipped")


def environment(folder: Path) -> dict[str, str]:
    """Of a run whose leases lie beside its folder. It is no part of the run that this test is in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    places = {seats_module.VARIABLE: str(folder.parent / "leases"), "MARKS": str(folder.parent)}
    return {**kept, **places, "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}


@contextmanager
def running(folder: Path, test: str, gpus: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a folder of its own, while it runs."""
    furnish(folder, test, gpus, NCCL)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *PLUGINS, *options],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def play(place: Path, test: str, gpus: int, *options: str, nccl: str = NCCL, **more: str) -> Played:
    """A run in a folder of its own, to its end."""
    folder = place / "run"
    furnish(folder, test, gpus, nccl)
    run = forked_pytest(folder, *PLUGINS, *options, environment={**environment(folder), **more})
    return Played(run.status, run.out, run.err, folder, run.pid)


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of leases of this test, which is that of its runs, and of no other."""
    for name in os.environ:
        if name.startswith(NOT_OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv(seats_module.VARIABLE, str(tmp_path / "leases"))
    return tmp_path / "leases"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One process on one GPU."""
    return play(tmp_path_factory.mktemp("alone"), PLAIN, 1)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Two workers on four GPUs."""
    return play(tmp_path_factory.mktemp("divided"), PLAIN, 4, "-n", "2")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Two workers on one GPU."""
    return play(tmp_path_factory.mktemp("shared"), PLAIN, 1, "-n", "2")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One process without a GPU."""
    return play(tmp_path_factory.mktemp("bare"), PLAIN, 0)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def free(*gpus: str) -> bool:
    return all(Seats().take_any(gpu, RANKS_PER_GPU) for gpu in gpus)


# one process


def test_a_single_process_has_a_gpu_for_every_rank_before_it_imports_a_test(tmp_path: Path) -> None:
    assert play(tmp_path, PLAIN, 4, "--symm-world=2").saw == {"alone": "GPU-a,GPU-b no MPS"}


def test_a_single_process_has_one_gpu_for_all_ranks_where_there_is_one(alone: Played) -> None:
    assert alone.saw == {"alone": "GPU-c no MPS"}


def test_the_header_names_what_is_leased(alone: Played) -> None:
    assert "\nsymm: leased GPU-c (16 of 16 seats)\n" in alone.out


@pytest.mark.parametrize(("setting", "leased"), [("1", "GPU-a"), ("GPU-b", "GPU-b"), ("3,0", "GPU-d,GPU-c")])
def test_only_visible_gpus_are_leased(tmp_path: Path, setting: str, leased: str) -> None:
    assert play(tmp_path, PLAIN, 4, CUDA_VISIBLE_DEVICES=setting).saw == {"alone": f"{leased} no MPS"}


def test_a_run_without_xdist_leases_too(tmp_path: Path) -> None:
    run = play(tmp_path, PLAIN, 1, "-p", "no:xdist")
    assert (run.status, run.saw) == (0, {"alone": "GPU-c no MPS"})


def test_pytest_inside_a_test_uses_the_lease_of_the_test(tmp_path: Path) -> None:
    assert play(tmp_path, NESTED, 1).status == 0


def test_a_killed_run_leaves_its_gpus_free_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "run", WAITS, 1) as process:
        until((tmp_path / "run" / "waits").exists)
        before = free("GPU-c")
        process.kill()
        process.wait()
        assert (before, free("GPU-c")) == (False, True)


@pytest.fixture
def inside(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run pytest in this process, which outlives it, on a machine with one GPU."""
    equip(monkeypatch, 1)
    pytester.makepyfile(SEES + "def test_mine(): pass")
    return lambda *options: pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_a_process_that_goes_on_after_its_run_gives_the_lease_back(inside: Callable[..., pytest.RunResult]) -> None:
    assert (inside().ret, free("GPU-c")) == (0, True)


def test_a_process_that_goes_on_after_its_run_has_its_environment_back(
    inside: Callable[..., pytest.RunResult],
) -> None:
    before = dict(os.environ)
    inside()
    changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
    assert changed - {"PYTEST_VERSION", "PYTEST_CURRENT_TEST"} == set()


# workers


def test_workers_divide_the_gpus(divided: Played) -> None:
    assert sorted(divided.saw.values()) == ["GPU-a,GPU-b no MPS", "GPU-c,GPU-d no MPS"]


def test_workers_share_where_there_are_too_few(shared: Played) -> None:
    assert (shared.status, shared.saw) == (0, dict.fromkeys(("gw0", "gw1"), "GPU-c pipes of the test"))


def test_the_header_says_what_workers_lease(divided: Played) -> None:
    assert "\nsymm: 2 workers, each leases 2 whole GPUs among GPU-c, GPU-a, GPU-b, GPU-d\n" in divided.out


def test_workers_started_with_tx_count_as_they_do_with_n(tmp_path: Path) -> None:
    run = play(tmp_path, PLAIN, 2, "--dist=load", "--tx", "2*popen")
    assert (run.status, sorted(run.saw.values())) == (0, ["GPU-a no MPS", "GPU-c no MPS"])


def test_mps_is_started_and_closed_once_by_the_controller(shared: Played) -> None:
    assert shared.mps == [f"start {shared.pid}", f"close {shared.pid}"]


def test_the_header_says_how_ranks_of_workers_run_side_by_side(shared: Played) -> None:
    assert "each leases 4 of 16 seats of one GPU among GPU-c; a pretended daemon\n" in shared.out


def test_mps_is_not_started_where_no_gpu_is_shared(divided: Played) -> None:
    assert divided.mps == []


def test_a_worker_in_place_of_one_that_crashed_gets_a_lease(tmp_path: Path) -> None:
    run = play(tmp_path, DIES, 1, "-n", "1")
    assert (run.saw, "1 failed, 1 passed" in run.out) == (dict.fromkeys(("gw0", "gw1"), "GPU-c no MPS"), True)


def test_two_runs_with_workers_never_meet_on_a_gpu_and_both_end(tmp_path: Path) -> None:
    options = "-n", "2", "--symm-world=1", "--symm-lease-timeout=60"
    with (
        running(tmp_path / "one", MINE, 2, *options) as one,
        running(tmp_path / "two", MINE, 2, *options) as two,
    ):
        assert [run.wait(timeout=100) for run in (one, two)] == [0, 0]


def test_a_run_with_workers_waits_while_another_has_half_of_them(tmp_path: Path) -> None:
    with take_turn(["GPU-a"], Patience(0, pytest.fail)):
        run = play(tmp_path, PLAIN, 2, "-n", "2", "--symm-lease-timeout=0.2")
    assert "ERROR: waited 0.2 s in vain for the workers of another run to have their seats on GPU-a, GPU-c" in run.err


def test_a_run_gives_up_its_turn_when_its_workers_have_their_leases(tmp_path: Path) -> None:
    assert play(tmp_path, TURN, 1, "-n", "2").status == 0


# waiting


def test_who_waits_says_so_once(tmp_path: Path) -> None:
    with lessee("GPU-c") as holder:
        first_line(holder)
        run = play(tmp_path, PLAIN, 1, "--symm-lease-timeout=0.5")
    said = [line for line in run.err.splitlines() if "waiting" in line]
    assert [line.partition(" (")[0] for line in said] == [
        f"symm: waiting up to 0.5 s for 1 whole GPU among GPU-c, held by pid {holder.pid}"
    ]


def test_a_lease_in_vain_ends_a_run_with_the_gpus_in_its_error(tmp_path: Path) -> None:
    held = lease(Share(1), ["GPU-c"], 0, Patience(0, pytest.fail))
    run = play(tmp_path, PLAIN, 1, "--symm-lease-timeout=0.2")
    assert (held.gpus, run.status, run.saw) == (("GPU-c",), pytest.ExitCode.USAGE_ERROR, {})
    assert "ERROR: waited 0.2 s in vain for 1 whole GPU among GPU-c, held by pid" in run.err


def test_a_lease_in_vain_of_one_worker_ends_the_run_with_one_error(tmp_path: Path) -> None:
    held = lease(Share(1), ["GPU-c"], 0, Patience(0, pytest.fail))
    run = play(tmp_path, PLAIN, 2, "-n", "2", "--symm-world=1", "--symm-lease-timeout=0.5")
    assert (held.gpus, run.status) == (("GPU-c",), pytest.ExitCode.USAGE_ERROR)
    assert re.findall(r"^ERROR: (gw\d): waited .* for 1 whole GPU among GPU-a, GPU-c", run.err, re.MULTILINE)
    assert ("Traceback" in run.out + run.err, "replacing" in run.out) == (False, False)


def test_ctrl_c_ends_waiting(tmp_path: Path) -> None:
    held = lease(Share(1), ["GPU-c"], 0, Patience(0, pytest.fail))
    with running(tmp_path / "run", PLAIN, 1) as process:
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert (held.gpus, process.wait(timeout=30)) == (("GPU-c",), pytest.ExitCode.INTERRUPTED)


# what can never be had

NEVER = [
    pytest.param(("--symm-world=17",), "17 seats; with 1 worker on 1 GPU each gets 1 GPU, and 1 × 16 =", id="world"),
    pytest.param(
        ("-n", "3", "--symm-world=6"), "3 workers do not fit on 1 GPU of 16 seats: the limit is 1 × 2 =", id="workers"
    ),
    pytest.param(("--symm-lease-timeout=-1",), "--symm-lease-timeout=-1.0 is no time to wait", id="time"),
    pytest.param(("--symm-lease-timeout=nan",), "--symm-lease-timeout=nan is no time to wait", id="no number"),
]


@pytest.mark.parametrize(("options", "said"), NEVER)
def test_what_can_never_be_had_is_refused_before_anything_runs(
    tmp_path: Path, leases: Path, options: tuple[str, ...], said: str
) -> None:
    run = play(tmp_path, PLAIN, 1, *options)
    assert (run.status, run.saw, leases.exists()) == (pytest.ExitCode.USAGE_ERROR, {}, False)
    assert said in run.err


def test_workers_that_would_share_gpus_on_an_nccl_that_cannot_are_refused(tmp_path: Path) -> None:
    run = play(tmp_path, PLAIN, 4, "-n", "2", nccl="2, 29, 7")
    assert "ERROR: each worker gets 2 whole GPUs for 4 ranks, and NCCL 2.29.7 cannot share one" in run.err


def test_a_bad_folder_of_leases_is_refused_in_one_line(tmp_path: Path, leases: Path) -> None:
    leases.write_text("")
    run = play(tmp_path, PLAIN, 1)
    assert (run.status, run.err.count("\n"), f"ERROR: {leases} is no folder" in run.err) == (4, 2, True)


# where no lease is needed


def test_a_single_process_without_a_gpu_touches_nothing(bare: Played) -> None:
    assert (bare.status, bare.saw, (bare.folder.parent / "leases").exists()) == (0, {"alone": "all no MPS"}, False)


@pytest.mark.parametrize(
    ("gpus", "options"),
    [
        pytest.param(0, ("-n", "2"), id="no GPU, workers"),
        pytest.param(2, ("--symm-substrate=sim",), id="sim"),
        pytest.param(2, ("--symm-substrate=sim", "-n", "2"), id="sim, workers"),
    ],
)
def test_without_gpus_nothing_is_touched(tmp_path: Path, leases: Path, gpus: int, options: tuple[str, ...]) -> None:
    run = play(tmp_path, PLAIN, gpus, *options)
    assert (run.status, set(run.saw.values()), leases.exists()) == (0, {"all no MPS"}, False)


def test_without_gpus_the_header_speaks_of_no_lease(bare: Played) -> None:
    (line,) = re.findall("^symm: .*", bare.out, re.MULTILINE)
    assert line.startswith("symm: substrate sim (no GPU is visible), world of 4 ranks; Python ")


@pytest.mark.parametrize("option", ["--collect-only", "--help", "--markers", "--fixtures"])
def test_where_no_test_runs_nothing_is_leased(tmp_path: Path, leases: Path, option: str) -> None:
    run = play(tmp_path, PLAIN, 1, option)
    assert (run.status, leases.exists()) == (0, False)


# -n auto


@pytest.mark.parametrize(
    ("gpus", "options", "count"),
    [
        (4, ("--symm-world=2",), 2),
        (4, ("--symm-world=1",), 4),
        (8, ("--symm-world=2",), 4),
        (8, ("--symm-world=8",), 1),
        (4, ("--symm-world=8",), 3),
        (1, ("--symm-world=4",), 3),
        (1, ("--symm-world=8",), 2),
        (2, ("--symm-world=40",), 1),
        (0, (), None),
        (4, ("--symm-substrate=sim",), None),
        (0, ("--symm-substrate=nccl",), None),
        (4, ("--symm-world=0",), None),
    ],
)
def test_auto_counts_by_gpus_and_leaves_the_rest_to_xdist(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, gpus: int, options: tuple[str, ...], count: int | None
) -> None:
    equip(monkeypatch, gpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert workers.auto_workers(pytester.parseconfig(*options)) == count


def test_auto_leaves_the_count_to_the_variable_of_xdist(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    equip(monkeypatch, 4)
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "7")
    assert workers.auto_workers(pytester.parseconfig()) is None


def test_auto_is_heard_by_xdist(tmp_path: Path) -> None:
    run = play(tmp_path, PLAIN, 4, "-n", "auto", "--symm-world=2")
    assert (run.status, sorted(run.saw)) == (0, ["gw0", "gw1"])
