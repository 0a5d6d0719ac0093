"""Runs as one report: the verdict, findings once, what was covered, and files of other forms refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from harness.errors import UsageError
from harness.nights.corpus import Corpus
from harness.nights.guide import Guide
from harness.report.pages import page, runs
from tests.report.pages.conftest import Accounts


def finding(rule: str, signature: str = "", **fields: Any) -> dict[str, Any]:
    named = {"signature": signature} if signature else {}
    return (
        {"rule": rule, "explanation": f"{rule} shows", "seed_file": f"{rule}.json", "world": 2, "steps": 3}
        | named
        | fields
    )


def run(*findings: dict[str, Any], draws: int = 100, **fields: Any) -> dict[str, Any]:
    return {"schema": 1, "draws": draws, "seconds": 10.0, "vacuous": 1, "findings": [*findings]} | fields


COVERAGE = Guide(corpus=Corpus(Path("no folder"))).as_data() | {
    "states": 40,
    "new_states": 3,
    "covered": {"paths": {"symmetric": 5, "legacy": 2}},
    "never": {"paths": ["copy engine", "kernel"]},
}


@pytest.mark.parametrize(
    ("made", "headline"),
    [
        ({"a": run()}, "Nothing was found in 100 draws."),
        ({"a": run(finding("leak"))}, "1 finding in 100 draws."),
        (
            {"a": run(finding("leak", "1" * 16, status="new"), finding("hang", "2" * 16, status="known"))},
            "1 new and 1 known findings in 100 draws.",
        ),
        ({"a": run(), "b": run(draws=50)}, "Nothing was found in 150 draws of 2 runs."),
        (
            {"a": run(gone=[{"rule": "leak", "signature": "3"}])},
            "Nothing was found in 100 draws. 1 known finding did not come again.",
        ),
        ({"a": run(vacuous=100)}, "Nothing was tested: every draw in 100 draws was vacuous."),
        ({"a": run(draws=0)}, "Nothing was tested: no draw was made."),
    ],
)  # fmt: skip
def test_the_verdict_counts_what_is_new_and_known(made: dict[str, dict[str, Any]], headline: str) -> None:
    assert runs.report(made).headline == headline


def test_one_signature_in_two_runs_is_one_finding_with_both_runs_and_the_sum_of_its_rate() -> None:
    same = [finding("leak", "1" * 16, status="new", steps=steps, rate=[1, 3]) for steps in (9, 4)]
    (found,) = runs.report({"a": run(same[0]), "b": run(same[1])}).found
    assert (found.runs, found.size, found.rate) == (("a", "b"), "2 ranks, 4 steps", "2 of 6 runs")


def test_the_speed_of_a_joined_night_is_that_of_its_shards_together() -> None:
    (night,) = runs.report({"a": run(draws_per_second=40.0)}).nights
    assert night.rate == 40.0


def test_an_account_of_a_shard_is_replayed_from_the_joined_folder() -> None:
    command = runs._there("symm replay 1/seeds/leak-1.json --pool mine:Pool", "merged/seeds/leak-1.json")
    assert command == "symm replay merged/seeds/leak-1.json --pool mine:Pool"


def test_runs_that_a_seed_file_noted_count_once_in_the_rate_over_two_nights() -> None:
    same = [
        finding("leak", "1" * 16, status="flaky", rate=rate, ran=ran)
        for rate, ran in (([4, 6], [1, 1]), ([3, 6], [0, 1]))
    ]
    (found,) = runs.report({"a": run(same[0]), "b": run(same[1])}).found
    assert found.rate == "4 of 7 runs"


def test_two_bugs_of_one_rule_are_two_findings() -> None:
    assert len(runs.report({"a": run(finding("leak", "1" * 16), finding("leak", "2" * 16))}).found) == 2


def test_known_findings_alone_are_nothing_new() -> None:
    assert not runs.report({"a": run(finding("leak", "1" * 16, status="known"))}).is_finding
    assert not runs.report({"a": run(finding("leak", "1" * 16, status="flaky"))}).is_finding
    assert runs.report({"a": run(finding("leak"))}).is_finding
    assert runs.report({"a": run(finding("leak", "1" * 16, status="new"))}).is_finding


@pytest.mark.parametrize(("seeds", "status"), [((5, 5), "new"), ((5, 6), "known")])
def test_what_is_new_to_a_shard_is_new_to_its_night_and_known_to_a_later_one(
    seeds: tuple[int, int], status: str
) -> None:
    shards = {
        word: run(finding("leak", "1" * 16, status=word), seed=seed, shard={"index": index, "of": 2})
        for index, (seed, word) in enumerate(zip(seeds, ("known", "new"), strict=True), 1)
    }
    assert [each.status for each in runs.report(shards).found] == [status]


def test_what_one_run_met_counts_as_met_by_all() -> None:
    other = COVERAGE | {"covered": {"paths": {"kernel": 1}}, "never": {"paths": ["symmetric", "copy engine"]}}
    (paths,) = runs.report({"a": run(coverage=COVERAGE), "b": run(coverage=other)}).coverage
    assert (paths.met, paths.never) == ({"symmetric": 5, "legacy": 2, "kernel": 1}, ("copy engine",))


def test_what_guides_and_merges_say_of_a_corpus_is_read() -> None:
    corpus = {"folder": None, "tried": 5, "added": 2, "skipped": 1, "unreadable": ["a"]}
    assert COVERAGE["corpus"].keys() == corpus.keys()
    found = runs.report({"a": run(coverage=COVERAGE | {"corpus": corpus}), "b": run(coverage=Guide().as_data())})
    assert found.states == (
        "a: 40 states of the oracle, 3 of them new; corpus of 7 scenarios; b: 0 states of the oracle, 0 of them new"
    )


@pytest.fixture
def full(accounts: Accounts) -> dict[str, dict[str, Any]]:
    """Two runs with all that a run may say."""
    account = json.loads(msgspec.json.encode(accounts["registration-skew"]))
    more: dict[str, Any] = {
        "seed": 5, "shard": {"index": 1, "of": 4}, "command": ["symm", "fuzz", "--pool", "a b"], "host": "<h>",
        "started": "2026-11-28T01:00:00Z", "ended": "2026-11-28T02:00:00Z", "interrupted": True,
        "coverage": COVERAGE, "speed": [[1, 10], [2, 25], [3, 30]], "oracles": ["data", "path (log)"],
        "options": {"world": 8, "pool": None}, "environment": {"substrate": "sim", "gpus": []},
    }  # fmt: skip
    first = run(finding("registration-skew", "1" * 16, status="new", account=account), **more)
    return {"one": first, "two": run(finding("registration-skew", "2" * 16, account=account), finding("<b>"), **more)}


def test_an_account_that_an_earlier_version_wrote_is_shown(full: dict[str, dict[str, Any]]) -> None:
    account = full["one"]["findings"][0]["account"]
    del account["shows_at_end"], account["verdict"]["also"]
    for line in account["program"]:
        del line["shows"]
    assert account["verdict"]["headline"] in page.report_page(runs.report(full))


def test_the_page_is_well_formed_loads_nothing_and_has_every_id_once(full: dict[str, dict[str, Any]]) -> None:
    text = page.report_page(runs.report(full))
    assert not re.search(r"src=|@import|https?:|<script|<link|url\((?!#)", text)
    tree = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    ids = [each.get("id") for each in tree.iter() if each.get("id")]
    assert len(ids) == len({*ids})
    assert {each.get("href", "#main")[1:] for each in tree.iter("a")} <= {*ids}
    assert len([*tree.iter("h1")]) == 1


def test_the_page_has_pictures_commands_speed_coverage_and_oracles(full: dict[str, dict[str, Any]]) -> None:
    text = page.report_page(runs.report(full))
    tree = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert {each.text for each in tree.iter("pre")} >= {"symm replay registration-skew.json", "symm replay '<b>.json'"}
    assert len([*tree.iter("polyline")]) == 2
    for words in ("Who waits for whom", "copy engine", "path (log)", "was interrupted", "shard 1 of 4", "&lt;h&gt;"):
        assert words in text


def test_a_page_of_a_run_that_says_little_is_a_page() -> None:
    text = page.report_page(runs.report({"a": {"draws": 1, "findings": []}}))
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"draws": 3}', '{"draws": 3, "findings": {}}', "{", "\x00"])
def test_a_file_that_is_no_run_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=r"run .*a\.json"):
        runs.load(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    "fields", [{"draws": "many"}, {"findings": [3]}, {"findings": [{}]}, {"speed": [1]}, {"shard": 3}, {"coverage": 3}]
)
def test_a_run_with_fields_of_other_kinds_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not of the form"):
        runs.report({"a": run() | fields})
