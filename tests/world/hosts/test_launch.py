"""What torchrun and srun say is taken as they mean it; whatever is no task of several runs alone."""

from __future__ import annotations

import os

import pytest

from harness.errors import UsageError
from harness.world.hosts.launch import Launch, alone, first_of, host_id, launched
from tests.tools.tasks import TOKEN, variables

SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "40007",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
    "SYMM_TOKEN": TOKEN,
}


def test_a_task_of_torchrun_meets_the_others_behind_its_port() -> None:
    assert launched(variables(3, 4, 2, 29500)) == Launch(3, 4, "127.0.0.1", 29501, TOKEN, "torchrun")


def test_a_task_runs_alone_where_it_is_told_to() -> None:
    assert launched({**SRUN, "SYMM_LAUNCH": "off"}) is None
    with pytest.raises(UsageError, match="SYMM_LAUNCH='no' is not off"):
        launched({**SRUN, "SYMM_LAUNCH": "no"})


@pytest.mark.parametrize("task", [SRUN, variables(0, 2, 1, 29500)], ids=["srun", "torchrun"])
def test_what_a_program_of_a_task_starts_is_no_task(task: dict[str, str]) -> None:
    assert launched({**task, **alone(task)}) is None


def test_what_a_launcher_starts_that_is_no_task_itself_is_one() -> None:
    task = variables(0, 2, 1, 29500)
    assert launched({**alone({}), **task}) is not None


@pytest.mark.parametrize("other", [{"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "40008"}, {"SLURM_NTASKS": "8"}])
def test_no_two_launches_have_one_secret(other: dict[str, str]) -> None:
    first, second = launched(SRUN), launched({**SRUN, **other})
    assert first is not None
    assert second is not None
    assert first.secret != second.secret


def test_a_task_of_srun_meets_the_others_on_the_first_host_at_a_port_of_the_job() -> None:
    assert launched(SRUN) == Launch(3, 4, "gpu03", 20008, TOKEN, "srun", "40007.0")


def test_a_step_of_srun_may_be_smaller_than_its_job() -> None:
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "big7", "MASTER_PORT": "29500"}
    assert launched({**SRUN, **step}) == Launch(3, 8, "big7", 29501, TOKEN, "srun", "40007.0")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "4"},
        variables(0, 1, 1, 29500),
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"},
        {**SRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
    ],
    ids=["nothing", "a container's variables", "one task of torchrun", "a script of sbatch", "one task of srun"],
)
def test_one_process_runs_alone(environment: dict[str, str]) -> None:
    assert launched(environment) is None


@pytest.mark.parametrize("environment", [variables(1, 4, 4, 29500), {**SRUN, "SLURM_NNODES": "1"}])
def test_tasks_on_one_host_need_no_token_and_meet_in_its_kernel(environment: dict[str, str]) -> None:
    found = launched({**environment, "SYMM_TOKEN": ""})
    assert found is not None
    assert (found.address, found.token) == (f"@symm-{os.geteuid()}-{found.port}", "")


@pytest.mark.parametrize("token", ["", "short"])
def test_tasks_on_several_hosts_need_a_token(token: str) -> None:
    with pytest.raises(UsageError, match="set SYMM_TOKEN to the same 8 letters"):
        launched({**variables(0, 4, 2, 29500), "SYMM_TOKEN": token})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORLD_SIZE", "many", "WORLD_SIZE='many' is no number"),
        ("RANK", "4", "torchrun started task 4 of 4"),
        ("MASTER_PORT", "x", "MASTER_PORT='x' is no number"),
    ],
)
def test_a_variable_that_is_wrong_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        launched({**variables(0, 4, 2, 29500), name: value})


def test_a_job_without_an_address_is_refused_by_the_variable_that_helps() -> None:
    with pytest.raises(UsageError, match="set MASTER_ADDR"):
        launched({**SRUN, "SLURM_JOB_NODELIST": ""})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[03-05,09],big1", "gpu03"),
        ("gpu[7,9]", "gpu7"),
        ("rack[1-2]-node4", "rack1-node4"),
        ("login,gpu[1-2]", "login"),
    ],
)
def test_the_first_host_of_a_list_is_found(hosts: str, first: str) -> None:
    assert first_of(hosts) == first


def test_a_host_is_named_by_its_variable_or_by_the_system() -> None:
    assert host_id({"SYMM_HOST_ID": "alpha"}) == "alpha"
    assert host_id({}) != ""
