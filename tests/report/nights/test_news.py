"""What is shown of known findings, and what a program gets."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.campaign import seeds
from harness.campaign.seeds import Seed
from harness.campaign.tally import Tally
from harness.nights.known import Folder
from harness.oracle.findings import Record
from harness.report.nights import news
from tests.tools.campaigns import LEAKING

SEED = Seed(seeds.SCHEMA, LEAKING, (Record("leak", "shown", 1 << 20, (0,)),), {})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    seeds.save(SEED, tmp_path / "leak.json")
    return Folder(tmp_path)


def shown(tally: Tally, folder: Folder) -> str:
    out = StringIO()
    news.show(Console(file=out, width=200), tally, folder, 100)
    return out.getvalue()


@pytest.mark.parametrize(
    ("failed", "runs", "status", "says"),
    [
        (2, 2, "known", "known: leak"),
        (1, 4, "flaky", "its case fails in 1 of 4 runs"),
        (0, 20, "gone", "its case passed in 20 runs"),
        (0, 1, "untried", "0 new, 0 known, 0 flaky, 0 gone; of 1 known finding, 1 ran again."),
    ],
)
def test_each_known_finding_has_a_line_and_its_facts(
    folder: Folder, failed: int, runs: int, status: str, says: str
) -> None:
    (known,) = folder
    known.failed, known.runs = failed, runs
    text = shown(Tally(), folder)
    facts: dict[str, Any] = news.added({"schema": 1, "findings": []}, Tally(), folder, 100)
    assert says in text
    assert (news.ONLY_KNOWN in text) == (status in ("known", "flaky"))
    assert [each["status"] for each in facts["findings"]] == [status] * (status in ("known", "flaky"))
    assert [each["rule"] for each in facts["gone"]] == ["leak"] * (status == "gone")


def test_the_time_that_known_findings_took_is_said_with_its_parts(folder: Folder) -> None:
    folder.replayed = 1.25
    tally = Tally(known_draws=0.5, known_shrinking=0.35)
    facts = news.added({"schema": 1, "findings": []}, tally, folder, 100)
    parts = {"replayed": 1.25, "draws": 0.5, "shrinking": 0.35, "night": 100}
    assert (facts["known_seconds"], facts["known_share"]) == (parts, 0.016)
    assert (
        "Known findings cost 1.6 % of the time. The draws that showed one took 0.5 %."
        in shown(tally, folder).splitlines()
    )


def test_a_night_that_knows_nothing_has_no_such_time() -> None:
    assert "known_seconds" not in news.added({"schema": 1, "findings": []}, Tally(), Folder(None), 100)


def test_without_a_folder_nothing_is_said(tmp_path: Path) -> None:
    assert shown(Tally(), Folder(None)) == ""


def test_a_file_that_is_no_seed_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    out = StringIO()
    news.unread(Console(file=out, width=200), Folder(tmp_path))
    assert out.getvalue().startswith("not taken as known: seed file ")
