"""What the summary says of coverage."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from harness.nights.corpus import Corpus
from harness.nights.coverage import Coverage
from harness.oracle.states.state import State
from harness.report.nights.coverage import show
from tests.tools.campaigns import RIGHT

WIDE = State("group", "width 4")


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=80)


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_what_was_covered_is_counted_and_what_never_was_is_named(console: Console) -> None:
    coverage = Coverage()
    coverage.take([WIDE, State("path", "all_gather library legacy")])
    show(console, coverage)
    covered, never = text(console).splitlines()
    assert covered == "covered: 0 rules nearly broken, 1 paths, 1 group shapes, 0 sizes, 0 interleavings"
    assert "group shapes (width 1, width 2, width 3 and " in never
    assert "width 4" not in never


def test_nothing_is_said_of_a_run_without_draws(console: Console) -> None:
    show(console, Coverage())
    assert text(console) == ""


def test_the_corpus_says_what_was_tried_left_out_and_added(console: Console, tmp_path: Path) -> None:
    Corpus(tmp_path).add(RIGHT, [WIDE])
    (tmp_path / "corpus-broken.json").write_text("{")
    corpus = Corpus(tmp_path, lambda scenario: None)
    coverage = Coverage(corpus.states)
    coverage.take([WIDE, State("group", "width 2")])
    show(console, coverage, corpus)
    said = text(console)
    assert "0 scenarios from before, 1 left out that this run does not draw, 0 added; 1 new state\n" in said
    assert "  left out: seed file " in said
