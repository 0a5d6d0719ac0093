"""The bench of draws: its figures beside their goals, and how memory and parts are summed."""

from __future__ import annotations

import msgspec
import pytest

from harness.studies.bench.draws import Measured, share_of_each, typical

FIGURES = Measured(
    draws=100,
    spawns=3,
    start=0.5,
    draw=0.004,
    spawned=1.0,
    rate=130.0,
    parent_early=65 << 20,
    parent_late=66 << 20,
    ranks_early=64 << 20,
    ranks_late=64 << 20,
    eight_start=0.9,
    eight_memory=171 << 20,
    latency=12e-6,
    latency_in_a_row=10e-6,
    latency_path="symmetric",
    parts=(("registering windows", 0.54),),
    environment={"substrate": "sim", "why": "asked for"},
)


def rows(figures: Measured) -> dict[str, tuple[str, str]]:
    return {name: (figure, goal) for name, figure, goal in figures.rows()}


@pytest.mark.parametrize(
    ("measure", "figure", "goal"),
    [
        ("times faster", "250", "at least 100"),
        ("draws a second over 100, judged", "130.0", "at least 20"),
        ("parent's memory in the second tenth, in the last", "65.0 MiB, 66.0 MiB", "growth under 5 % over 5,000 draws"),
        ("eight ranks: start", "0.90 s", "under 8 s"),
        ("eight ranks: memory together", "171 MiB", "under 4096 MiB"),
    ],
)
def test_a_figure_stands_beside_its_goal(measure: str, figure: str, goal: str) -> None:
    assert rows(FIGURES)[measure] == (figure, goal)


def test_a_gpu_has_goals_of_its_own() -> None:
    on_a_gpu = rows(msgspec.structs.replace(FIGURES, environment={"substrate": "nccl", "why": "1 GPU(s)"}))
    assert on_a_gpu["draws a second over 100, judged"][1] == "at least 10"
    latency = "all-gather of 1024 bf16 a rank, each waited for, in a row"
    assert on_a_gpu[latency] == ("12 µs, 10 µs (symmetric path)", "eight ranks on a GPU: at most 86 µs")


def test_a_machine_that_cannot_run_eight_ranks_has_no_figure_for_them() -> None:
    small = rows(msgspec.structs.replace(FIGURES, eight_start=None, eight_memory=None))
    assert [name for name in small if name.startswith("eight ranks")] == []
    assert "times faster" in small


def test_every_figure_keeps_its_key_for_programs() -> None:
    data = FIGURES.as_data()
    assert data.keys() == {*Measured.__struct_fields__, "ratio"}
    assert data["ratio"] == 250


def test_shares_are_of_all_ranks_and_the_largest_comes_first() -> None:
    assert share_of_each([{"steps": 1.0, "waiting": 4.0}, {"steps": 2.0, "pools": 1.0}]) == [
        ("waiting", 0.5),
        ("steps", 0.375),
        ("pools", 0.125),
    ]


def test_the_typical_memory_is_the_median_of_parent_and_of_ranks() -> None:
    assert typical([(3, 10), (1, 30), (2, 20)]) == (2, 20)
