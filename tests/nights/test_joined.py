"""Facts of several runs as those of one: sums, counts of different things, agreement, coverage, and time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.nights import joined


def run(index: int = 1, of: int = 2, **facts: Any) -> joined.Facts:
    return {"schema": 1, "seed": 5, "shard": {"index": index, "of": of}, "draws": 10, **facts}


def test_figures_are_added() -> None:
    whole = joined.join([run(1, draws=10, seconds=1.25, vacuous=1), run(2, draws=12, seconds=2.5)])
    assert (whole["draws"], whole["seconds"], whole["vacuous"]) == (22, 3.75, 1)


def test_rates_of_runs_side_by_side_are_added() -> None:
    assert joined.join([run(1, draws_per_second=3.5), run(2, draws_per_second=4.25)])["draws_per_second"] == 7.75


def test_layouts_that_runs_share_are_not_counted_twice() -> None:
    assert joined.join([run(1, layouts=7, groups=9), run(2, layouts=8, groups=3)])["layouts"] == 8


def test_a_field_on_which_runs_differ_is_none() -> None:
    first = run(1, command=["symm"], environment={"torch": "2.13", "gpus": ["H100"]})
    second = run(2, command=["symm", "fuzz"], environment={"torch": "2.12", "gpus": ["H100"]})
    whole = joined.join([first, second])
    assert (whole["command"], whole["environment"], whole["seed"]) == (None, {"torch": None, "gpus": ["H100"]}, 5)


def test_the_whole_is_no_shard_and_lasts_from_the_first_start_to_the_last_end() -> None:
    times = {"started": "2026-01-31T01:00:00Z", "ended": "2026-01-31T02:00:00Z"}
    whole = joined.join([run(1, **times), run(2, started="2026-01-31T00:59:00Z", ended=None)])
    assert (whole["shard"], whole["started"], whole["ended"]) == (None, "2026-01-31T00:59:00Z", times["ended"])


def test_a_night_with_a_shard_that_was_interrupted_was_interrupted() -> None:
    assert joined.join([run(1, interrupted=False), run(2, interrupted=True)])["interrupted"]
    assert not joined.join([run(1, interrupted=False), run(2)])["interrupted"]


def test_oracles_and_leftovers_are_united() -> None:
    whole = joined.join([run(1, oracles=["data", "path"], left=[{"what": "umask"}]), run(2, oracles=["data", "fate"])])
    assert (whole["oracles"], whole["left"]) == (["data", "path", "fate"], [{"what": "umask"}])


def test_coverage_is_what_any_run_covered_and_never_what_none_did() -> None:
    first = {"covered": {"op": {"sum": 3, "prod": 1}}, "never": {"op": ["min", "max"]}, "states": 2, "new_states": 2}
    second = {"covered": {"op": {"sum": 1, "min": 2}}, "never": {"op": ["prod", "max"]}, "states": 2, "new_states": 1}
    corpora = {"folder": "a", "tried": 3}, {"folder": "b", "tried": 4}
    parts = [{**part, "corpus": corpus} for part, corpus in zip((first, second), corpora, strict=True)]
    whole = joined.join([run(index, coverage=part) for index, part in enumerate(parts, 1)])["coverage"]
    assert (whole["covered"], whole["never"]) == ({"op": {"sum": 4, "prod": 1, "min": 2}}, {"op": ["max"]})
    assert (whole["states"], whole["new_states"]) == (3, 2)
    assert whole["corpus"] == {"folder": None, "tried": 7}


def test_coverage_of_which_a_run_kept_no_corpus_is_joined() -> None:
    parts = [{"covered": {}, "corpus": None}, {"covered": {}, "corpus": {"tried": 4}}]
    whole = joined.join([run(index, coverage=part) for index, part in enumerate(parts, 1)])["coverage"]
    assert whole["corpus"] == {"tried": 4}


def test_reasons_of_vacuous_draws_are_added() -> None:
    runs = [run(1, vacuous_by_reason={"no call": 3, "even": 1}), run(2, vacuous_by_reason={"no call": 2})]
    assert joined.join(runs)["vacuous_by_reason"] == {"no call": 5, "even": 1}


def test_time_of_known_findings_is_added_and_its_share_is_of_the_shards_that_have_been_given_some() -> None:
    parts = [{"replayed": 1.0, "draws": 5.0, "shrinking": 2.5, "night": night} for night in (60.0, 40.0)]
    runs = [run(index, known_seconds=part, known_share=1.0) for index, part in enumerate(parts, 1)]
    whole = joined.join([*runs, run(3)])
    assert whole["known_seconds"] == {"replayed": 2.0, "draws": 10.0, "shrinking": 5.0, "night": 100.0}
    assert whole["known_share"] == 0.07


def test_speed_is_that_of_runs_side_by_side() -> None:
    curves = {1: [[1.0, 10], [3.0, 30]], 2: [[2.0, 5]]}
    whole = joined.join([run(index, speed=curve) for index, curve in curves.items()])
    assert whole["speed"] == [[1.0, 10], [2.0, 15], [3.0, 35]]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4))
def test_a_curve_has_few_points_and_ends_where_all_runs_ended(lengths: list[int]) -> None:
    curves = [[[float(second), 2 * second] for second in range(1, length + 1)] for length in lengths]
    curve = joined.speed(curves)
    assert len(curve) <= joined.POINTS
    assert curve[-1] == [max(lengths), 2 * sum(lengths)]


def test_the_file_of_a_run_that_went_on_gives_way_to_that_of_its_end() -> None:
    early, late = run(1, draws=10, host="a", started="t"), run(1, draws=90, host="a", started="t")
    assert joined.distinct([late, early]) == joined.distinct([early, late, early]) == [late]


def test_a_shard_that_was_started_again_is_another_run() -> None:
    assert len(joined.distinct([run(1, host="a", started="t"), run(1, host="a", started="later")])) == 2


def test_missing_shards_are_named_by_night() -> None:
    runs = [run(1, 4), run(4, 4), run(2, 2, seed=6), run(1, 2, seed=6)]
    assert joined.missing(runs) == [{"seed": 5, "of": 4, "shards": [2, 3]}]


def test_a_shard_that_was_ended_before_its_first_draw_left_nothing() -> None:
    runs = [run(1, draws=0, interrupted=True), run(2, draws=0, interrupted=False)]
    assert joined.missing(runs) == [{"seed": 5, "of": 2, "shards": [1]}]


def test_a_run_that_is_no_shard_misses_none() -> None:
    assert joined.missing([{"seed": 5, "draws": 3}, {"seed": 5, "shard": None, "draws": 3}]) == []
