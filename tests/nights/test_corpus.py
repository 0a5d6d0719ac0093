"""The corpus: what is kept, read again, left out and pruned, also by two processes at once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import msgspec
import pytest

from harness.campaign import seeds
from harness.errors import UsageError
from harness.nights.corpus import Corpus, Entry, check_folder, covering
from harness.oracle.states.state import State
from harness.scenario.scenario import Scenario
from tests.tools.campaigns import RIGHT, TWO, layers

A, B, C = (State("group", f"width {width}") for width in (2, 3, 4))


def numbered(number: int, steps: int = 1) -> Scenario:
    return Scenario(TWO, layers(steps), seed=number)


def test_what_is_added_is_there_for_the_next_night(tmp_path: Path) -> None:
    Corpus(tmp_path / "new").add(RIGHT, [A, B])
    again = Corpus(tmp_path / "new")
    assert (again.scenarios, again.states, again.skipped, again.broken) == ([RIGHT], {A, B}, 0, [])


def test_a_file_of_it_reads_as_a_seed_with_its_states(tmp_path: Path) -> None:
    Corpus(tmp_path, environment={"torch": "2.13"}).add(RIGHT, [A])
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["states"] == ["group: width 2"]
    assert len(path.read_text().splitlines()) > 20, "one thing a line"
    seed = seeds.load(path)
    assert (seed.scenario, seed.findings, seed.environment) == (RIGHT, (), {"torch": "2.13"})


def test_a_folder_that_is_not_there_is_an_empty_corpus(tmp_path: Path) -> None:
    assert Corpus(tmp_path / "none").scenarios == []
    assert Corpus(tmp_path / "none").prune() == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "corpus-x.json: "),
        (b'{"schema": 7}', "it has schema 7; this version reads 1"),
        (b'{"schema": 1, "scenario": {}, "findings": [], "environment": {}}', "missing required field"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_left_alone(tmp_path: Path, text: bytes, why: str) -> None:
    Corpus(tmp_path).add(RIGHT, [A])
    (tmp_path / "corpus-x.json").write_bytes(text)
    corpus = Corpus(tmp_path)
    assert (corpus.scenarios, len(corpus.broken)) == ([RIGHT], 1)
    assert why in corpus.broken[0]
    assert corpus.prune() == 0
    assert (tmp_path / "corpus-x.json").read_bytes() == text


def test_what_the_run_does_not_draw_is_counted_and_its_states_count(tmp_path: Path) -> None:
    for scenario, state in ((numbered(1), A), (numbered(2), B)):
        Corpus(tmp_path).add(scenario, [state])
    corpus = Corpus(tmp_path, lambda scenario: None if scenario.seed == 1 else scenario)
    assert (corpus.scenarios, corpus.skipped, corpus.states) == ([numbered(2)], 1, {A, B})


def test_a_scenario_is_tried_as_the_run_draws_it(tmp_path: Path) -> None:
    Corpus(tmp_path).add(numbered(1), [A])
    corpus = Corpus(tmp_path, lambda scenario: msgspec.structs.replace(scenario, seed=9))
    assert corpus.scenarios == [numbered(9)]


def entry(number: int, size: int, *states: State) -> Entry:
    return Entry(Path(f"{number}.json"), numbered(number), frozenset(states), size)


def test_the_fewest_files_that_cover_all_states_stay() -> None:
    one, two, all_of_it = entry(1, 10, A), entry(2, 10, B), entry(3, 30, A, B, C)
    assert covering([one, two, all_of_it], 9) == [all_of_it]


def test_of_two_files_with_the_same_states_the_shorter_stays() -> None:
    assert covering([entry(1, 20, A), entry(2, 10, A)], 9) == [entry(2, 10, A)]


@pytest.mark.parametrize(("files", "size", "kept"), [(1, 99, [3]), (2, 99, [3, 1]), (9, 35, [3]), (9, 25, [1])])
def test_the_bounds_leave_what_covers_most(files: int, size: int, kept: list[int]) -> None:
    found = covering([entry(1, 10, A), entry(3, 30, B, C)], files, size)
    assert [int(each.path.stem) for each in found] == kept


def test_pruning_leaves_every_state(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    for number, states in enumerate([[A], [B], [A, B], [C], [C]]):
        corpus.add(numbered(number), states)
    assert corpus.prune() == 3
    assert Corpus(tmp_path).states == {A, B, C}
    assert len(Corpus(tmp_path).scenarios) == 2


def a_night(folder: Path, first: int) -> None:
    corpus = Corpus(folder)
    for number in range(first, first + 20):
        corpus.add(numbered(number), [State("path", f"made up {number}"), State("path", "of all")])
        corpus.prune()


def test_two_nights_in_one_folder_lose_no_state(tmp_path: Path) -> None:
    nights = [multiprocessing.get_context("spawn").Process(target=a_night, args=(tmp_path, at)) for at in (0, 100)]
    for night in nights:
        night.start()
    for night in nights:
        night.join()
    assert [night.exitcode for night in nights] == [0, 0]
    corpus = Corpus(tmp_path)
    assert (corpus.broken, len(corpus.states)) == ([], 41)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json" and path.name != ".lock"]


def test_a_folder_that_cannot_be_written_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"corpus directory .*file is not a directory"):
        check_folder(tmp_path / "file" / "corpus")
