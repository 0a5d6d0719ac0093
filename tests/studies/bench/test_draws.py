"""The bench of draws: its figures beside their goals, and how memory and parts are summed."""

from __future__ import annotations

import msgspec
import pytest

from harness.clock import CLOCK
from harness.rank.probes.stopwatch import LIBRARY, PARTS
from harness.scenario.scenario import Scenario
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.bench.draws import (
    DRAWING,
    FIXED_PARTS,
    JUDGING,
    PREPARING,
    RUNNING,
    Measured,
    _run_all,
    bench_draws,
    share_of_each,
    slowest,
    typical,
)
from harness.trace.draw import Draw
from harness.world.world import World

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
    costs={"its first window": 0.0123},
    parent={"the oracle": 0.0012},
    parts=(("registering windows", 0.54), ("steps", 0.001)),
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
        ("draw, parent: the oracle", "1.2 ms", ""),
        ("its first window", "12.3 ms", ""),
        ("draw, ranks: registering windows", "54 %", ""),
        ("eight ranks: memory together", "171 MiB", "under 4096 MiB"),
    ],
)
def test_a_figure_stands_beside_its_goal(measure: str, figure: str, goal: str) -> None:
    assert rows(FIGURES)[measure] == (figure, goal)


def test_a_gpu_has_goals_of_its_own() -> None:
    on_a_gpu = rows(msgspec.structs.replace(FIGURES, environment={"substrate": "nccl", "why": "1 GPU(s)"}))
    assert on_a_gpu["draws a second over 100, judged"][1] == "at least 10"
    latency = "1024 bf16 a rank gathered: waited for, in a row"
    assert on_a_gpu[latency] == ("12 µs, 10 µs (symmetric path)", "eight ranks on a GPU: at most 86 µs")


def test_a_machine_that_cannot_run_eight_ranks_has_no_figure_for_them() -> None:
    small = rows(msgspec.structs.replace(FIGURES, eight_start=None, eight_memory=None))
    assert [name for name in small if name.startswith("eight ranks")] == []
    assert "times faster" in small


def test_a_part_that_takes_next_to_nothing_is_left_to_programs() -> None:
    assert "draw, ranks: steps" not in rows(FIGURES)
    assert ("steps", 0.001) in FIGURES.as_data()["parts"]


def test_names_leave_room_for_figures_and_goals_on_80_columns() -> None:
    parts = tuple((part, 0.1) for part in (*PARTS, LIBRARY))
    parent = dict.fromkeys((DRAWING, PREPARING, RUNNING, JUDGING), 0.1)
    assert max(map(len, rows(msgspec.structs.replace(FIGURES, parts=parts, parent=parent)))) <= 50


def test_an_act_costs_what_it_takes_on_the_slowest_rank() -> None:
    assert slowest([{"one": 1.0, "other": 4.0}, {"one": 2.0, "other": 3.0}]) == {"one": 2.0, "other": 4.0}


def test_what_was_not_measured_has_no_row() -> None:
    begun = Measured(start=0.5, environment={"substrate": "sim", "why": "asked for"})
    assert rows(begun).keys() == {"substrate", "start of the world"}
    assert rows(Measured()) == {}
    assert begun.as_data()["ratio"] is None


def measured_until(part: str, spawns: int = 1) -> tuple[Measured, list[str]]:
    """What is measured where Ctrl-C comes before this part, and the parts so far."""
    measured, parts = Measured(), list[str]()

    def say(line: str) -> None:
        parts.append(line)
        if part in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_draws("sim", 2, 4, 10, spawns, 0, measured, say)
    return measured, parts


def test_an_interrupted_bench_has_what_was_measured_and_where_a_draw_took_its_time() -> None:
    measured, parts = measured_until("fresh rank")
    assert (len(parts), parts[2]) == (FIXED_PARTS, "10 draws on these ranks")
    assert (measured.draws, measured.spawned, measured.eight_start) == (10, None, None)
    assert {*measured.parent} == {DRAWING, PREPARING, RUNNING, JUDGING}
    assert measured.draw is not None
    assert sum(measured.parent.values()) - measured.parent[DRAWING] == pytest.approx(1 / (measured.rate or 0))
    assert {"allocating and releasing buffers", "filling, and exact results", "comparing results"} <= dict(
        measured.parts
    ).keys()


def test_no_more_draws_on_fresh_ranks_are_announced_than_there_are() -> None:
    *_, last = measured_until("fresh rank", spawns=20)[1]
    assert last.startswith("draw 1 of 10 on ")


class Interrupted:
    """Ranks on which Ctrl-C comes in the third draw."""

    def __init__(self, world: World) -> None:
        self._world, self.pids, self.ran = world, world.pids, 0

    def run(self, scenario: Scenario) -> Draw:
        self.ran += 1
        if self.ran == 3:
            raise KeyboardInterrupt
        return self._world.run(scenario)


def test_draws_before_ctrl_c_are_summed_up(simulation: World) -> None:
    measured, ranks = Measured(), Interrupted(simulation)
    drawn = [msgspec.msgpack.encode(scenario) for scenario in sample(scenarios(2), 10, seed=1)]
    with pytest.raises(KeyboardInterrupt):
        _run_all(ranks, drawn, measured, CLOCK)  # type: ignore[arg-type]
    assert (measured.draws, measured.ranks_late is not None) == (2, True)


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
