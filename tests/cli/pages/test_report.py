"""`symm fuzz --html` and `symm report`: a run as a page, with pictures of its findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools.commands import Run, forked
from tests.tools.folders import SIM, sentence


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("night")
    wrong = "--pool", "harness.system.planted.pools:KeepsATensor", "--world", "2", "--draws", "8", "--seed", "0"
    return forked(folder, "fuzz", *wrong, "--shrink-seconds", "2", *SIM, "--html", "a.html", "--json", "a.json")


def test_a_run_is_written_as_a_page_with_pictures(night: Run) -> None:
    text = (night.folder / "a.html").read_text()
    assert night.status == 1
    assert "1 new finding in 8 draws." in text
    assert "Steps and windows" in text


def test_the_facts_of_a_finding_bring_its_pictures_along(night: Run) -> None:
    (finding,) = json.loads((night.folder / "a.json").read_text())["findings"]
    assert finding["account"]["verdict"]["rule"] == finding["rule"]


def test_runs_become_one_report_and_a_finding_is_a_status_of_1(night: Run, tmp_path: Path) -> None:
    text = (night.folder / "a.json").read_text()
    for name in ("first", "second"):
        (tmp_path / f"{name}.json").write_text(text)
    run = forked(tmp_path, "report", "first.json", "second.json", "--html", "both.html")
    assert (run.status, run.err) == (1, "")
    assert "1 new finding in 16 draws of 2 runs." in run.out
    assert "first, second" in (tmp_path / "both.html").read_text()


def test_a_run_of_nothing_found_has_a_status_of_0(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"draws": 5, "findings": []}))
    run = forked(tmp_path, "report", "a.json", "--json", "-")
    assert (run.status, run.data["headline"]) == (0, "Nothing was found in 5 draws.")


def test_the_folder_of_a_run_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "run.json").write_text(json.dumps({"draws": 5, "findings": []}))
    assert forked(tmp_path, "report", "night", "--json", "-").data["headline"] == "Nothing was found in 5 draws."


def test_a_page_that_cannot_be_written_costs_no_facts(tmp_path: Path) -> None:
    files = "--run", "night", "--json", "a.json", "--junitxml", "a.xml", "--html", "/dev/full"
    run = forked(tmp_path, "fuzz", "--world", "2", "--draws", "2", "--collectives", "library", *SIM, *files)
    assert (run.status, "/dev/full" in sentence(run)) == (2, True)
    written = [json.loads((tmp_path / name).read_text()) for name in ("a.json", "night/run.json")]
    assert [(each["draws"], each["interrupted"]) for each in written] == [(2, False)] * 2
    assert (tmp_path / "a.xml").is_file()


def test_a_run_that_was_kept_whole_is_shown(tmp_path: Path) -> None:
    options = "--world", "2", "--draws", "2", "--collectives", "library", *SIM
    assert forked(tmp_path, "fuzz", *options, "--run", "night", "--html", "a.html").status == 0
    assert forked(tmp_path, "report", "night", "--html", "b.html").status == 0
    for name in ("a.html", "b.html"):
        assert "corpus of " in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("no.json",), "run no.json: No such file"), (("a.json", "a.json"), "run a.json is named twice")],
)
def test_what_is_no_run_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "a.json").write_text("{}")
    run = forked(tmp_path, "report", *arguments)
    assert run.status == 2
    assert words in sentence(run)
