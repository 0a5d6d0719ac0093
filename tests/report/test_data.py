"""Results as JSON: where they are written, and which oracles they name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.campaign.tally import Tally
from harness.errors import UsageError
from harness.report import data
from harness.scenario.topology import Placement, Topology


def world(evidence: str | None = None) -> Any:
    return SimpleNamespace(description={"path_evidence": evidence}, leftovers=())


def test_the_oracle_of_the_path_names_its_evidence() -> None:
    assert "path (profiler)" in data.oracles_on(world("profiler"))


@pytest.mark.parametrize(("evidence", "is_seen"), [(None, True), ("profiler", False)], ids=["no evidence", "unseen"])
def test_the_oracle_of_the_path_is_left_out_where_it_showed_none(evidence: str | None, is_seen: bool) -> None:
    assert data.oracles_on(world(evidence), is_seen) == [name for name in data.ORACLES if name != "path"]


def test_a_campaign_of_unseen_paths_judged_none() -> None:
    unseen = data.fuzz(Tally(draws=1, collectives=3, unseen=1, free=2), world("profiler"), {})
    seen = data.fuzz(Tally(draws=1, collectives=3, unseen=1, free=1, seen=1), world("profiler"), {})
    assert ("path (profiler)" in unseen["oracles"], "path (profiler)" in seen["oracles"]) == (False, True)
    assert (unseen["paths_unknown"], unseen["paths_free"]) == (1, 2)


def test_a_topology_holds_its_families() -> None:
    explicit = Topology("pair", "explicit", placement=Placement(2, 1), note="odd", families_given={"tp": ((1, 0),)})
    parts = {"convention": "explicit", "degrees": {}, "node_of": [0, 1], "note": "odd", "families": {"tp": [[1, 0]]}}
    parts |= {"communicators": {"tp": [0]}, "nvlink_domain_of": [0, 1]}
    assert data.topology(explicit) == {"schema": 1, "name": "pair", "world": 2, **parts}
    assert data.topology(Topology("two", "sglang", {"tp": 2}))["degrees"] == {"tp": 2}


def test_json_is_written_to_its_file_and_nothing_beside_it(tmp_path: Path) -> None:
    data.write({"schema": 1}, str(tmp_path / "found.json"))
    assert [json.loads(path.read_bytes()) for path in tmp_path.iterdir()] == [{"schema": 1}]


def test_a_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    data.write({"schema": 1}, "-")
    assert json.loads(capsys.readouterr().out) == {"schema": 1}


def test_without_a_target_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    data.write({"schema": 1}, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("target", "why"),
    [("", "without a name"), (".", "it is a directory"), ("nowhere/found.json", "no such directory")],
)
def test_a_target_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=why):
        data.check_target(target)


def test_a_target_that_can_be_written_is_not_made_yet(tmp_path: Path) -> None:
    data.check_target(str(tmp_path / "found.json"))
    assert [*tmp_path.iterdir()] == []
