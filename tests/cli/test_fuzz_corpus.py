"""`symm fuzz --corpus`: the second run tries what the first has kept, and neither is ended by a broken file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tools.commands import Run, symm

OPTIONS = (
    "--draws",
    "20",
    "--world",
    "2",
    "--collectives",
    "library",
    "--corpus",
    "kept",
    "--observations",
    "seen",
    "--json",
    "-",
)


@pytest.fixture(scope="module")
def runs(place: Callable[[str], Path]) -> list[Run]:
    folder = place("corpus")
    first = symm(folder, "fuzz", *OPTIONS)
    (folder / "kept" / "corpus-broken.json").write_text("{")
    return [first, symm(folder, "fuzz", *OPTIONS)]


def coverage(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.data["coverage"]
    return found


def test_the_second_run_tries_what_the_first_kept(runs: list[Run]) -> None:
    first, second = map(coverage, runs)
    assert [run.status for run in runs] == [0, 0]
    assert (first["corpus"]["tried"], first["corpus"]["added"] > 0) == (0, True)
    assert second["corpus"]["tried"] > 0
    assert second["new_states"] < first["new_states"] == first["states"]


def test_a_broken_file_is_named_in_both_reports(runs: list[Run]) -> None:
    (named,) = coverage(runs[1])["corpus"]["unreadable"]
    assert "corpus-broken.json" in named
    assert "left out: seed file kept/corpus-broken.json" in runs[1].err


def test_what_was_covered_and_what_never_was_are_apart(runs: list[Run]) -> None:
    covered, never = coverage(runs[0])["covered"], coverage(runs[0])["never"]
    assert covered["group"]["width 2"] > 0
    assert "width 17 and more" in never["group"]
    assert not any({*covered[kind]} & {*never[kind]} for kind in never)
    assert "never: rules nearly broken (" in runs[0].err


def test_each_draw_is_an_observation(runs: list[Run]) -> None:
    (path,) = (runs[0].folder / "seen").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == sum(run.data["draws"] for run in runs) == 40
    assert {line["how_generated"] for line in lines} == {"strategy", "mutation", "corpus"}
