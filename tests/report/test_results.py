"""Results for CI systems: JUnit XML, and annotations where a hosted runner reads them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.campaign.tally import Tally
from harness.report import results
from harness.report.results import Result
from harness.report.terminal import Screen

BROKEN = Result("symm.fuzz.mine", "wrong-owner", "failed", "it lies, 100 %:\nelsewhere", "a listing", "seeds/a.json")
RESULTS = (BROKEN, Result("symm.fuzz.mine", "draws"), Result("symm.fuzz.mine", "draws", "skipped", "nothing"))


def parsed(*shown: Result, **facts: object) -> ElementTree.Element:
    return ElementTree.fromstring(results.junit(shown, facts, 1.5))


def test_each_result_is_a_test_case_and_the_suite_counts_them() -> None:
    root = parsed(*RESULTS)
    (suite,) = root
    for counted in (root, suite):
        assert [counted.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]
    assert [(case.get("classname"), case.get("name")) for case in suite.iter("testcase")] == [
        ("symm.fuzz.mine", "wrong-owner"),
        ("symm.fuzz.mine", "draws"),
        ("symm.fuzz.mine", "draws"),
    ]


def test_a_failure_has_its_message_its_listing_and_its_seed_file() -> None:
    (case,) = parsed(BROKEN).iter("testcase")
    (failure,) = case
    assert (case.get("file"), failure.tag, failure.get("type")) == ("seeds/a.json", "failure", "wrong-owner")
    assert (failure.get("message"), failure.text) == ("it lies, 100 %: elsewhere", "a listing")


def test_what_was_skipped_or_an_error_is_an_element_of_that_name() -> None:
    cases = parsed(Result("k", "a", "skipped", "why"), Result("k", "b", "error", "oh")).iter("testcase")
    assert [[each.tag for each in case] for case in cases] == [["skipped"], ["error"]]


def test_facts_are_properties_and_the_suite_has_host_and_time() -> None:
    root = parsed(BROKEN, seed=7, host="there", started="2026-01-02T03:04:05Z", nccl=None)
    (suite,) = root
    assert (suite.get("hostname"), suite.get("timestamp")) == ("there", "2026-01-02T03:04:05")
    found = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert (found["seed"], found["nccl"]) == ("7", "null")


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "\ud800", "<&\"'>]]>", "\ufffe"])
def test_any_text_makes_xml_that_can_be_read(text: str) -> None:
    (case,) = parsed(Result(text, text, "failed", text, text, text), note=text).iter("testcase")
    assert case.find("failure") is not None


def test_a_campaign_without_a_finding_is_one_that_passed() -> None:
    assert [each.outcome for each in results.of_campaign("k", Tally(draws=3))] == ["passed"]


def test_a_campaign_that_tested_nothing_is_skipped_and_says_why() -> None:
    (result,) = results.of_campaign("k", Tally(draws=3, vacuous=3, vacuous_by={"declined": 3}))
    assert (result.outcome, "3 declined" in result.message) == ("skipped", True)


def test_a_campaign_that_met_known_findings_tested_something() -> None:
    (result,) = results.of_campaign("k", Tally(draws=3, vacuous=3), has_met=True)
    assert result.outcome == "passed"


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


def test_on_a_hosted_runner_a_finding_is_an_annotation_in_one_line(
    hosted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.annotate(Screen(), RESULTS)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "::error file=seeds/a.json,title=wrong-owner::it lies, 100 %25:%0Aelsewhere"


def test_a_name_cannot_end_the_properties_of_an_annotation(hosted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.annotate(Screen(), [Result("k", "a,b::c", "failed", "why", file="d:e,f")])
    assert capsys.readouterr().out.startswith("::error file=d%3Ae%2Cf,title=a%2Cb%3A%3Ac::why")


def test_the_summary_of_the_job_says_the_verdict_first_and_is_added_to(
    hosted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosted.write_text("before\n")
    results.annotate(Screen(), RESULTS)
    text = hosted.read_text()
    assert text.startswith("before\n### symm: 1 finding\n")
    assert "<summary>symm.fuzz.mine: wrong-owner</summary>\n\n```\na listing\n```" in text


def test_a_listing_with_fences_stays_one_block_of_code(hosted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.annotate(Screen(), [Result("k", "a", "failed", "why", "one\n```\ntwo")])
    assert "````\none\n```\ntwo\n````" in hosted.read_text()


def test_elsewhere_there_is_no_annotation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    results.annotate(Screen(), RESULTS)
    assert (capsys.readouterr().out, (tmp_path / "summary.md").exists()) == ("", False)
