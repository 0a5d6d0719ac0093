"""Observations: a line a draw, with the fields that Hypothesis gives its own."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import UsageError
from harness.nights.observations import Observations
from harness.oracle.findings import Leak
from harness.oracle.judge import Verdict
from harness.oracle.states.state import State
from tests.tools.campaigns import RIGHT

DRAW: Any = SimpleNamespace(scenario=RIGHT)
STATES = [State("group", "width 2"), State("nearly", "source-changed: in place")]
PASSED, VACUOUS = Verdict([], False), Verdict([], True)
FAILED = Verdict([Leak("there is still segment 3", step=0, ranks=(0,))], False)


def lines(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.iterdir()
    assert path.name.endswith("_testcases.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_draw_is_a_line_with_its_status_and_states(tmp_path: Path) -> None:
    observations = Observations(tmp_path / "observed")
    for verdict in (PASSED, VACUOUS, FAILED):
        observations.take(DRAW, STATES, verdict, 0.25, "mutation")
    found = lines(tmp_path / "observed")
    assert [each["status"] for each in found] == ["passed", "gave_up", "failed"]
    assert [each["status_reason"] for each in found] == [
        "",
        "the draw was vacuous",
        "leak: there is still segment 3",
    ]
    assert found[0]["features"] == {
        "world": 2,
        "steps": 6,
        "group: width 2": "",
        "nearly: source-changed: in place": "",
    }
    assert (found[0]["how_generated"], found[0]["timing"]) == ("mutation", {"execute:test": 0.25})
    assert found[0]["arguments"]["steps"] == ["allocate", "all_gather", "release"] * 2


def test_the_fields_are_those_of_hypothesis(tmp_path: Path) -> None:
    observability = pytest.importorskip("hypothesis.internal.observability")
    observation = getattr(observability, "TestCaseObservation", None)
    if observation is None:
        pytest.skip("this Hypothesis has no class for it")
    Observations(tmp_path).take(DRAW, STATES, PASSED, 0.25, "strategy")
    assert lines(tmp_path)[0].keys() == {field.name for field in fields(observation)}


def test_a_folder_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write observations to .*file"):
        Observations(tmp_path / "file").take(DRAW, STATES, PASSED, 0.25, "strategy")
