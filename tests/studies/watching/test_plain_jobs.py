"""Jobs that know nothing of the harness, on a stand-in for NCCL: faults are named, and right jobs are silent."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.machine.observer import build
from harness.machine.observer.records import read_all
from harness.studies.watching.judging import Judged, judge
from tests.tools import plain_jobs
from tests.tools.fake_libnccl import ROOT, fake_cudart, observed

WRONG = {
    "wrong-site-group": "wrong-owner",
    "many-buffers": "wrong-owner",
    "cross-group-reuse": "wrong-owner",
    "offset-skew": "offset-mismatch",
    "segment-skew": "segment-mismatch",
    "history-coupling": "offset-mismatch",
    "hot-path-growth": "hot-path-growth",
    "stale-window": "stale-window",
    "free-before-deregister": "freed-while-registered",
    "work-after-a-free-at-the-end": "freed-while-registered",
    "double-registration": "double-registration",
    "stream-stranding": "hot-path-growth",
    "register-in-capture": "registered-in-capture",
    "stranding-in-capture": "registered-in-capture",
    "captured-block-reuse": "captured-reuse",
    "captured-block-reuse-later": "captured-reuse",
    "graph-uses-eager-pool": "captured-reuse",
    "leak": "hot-path-growth",
    "null-window-ignored": "null-window",
    "lazy-communicator": "unregistered",
    "summed-elsewhere": "wrong-owner",
    "summed-in-place-elsewhere": "wrong-owner",
    "half-registered-send": "half-registered",
    "half-registered-exchange": "half-registered",
    "half-registered-later": "half-registered",
    "half-registered-all-to-all": "half-registered",
}
HANGING = {
    "register-count-skew": "registration-skew",
    "register-order-skew": "hang",
    "one-rank-oom": "registration-skew",
    "uneven-tokens": "registration-skew",
}
RIGHT = [name for name in plain_jobs.JOBS if name.startswith("right-")]
SECONDS = 60.0


def watched(name: str, folder: Path) -> Judged:
    """What two ranks did that ran a job. If all that have not ended wait in calls, they are killed."""
    more = {"WORLD_SIZE": "2", "FAKE_NCCL_NULL_WINDOWS": str(int(name == "null-window-ignored"))}
    more[build.HISTORY_WANTED] = "1"
    command = [sys.executable, str(ROOT / "tests" / "tools" / "plain_jobs.py"), name]
    out = folder / "out"
    fake_cudart()
    ranks = [subprocess.Popen(command, env=observed(folder, out, {"RANK": str(rank), **more})) for rank in range(2)]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and any(rank.poll() is None for rank in ranks) and not _hangs(out, ranks):
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()
        rank.wait()
    return judge(read_all(out))


def _hangs(out: Path, ranks: list[subprocess.Popen[bytes]]) -> bool:
    """Whether every rank that has not ended waits in one call for a second."""
    running = {rank.pid for rank in ranks if rank.poll() is None}
    if len(list(out.glob("*.symm"))) < 2:
        return False
    waits = [{process.pid: process.in_flight for process in read_all(out) if process.pid in running}]
    time.sleep(1.0)
    waits += [{process.pid: process.in_flight for process in read_all(out) if process.pid in running}]
    return waits[0] == waits[1] and len(waits[0]) == len(running) and all(waits[0].values())


def rules(judged: Judged) -> list[str]:
    return [finding.rule for finding in judged.findings]


def test_every_job_is_tried() -> None:
    assert {*WRONG, *HANGING, *RIGHT} == plain_jobs.JOBS.keys()


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_named(name: str, tmp_path: Path) -> None:
    assert {*rules(watched(name, tmp_path))} == {WRONG[name]}


@pytest.mark.parametrize("name", HANGING)
def test_a_fault_that_hangs_is_named(name: str, tmp_path: Path) -> None:
    assert rules(watched(name, tmp_path))[0] == HANGING[name]


def test_registrations_in_opposite_order_are_named_by_both_communicators(tmp_path: Path) -> None:
    (found,) = watched("register-order-skew", tmp_path).findings
    assert "comm[0,1]" in found.explanation
    assert "comm-2[0,1]" in found.explanation


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_job_is_silent_and_tested(name: str, tmp_path: Path) -> None:
    judged = watched(name, tmp_path)
    assert (rules(judged), judged.is_vacuous) == ([], False)


def test_calls_are_told_by_call_site_with_path_and_owner(tmp_path: Path) -> None:
    first, second = watched("cross-group-reuse", tmp_path).rows
    assert (first.calls, first.symmetric, [*first.owners]) == (6, 6, ["its own window"])
    assert (second.calls, second.legacy, [*second.owners]) == (2, 2, ["windows of comm[0,1]"])
    assert second.place.startswith("plain_jobs.py:") or second.place.startswith("nccl_program.py:")


def test_what_all_ranks_did_wrong_is_one_finding(tmp_path: Path) -> None:
    (found,) = watched("free-before-deregister", tmp_path).findings
    assert found.ranks == (0, 1)
    assert "was freed at free 1 (" in found.explanation


def test_what_is_freed_by_the_end_of_a_process_is_said_beside_the_verdict(tmp_path: Path) -> None:
    judged = watched("right-free-at-the-end", tmp_path)
    assert judged.assembled.left_out == (
        "2 frees at the end of a process, when Python had ended: windows may live longer.",
    )


def test_a_window_that_went_with_its_communicator_is_said_to_have_gone_then(tmp_path: Path) -> None:
    (found,) = watched("stale-window", tmp_path).findings
    assert "that window went at destruction of comm[0,1]" in found.explanation


def test_one_mistake_with_many_buffers_is_one_finding(tmp_path: Path) -> None:
    (found,) = watched("many-buffers", tmp_path).findings
    assert found.rule == "wrong-owner"
    assert found.explanation.endswith("The same holds at 4 other steps like it.")


@pytest.mark.parametrize("name", ["register-in-capture", "stranding-in-capture"])
def test_a_registration_in_a_capture_is_named_with_communicator_place_and_capture(name: str, tmp_path: Path) -> None:
    (found,) = watched(name, tmp_path).findings
    entered, _, capture = found.explanation.partition(", in ")
    assert entered.startswith("rank 0 entered a registration with comm[0,1] at registration 2 (nccl_program.py:")
    assert "from plain_jobs.py:" in entered
    assert re.fullmatch(r"capture 1 \(graph_programs\.py:\d+ .* from plain_jobs\.py:\d+ \w+\)\.", capture)
    assert name.replace("-", "_") in capture


def test_captured_calls_are_counted_as_such(tmp_path: Path) -> None:
    (row,) = watched("right-capture", tmp_path).rows
    assert (row.calls, row.captured, [*row.owners]) == (4, 2, ["its own window"])
