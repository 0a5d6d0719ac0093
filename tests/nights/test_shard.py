"""Shards: which one an option or an engine names, the seed that those of a night share, and draws that are of one."""

from __future__ import annotations

import datetime
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.nights.shard import VARIABLES, Shard, night_seed, parse, shard, uncounted
from harness.scenario.scenario import Scenario
from harness.strategies.batches import batch
from harness.strategies.programs import scenarios

TODAY = datetime.date(2026, 1, 31)
SLURM = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}
ENGINES = {
    "Slurm": (SLURM, "SLURM_ARRAY_TASK_ID"),
    "Slurm from 0": (SLURM | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0"}, "SLURM_ARRAY_TASK_ID"),
    "Slurm in steps": (
        SLURM | {"SLURM_ARRAY_TASK_ID": "15", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "5"},
        "SLURM_ARRAY_TASK_ID",
    ),
    "Kubernetes": ({"JOB_COMPLETION_INDEX": "1", "SYMM_SHARDS": "4"}, "JOB_COMPLETION_INDEX"),
    "GitLab": ({"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "4"}, "CI_NODE_INDEX"),
    "CircleCI": ({"CIRCLE_NODE_INDEX": "1", "CIRCLE_NODE_TOTAL": "4"}, "CIRCLE_NODE_INDEX"),
    "Buildkite": ({"BUILDKITE_PARALLEL_JOB": "1", "BUILDKITE_PARALLEL_JOB_COUNT": "4"}, "BUILDKITE_PARALLEL_JOB"),
    "a matrix": ({"SYMM_SHARD": "2/4"}, "SYMM_SHARD"),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_second_of_four_tasks_is_the_second_shard_on_every_engine(engine: str) -> None:
    variables, source = ENGINES[engine]
    assert shard(None, variables) == Shard(2, 4, source)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_option_wins_over_every_engine(engine: str) -> None:
    assert shard("3/5", ENGINES[engine][0]) == Shard(3, 5, "--shard")


def test_every_variable_that_decides_is_listed_for_those_who_clear_it() -> None:
    assert {name for variables, _ in ENGINES.values() for name in variables} <= {
        *VARIABLES,
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    }


def test_without_an_engine_there_is_no_shard() -> None:
    assert shard(None, {}) is None


def test_an_empty_variable_is_not_set() -> None:
    assert shard(None, dict.fromkeys(VARIABLES, "")) is None


@pytest.mark.parametrize(
    "variables", [{"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "1"}, {"CI_NODE_TOTAL": "1"}], ids=["one", "none"]
)
def test_a_job_that_is_not_divided_has_no_shard(variables: dict[str, str]) -> None:
    assert shard(None, variables) is None


def test_a_task_of_an_array_that_a_ci_submitted_is_a_shard_of_the_array() -> None:
    found = shard(None, {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2", **SLURM})
    assert found is not None
    assert found.source == "SLURM_ARRAY_TASK_ID"


def test_a_job_that_does_not_say_of_how_many_has_no_shard_and_a_line_that_says_so() -> None:
    job = {"JOB_COMPLETION_INDEX": "3"}
    assert shard(None, job) is None
    assert uncounted(job) == "no shard: JOB_COMPLETION_INDEX is 3, and SYMM_SHARDS does not say of how many"
    assert uncounted({}) == uncounted(SLURM) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0/4", "--shard '0/4' is no shard: shards count from 1, so I/N is 1/N up to N/N"),
        ("5/4", "--shard '5/4' is no shard: shards count from 1"),
        ("0/0", "--shard '0/0' is no shard"),
        ("2", "--shard '2' is not I/N, such as 2/4"),
        ("-1/4", "is not I/N"),
        ("1/4/2", "is not I/N"),
        ("", "is not I/N"),
        ("½/2", "is not I/N"),
    ],
)
def test_what_is_no_shard_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text, "--shard")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"CI_NODE_INDEX": "0", "CI_NODE_TOTAL": "4"}, "CI_NODE_INDEX is 0, which is no place among 4 (CI_NODE_TOTAL)"),
        ({"CI_NODE_INDEX": "two", "CI_NODE_TOTAL": "4"}, "CI_NODE_INDEX is 'two', which is no number"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, "SLURM_ARRAY_TASK_ID is 9, which is no place among 4"),
        ({"SYMM_SHARD": "4/2"}, "SYMM_SHARD '4/2' is no shard"),
        ({"JOB_COMPLETION_INDEX": "4", "SYMM_SHARDS": "4"}, "JOB_COMPLETION_INDEX is 4, which is no place among 4"),
    ],
)
def test_an_engine_that_contradicts_itself_is_refused_by_the_name_of_the_variable(
    variables: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        shard(None, variables)
    assert says in str(refused.value)


def test_an_array_of_single_tasks_is_refused_with_the_way_out() -> None:
    """Slurm says nothing of the list `--array=1,4,9` but its ends."""
    with pytest.raises(UsageError, match=r"say which shard this is with --shard I/N"):
        shard(None, SLURM | {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3"})


# a night


@pytest.mark.parametrize(
    "variable",
    ["SYMM_NIGHT", "SLURM_ARRAY_JOB_ID", "CI_PIPELINE_ID", "CIRCLE_WORKFLOW_ID", "BUILDKITE_BUILD_ID", "GITHUB_RUN_ID"],
)
def test_the_shards_of_a_run_have_one_seed_and_another_run_has_another(variable: str) -> None:
    first, second = ({**SLURM, variable: "4711", "SLURM_ARRAY_TASK_ID": task} for task in ("1", "2"))
    other = {**SLURM, variable: "4712"}
    assert night_seed(first, TODAY) == night_seed(second, TODAY)
    assert night_seed(first, TODAY)[0] != night_seed(other, TODAY)[0]
    assert night_seed(first, TODAY)[1] == f"{variable} 4711"


def test_a_run_has_its_seed_on_every_day_and_version() -> None:
    assert night_seed({"GITHUB_RUN_ID": "4711"}, TODAY)[0] == 3214462641


def test_shards_without_an_engine_have_the_seed_of_the_day() -> None:
    tomorrow = TODAY + datetime.timedelta(days=1)
    assert night_seed({}, TODAY)[1] == "the date, 2026-01-31"
    assert night_seed({}, TODAY)[0] != night_seed({}, tomorrow)[0]


# draws


@given(st.integers(1, 12), st.integers(0, 500))
def test_the_draws_of_all_shards_are_those_of_the_night(of: int, draws: int) -> None:
    parts = [Shard(index, of, "").part(draws) or 0 for index in range(1, of + 1)]
    assert sum(parts) == draws
    assert max(parts) - min(parts) <= 1


def test_a_night_without_a_number_of_draws_has_none_for_its_shards() -> None:
    assert Shard(1, 2, "").part(None) is None


@given(st.integers(1, 12))
def test_every_batch_is_of_one_shard(of: int) -> None:
    taken = [number for index in range(1, of + 1) for number in islice(Shard(index, of, "").batches, 5)]
    assert sorted(taken) == [*range(5 * of)]


def test_shards_draw_together_what_one_command_draws() -> None:
    def drawn(numbers: Any) -> set[Scenario]:
        found: set[Scenario] = set()
        for number in numbers:
            batch(scenarios(4), found.add, 7, number, shrink=False)
        return found

    parts = [drawn(islice(Shard(index, 3, "").batches, 2)) for index in (1, 2, 3)]
    assert set().union(*parts) == drawn(range(6))
    assert len(set.intersection(*parts)) <= 1  # the simplest, from which every batch starts
