"""Commands that torchrun or srun start as several tasks: one of them speaks, all end alike, and nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.tools.processes import left, marked, new_mark
from tests.tools.tasks import free_port, launch, start, variables

LONG = ("fuzz", "--substrate", "sim", "--minutes", "5")
COUNTS = ("draws", "layouts", "groups", "collectives", "windows", "vacuous")
SECONDS = 180
"""For tasks to end, on a busy machine."""


def ended(tasks: list[subprocess.Popen[str]]) -> tuple[list[int], list[str], list[str]]:
    """Statuses, outputs and errors of tasks, by rank."""
    said = [task.communicate(timeout=SECONDS) for task in tasks]
    return [task.returncode for task in tasks], [out for out, _ in said], [err for _, err in said]


def running(tasks: list[subprocess.Popen[str]], mark: dict[str, str]) -> None:
    """Wait until ranks draw on every host: a task, a zygote and two ranks on each of two."""
    end = time.monotonic() + SECONDS
    while len(marked(mark)) < len(tasks) + 6 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    assert [task.poll() for task in tasks] == [None] * len(tasks)


def test_two_hosts_find_what_one_finds(tmp_path: Path) -> None:
    command = ("fuzz", "--substrate", "sim", "--draws", "12", "--seed", "5", "--shrink-seconds", "1")
    pool = ("--pool", "harness.system.planted.pools:KeyedByRanks")
    over = (*command, *pool, "--seeds-dir", str(tmp_path / "over"), "--json", str(tmp_path / "over.json"))
    alone = (*command, *pool, "--seeds-dir", str(tmp_path / "alone"), "--json", str(tmp_path / "alone.json"))
    mark = new_mark()
    statuses, outputs, errors = ended(launch(4, 2, *over, mark=mark))
    assert (statuses, outputs[1:], errors[1:]) == ([1] * 4, [""] * 3, [""] * 3)
    assert "hosts: host0 (ranks 0 to 1), host1 (ranks 2 to 3)" in outputs[0]
    assert not left(mark, seconds=10)
    assert ended([start({}, *alone, "--world", "4", "--nodes", "2")])[0] == [1]
    found = [json.loads((tmp_path / name).read_text()) for name in ("over.json", "alone.json")]
    # how small a finding becomes in that time is another matter
    facts = ("rule", "draws_to_find", "found_at")
    first, second = ([[each[fact] for fact in facts] for each in run["findings"]] for run in found)
    assert first == second == [["wrong-owner", *first[0][1:]]]
    assert [found[0][count] for count in COUNTS] == [found[1][count] for count in COUNTS]
    assert found[0]["environment"]["hosts"] == "host0 (ranks 0 to 1), host1 (ranks 2 to 3)"


def test_a_signal_to_a_task_of_another_host_interrupts_all(tmp_path: Path) -> None:
    mark = new_mark()
    tasks = launch(4, 2, *LONG, "--seeds-dir", str(tmp_path), mark=mark)
    running(tasks, mark)
    tasks[3].send_signal(signal.SIGTERM)
    statuses, outputs, _ = ended(tasks)
    assert statuses == [143] * 4
    assert " draws in " in outputs[0]
    assert not left(mark, seconds=10)


def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    mark = new_mark()
    tasks = launch(4, 2, *LONG, "--seeds-dir", str(tmp_path), mark=mark)
    running(tasks, mark)
    tasks[0].kill()
    statuses, _, errors = ended(tasks)
    assert statuses[1:] == [2] * 3
    assert all("has ended without a word" in error for error in errors[1:])
    assert not left(mark, seconds=10)


def test_a_host_that_is_lost_ends_the_command_with_its_name(tmp_path: Path) -> None:
    mark = new_mark()
    tasks = launch(4, 2, *LONG, "--seeds-dir", str(tmp_path), mark=mark)
    running(tasks, mark)
    tasks[2].kill()
    statuses, _, errors = ended(tasks)
    assert (statuses[:2], statuses[3]) == ([2, 2], 2)
    assert errors[0] == "symm: host host1 is lost: its line has ended\n"
    assert not left(mark, seconds=10)


def test_a_request_that_is_wrong_ends_every_task_with_one_sentence() -> None:
    statuses, _, errors = ended(launch(2, 1, "fuzz", "--world", "3", "--substrate", "sim"))
    assert statuses == [2, 2]
    assert errors == ["symm: --world 3 does not go with 2 tasks, which are a rank each\n", ""]


def test_hosts_with_unequal_numbers_of_tasks_are_refused() -> None:
    port = free_port()
    hosts = ["alpha", "alpha", "beta"]
    tasks = [
        start({**variables(rank, 3, 2, port), "SYMM_HOST_ID": host}, "fuzz", "--substrate", "sim")
        for rank, host in enumerate(hosts)
    ]
    statuses, _, errors = ended(tasks)
    assert statuses == [2] * 3
    assert errors[0] == "symm: every host needs the same number of tasks: alpha has 2, beta has 1\n"


def test_hosts_of_which_the_launch_does_not_know_are_refused() -> None:
    port = free_port()
    hosts = [{**variables(rank, 2, 2, port), "SYMM_HOST_ID": f"host{rank}"} for rank in (0, 1)]
    statuses, _, errors = ended([start(each, "fuzz", "--substrate", "sim") for each in hosts])
    assert statuses == [2, 2]
    assert errors[0] == "symm: torchrun says that all tasks are on one host, and they name several: host0, host1\n"


def test_a_task_with_another_token_is_turned_away() -> None:
    port = free_port()
    parent = start(variables(0, 2, 1, port), "fuzz", "--substrate", "sim")
    stranger = start({**variables(1, 2, 1, port), "SYMM_TOKEN": "another secret"}, "fuzz", "--substrate", "sim")
    try:
        (status,), _, (error,) = ended([stranger])
        assert status == 2
        assert error.endswith("has another SYMM_TOKEN, is of another launch or user, or none of symm\n")
        assert parent.poll() is None, "it waits for its own task"
    finally:
        parent.terminate()
        parent.wait()


def test_tasks_with_different_commands_are_no_world() -> None:
    port = free_port()
    tasks = [start(variables(rank, 2, 1, port), "fuzz", "--substrate", "sim", "--run", f"n/{rank}") for rank in (0, 1)]
    statuses, _, errors = ended(tasks)
    assert (statuses, errors[1]) == ([2, 2], "")
    assert errors[0].startswith("symm: task 1 was started as 'symm fuzz --substrate sim --run n/1', and task 0 as")


@pytest.mark.parametrize("arguments", [["--version"], ["fuzz", "--help"], ["doctor"], ["fuzz", "--shard", "0/2"]])
def test_what_no_world_runs_waits_for_no_task(arguments: list[str]) -> None:
    (status,), _, (error,) = ended([start(variables(1, 2, 1, free_port()), *arguments)])
    assert status == (2 if "--shard" in arguments else 0)
    assert ("draws its shard alone" in error) == ("--shard" in arguments)


def test_tasks_of_srun_on_one_host_run_as_one_command(tmp_path: Path) -> None:
    slurm = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_NNODES": "1", "MASTER_PORT": str(free_port())}
    command = ("fuzz", "--substrate", "sim", "--draws", "3", "--seeds-dir", str(tmp_path))
    tasks = [start({**slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}, *command) for rank in (0, 1)]
    statuses, outputs, errors = ended(tasks)
    assert (statuses, outputs[1], errors) == ([0, 0], "", ["", ""])
    assert "(ranks 0 to 1)" in outputs[0]
