"""What was drawn, as text and as JSON: shares of a histogram, names of bars, and lines that fit."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from harness.report import data, drawn
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.drawing.drawn import Drawn

ACCOUNT = drawn.as_data(Drawn(sample(scenarios(4), 24, seed=2)), 2, {"python": "3"})


def shown(width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width)
    drawn.show(console, ACCOUNT)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_shares_are_of_a_histogram_and_what_never_came_is_named() -> None:
    assert drawn.shares("op", {"sum": 199, "avg": 0, "max": 1, "min": 0}) == [
        "sum: 100 %",
        "max: 0.5 %",
        "never: avg",
        "min",
    ]


def test_a_histogram_of_nothing_has_no_share() -> None:
    assert drawn.shares("op", {"sum": 0, "avg": 0}) == ["never: sum", "avg"]


@pytest.mark.parametrize(
    ("name", "key", "label"),
    [
        ("bytes", "0", "0 B"),
        ("bytes", "512", "512 B"),
        ("bytes", "1024", "1 KiB"),
        ("bytes", "16777216", "16 MiB"),
        ("steps", "16", "16"),
        ("steps", "17", "17 to 32"),
        ("steps", "33", "33 to 64"),
        ("ranks", "32", "32"),
        ("dtype", "int8", "int8"),
    ],
)
def test_a_bar_is_named_as_people_read_it(name: str, key: str, label: str) -> None:
    assert drawn.label(name, key) == label


def test_bars_of_numbers_come_in_their_order() -> None:
    numbers = [int(key) for key in ACCOUNT["by_call"]["bytes"]]
    assert numbers == sorted(numbers)
    assert len(numbers) > 8


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_terminal(width: int) -> None:
    assert [line for line in shown(width) if len(line) > width] == []


def test_every_histogram_begins_a_line() -> None:
    heads = {line[2:17].strip() for line in shown() if line.startswith("  ") and line[2] != " "}
    names = {
        name.replace("_", " ") for unit in ("draw", "step", "collective", "call") for name in ACCOUNT[f"by_{unit}"]
    }
    assert heads == {name[:15].strip() for name in names}


def test_the_account_is_json_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("drawn") / "drawn.json"
    data.write(ACCOUNT, str(file))
    assert json.loads(file.read_text()) == ACCOUNT
