"""A bisection in words."""

from __future__ import annotations

import pytest

from harness.report.bisection import data, line, summary
from harness.studies.bisect.search import Search, Tried

GOOD, BAD = Tried("1", "clean", 0, 1), Tried("1", "fails", 2, 3, ("hang", "leak"))
OTHER, SKIPPED = Tried("1", "other", 1, 1, ("leak",)), Tried("1", "skipped", why="pip: no")


def searched(*verdicts: Tried) -> Search:
    """A search that has tried versions `0`, `1` and so on."""
    named = [Tried(str(place), each.verdict, each.failed, each.runs, each.rules) for place, each in enumerate(verdicts)]
    search = Search([each.version for each in named], lambda version: named[int(version)])
    search.run(every=True)
    return search


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (GOOD, "1: clean in 1 run"),
        (BAD, "1: fails, hang, leak in 2 of 3 runs"),
        (OTHER, "1: other, only leak in 1 of 1 run"),
        (SKIPPED, "1: skipped, pip: no"),
    ],
)
def test_each_verdict_has_its_words(tried: Tried, words: str) -> None:
    assert line(tried) == words


@pytest.mark.parametrize(
    ("verdicts", "lines"),
    [
        ((GOOD, BAD), ["first bad 1, last good 0"]),
        ((BAD, GOOD), ["first good 1, last bad 0"]),
        ((GOOD, SKIPPED, SKIPPED, BAD), ["first bad 3, last good 0", "  not sharp: 1, 2 between them could not run"]),
        ((BAD, OTHER), ["first good 1, last bad 0", "  1 is not clean: it breaks leak instead"]),
        ((GOOD, GOOD), ["no change: the seed fails with neither engine 0 nor 1"]),
        (
            (BAD, BAD, BAD),
            ["no change: the seed fails with both engine 0 and 2; 1 version tried between them gave the same"],
        ),
        ((SKIPPED, OTHER), ["no change: engine 1 alone could run, and the seed does not fail with it"]),
    ],
)
def test_a_summary_names_the_versions_on_both_sides(verdicts: tuple[Tried, ...], lines: list[str]) -> None:
    assert summary(searched(*verdicts), "engine") == lines


def test_a_program_gets_every_version_in_order_and_every_change() -> None:
    found = data(searched(BAD, GOOD, BAD))
    assert [each.version for each in found["versions"]] == ["0", "1", "2"]
    assert found["changes"] == [
        {"kind": "ceases", "first_good": "1", "last_bad": "0", "skipped": []},
        {"kind": "begins", "last_good": "1", "first_bad": "2", "skipped": []},
    ]
