"""The page of measurements is what its data gives, and every record says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.measurements import page, record, shards

FUZZ = {
    "run": {
        "title": "Main job",
        "command": "symm fuzz",
        "machine": "2 cores",
        "commit": "abc1234",
        "date": "2026-01-02",
    },
    "draws": 300,
    "draws_per_second": 31.7,
    "findings": [],
    "environment": {"torch": "2.13.0", "gpus": []},
}
CANNOT_SHOW_IT = ("deepseek-r1-tp8-dpa8", "qwen3-32b-tp4")
"""Layouts that the table of verdicts leaves out."""
RECORDS = sorted(page.FOLDER.glob("*.json"))


def test_the_page_is_what_the_data_gives() -> None:
    assert page.PAGE.read_text() == page.page(page.records()), "run `make docs`"


def test_the_verdicts_of_the_findings_are_those_of_the_matrix() -> None:
    """Each cell of the page holds every rule that broke on one of the layouts that it stands for."""
    cells = json.loads((page.FOLDER / "sim-matrix.json").read_text())["cells"]
    table = (page.PAGE.parent / "findings.md").read_text().partition("## The verdicts")[2].partition("| sites |")[2]
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.partition("\n\n")[0].splitlines()]
    broken = {
        (sites, tokens, pool.strip("`")): {*rules.split(", ")} - {"clean"}
        for sites, tokens, *row in rows
        for pool, rules in zip(head[1:], row, strict=True)
    }
    found: dict[tuple[str, str, str], set[str]] = {}
    for cell in cells:
        if cell["topology"] not in CANNOT_SHOW_IT:
            found.setdefault((cell["sites"], cell["tokens"], cell["pool"]), set()).update(cell["rules"])
    assert broken == found


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_names_command_machine_commit_date_and_versions(path: Path) -> None:
    found = json.loads(path.read_text())
    assert all(found["run"][key] for key in ("title", "command", "machine", "commit", "date"))
    assert found["environment"]["python"]
    assert found["environment"]["torch"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_of_a_command_is_whole_or_says_that_it_was_transcribed(path: Path) -> None:
    found = json.loads(path.read_text())
    assert found["run"].get("transcribed") or "figures" in found or {"schema", "environment"} <= found.keys()


def test_a_figure_that_changes_changes_the_page() -> None:
    assert "| 300 | — | 31.7 |" in page.page([FUZZ])
    assert "| 301 | — | 31.7 |" in page.page([{**FUZZ, "draws": 301}])


def test_hostile_acts_are_shown_by_kind() -> None:
    acts = {"kind": "plug_ins", "number": 103, "failures": [{}], "demanded": "an answer"}
    assert "| plug-ins | 103 | 1 | an answer |" in page.figures(
        {"seconds": 300.0, "seed": 0, "share": 1.0, "hostile": [acts]}
    )


def test_contenders_stand_beside_each_other_at_each_size() -> None:
    row = {"op": "all_gather", "nbytes": 262144, "contender": "cuda", "state": "timed", "time": 4.0e-6, "ratio": 0.4}
    wrong = {**row, "contender": "nccl", "state": "wrong", "time": None, "ratio": None}
    shown = page.figures({"why_not": "", "rows": [row, wrong]})
    assert "| bytes | cuda | nccl |" in shown
    assert "| 256 KiB | 4.0 (2.50) | wrong |" in shown


def test_numbers_of_ranks_stand_beside_each_other_with_how_times_grow() -> None:
    point = {"op": "all_gather", "nbytes": 1024, "contender": "cuda", "state": "timed", "time": 4.0e-6, "ratio": 0.4}
    few = {**point, "world": 2, "to_copies": 1.0, "growth": 1.0}
    many = {**point, "world": 4, "time": 6.0e-6, "to_copies": 1.25, "growth": 1.5}
    wrong = {**few, "contender": "mine", "state": "wrong", "time": None, "ratio": None}
    worlds = [{"world": 2, "why_not": ""}, {"world": 4, "why_not": "several ranks share a GPU"}]
    shown = page.figures({"by_ranks": [few, many, wrong], "worlds": worlds})
    assert "| bytes | by | 2 ranks | 4* ranks | growth | to copies |" in shown
    assert "\n\\* not comparable with other machines: several ranks share a GPU\n" in shown
    assert "| 1 KiB | cuda | 4.0 (2.50) | 6.0 (2.50) | 1.50 | 1.25 |" in shown
    assert "| 1 KiB | mine | wrong | — | — | — |" in shown


def test_a_figure_that_is_not_there_is_shown_as_unknown() -> None:
    assert page.number(None) == page.UNKNOWN


def test_a_transcribed_record_is_marked() -> None:
    transcribed = {**FUZZ, "run": {**FUZZ["run"], "transcribed": True}}
    assert "*transcribed*" in page.block(transcribed)
    assert "*transcribed*" not in page.block(FUZZ)


def test_a_record_that_no_command_writes_is_refused() -> None:
    with pytest.raises(ValueError, match="no command writes such a record"):
        page.figures({"run": {}, "surprise": 1})


def test_machines_with_fewer_gpus_come_first() -> None:
    gpu = {**FUZZ, "run": {**FUZZ["run"], "machine": "a GPU"}, "environment": {"gpus": ["H100"]}}
    assert page.page([gpu, FUZZ]).index("## 2 cores") < page.page([gpu, FUZZ]).index("## A GPU")


def test_what_a_command_wrote_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    wrote = {"schema": 1, "draws": 7, "findings": [], "environment": {"torch": "2", "gpus": ["NVIDIA H200"] * 2}}
    written = tmp_path / "written"
    written.write_text(json.dumps(wrote))
    record.main(["fresh", "--from", str(written), "--commit", "abc1234", "--", "symm", "fuzz", "--draws", "7"])
    kept = json.loads((tmp_path / "fresh.json").read_text())
    run = kept.pop("run")
    assert kept == wrote
    assert (run["command"], run["machine"], run["commit"]) == ("symm fuzz --draws 7", "two H200", "abc1234")


def test_a_record_keeps_its_title_and_loses_the_mark_when_it_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    before = {**FUZZ, "run": {**FUZZ["run"], "transcribed": True}}
    (tmp_path / "again.json").write_text(json.dumps(before))
    (tmp_path / "written").write_text(json.dumps({**FUZZ, "run": {}}))
    record.main(["again", "--from", str(tmp_path / "written"), "--commit", "abc1234", "--", "symm", "fuzz"])
    run = json.loads((tmp_path / "again.json").read_text())["run"]
    assert run["title"] == "Main job"
    assert "transcribed" not in run


def test_figures_of_a_command_without_json_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    record.main(["tests", "--title", "Tests", "--figure", "passed=7", "--figure", "seconds=3", "--", "make", "test"])
    kept = json.loads((tmp_path / "tests.json").read_text())
    assert kept["figures"] == {"passed": "7", "seconds": "3"}
    assert kept["run"]["commit"]
    assert kept["environment"]["python"]


def test_what_was_drawn_is_shown_by_unit_in_shares() -> None:
    totals = {"draws": 2, "steps": 1000, "collectives": 3, "calls": 5, "layouts": 1, "groups": 4}
    histograms = {"by_draw": {}, "by_step": {}, "by_collective": {"op": {"sum": 3, "min": 0}}}
    text = page.figures({**totals, **histograms, "by_call": {"bytes": {"0": 1, "1024": 4}}})
    assert "| 2 | 1,000 | 3 | 5 | 1 | 4 |" in text
    assert "| collectives | op | sum: 100 %, never: min |" in text
    assert "| calls | bytes | 0 B: 20 %, 1 KiB: 80 % |" in text


ALONE = shards.Shards(1, seconds=60.0, draws=1200, scenarios=1190, findings=0, busy=1.5)


def test_shards_on_cores_of_their_own_add_up() -> None:
    found = {each["shards"]: each for each in shards.model(ALONE, cores=6)}
    assert (found[64]["own_cores"], found[64]["cores"]) == (64 * 20, 96)


def test_shards_on_one_machine_add_up_until_its_cores_are_busy() -> None:
    found = {each["shards"]: each["this_machine"] for each in shards.model(ALONE, cores=6)}
    assert found == {1: 20, 2: 40, 4: 80, 8: 80, 16: 80, 32: 80, 64: 80}
    assert shards.model(ALONE, cores=1)[0]["this_machine"] == 20


def test_a_night_is_measured_and_its_record_is_shown(tmp_path: Path) -> None:
    options = ("--world", "2", "--seed", "20")
    shards.main(["--shards", "2", "--seconds", "2", "--json", str(tmp_path / "found.json"), "--", *options])
    found = json.loads((tmp_path / "found.json").read_text())
    (night,) = found["scaling"]
    assert (night["shards"], night["findings"], 0 < night["busy"] < 64) == (2, 0, True)
    assert (
        0 < night["draws"] - 2 <= night["scenarios"] <= night["draws"] + 2
    )  # draws under way at the end; the simplest
    assert f"| 2 | {page.number(night['draws_per_second'])} |" in page.figures(found)
