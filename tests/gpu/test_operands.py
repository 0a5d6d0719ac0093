"""What NCCL wants in a window, asked of it: the tables of docs/rules.md."""

from __future__ import annotations

import pytest

from harness.machine import nccl
from harness.substrate.communicator import eligible
from tests.tools.operands import AVERAGES, DTYPES, KINDS, SIZES, ask

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

RUNS = {
    "all_gather": {"SYMK_ST": {"output", "both"}, "SYMK_LL": {"both"}},
    "reduce_scatter": {"SYMK_LD": {"source", "both"}, "SYMK_LL": {"both"}},
    "all_reduce": {"SYMK_AGxLL_R": {"both"}, "SYMK_RSxLD_AGxST": {"both"}},
}
BY_COPY_ENGINE = {"all_gather": {"output", "both"}, "all_to_all": {"output", "both"}}


@pytest.fixture(scope="module")
def answers() -> list[list[str]]:
    if (nccl.version() or (0, 0, 0)) < (2, 31):
        pytest.skip("NCCL before 2.31 has no forced calls")
    first, second = ask(2, seconds=200)
    both = min(len(first), len(second))  # one may have been stopped a line earlier
    assert first[:both] == second[:both]
    return first[1:both]


def test_nccl_runs_a_forced_kernel_where_the_operands_it_reaches_peers_through_lie_in_a_window(
    answers: list[list[str]],
) -> None:
    ran: dict[str, dict[str, set[str]]] = {}
    for what, kind, kernel, place, said in answers:
        if what == "forced" and said == "runs":
            ran.setdefault(kind, {}).setdefault(kernel, set()).add(place)
    asked = {kind for what, kind, *_ in answers if what == "forced"}
    assert (ran, asked) == (RUNS, {*KINDS})


def test_nccl_reduces_by_a_symmetric_kernel_what_is_held_to_be_eligible(answers: list[list[str]]) -> None:
    import torch

    for what, kind, detail, _, said in answers:
        if what == "reduces":
            dtype, op = detail.split()
            assert (said == "runs") == eligible(kind, getattr(torch, dtype), op, 2), (kind, detail, said)
    assert {detail.split()[0] for what, _, detail, _, _ in answers if what == "reduces"} == {*DTYPES}


def test_nccl_moves_by_copy_engines_where_the_output_lies_in_a_window(answers: list[list[str]]) -> None:
    told: dict[str, set[str]] = {}
    for what, kind, _, place, said in answers:
        if what == "copy engines" and said.endswith("by copy engines"):
            told.setdefault(kind, set()).add(place)
    assert told == BY_COPY_ENGINE


def test_an_average_of_an_all_reduce_runs_off_the_symmetric_kernels_alone(answers: list[list[str]]) -> None:
    said = {detail: word for what, _, detail, _, word in answers if what == "averages"}
    assert {*said} == {f"{name} {count}" for name, _ in AVERAGES for count in SIZES}
    runs = {name for name, _ in AVERAGES if all(said[f"{name} {count}"].startswith("runs") for count in SIZES)}
    assert "legacy" in runs
    assert not {name for name in runs if name.startswith("forced")}
