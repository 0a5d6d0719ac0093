"""How times grow with ranks, as a reader sees it: tables, marks, and lines for plots."""

from __future__ import annotations

import io

from rich.console import Console

from harness.report.speed import scaling
from harness.studies.bench.by_ranks import Asked, ByRanks
from harness.studies.bench.collectives import Measured, Row

SHARE = "several ranks share a GPU"


def row(contender: str, micros: float, nbytes: int = 1024) -> Row:
    return Row("all_gather", nbytes, contender, seconds=(micros * 1e-6,))


def table(world: int, *rows: Row, why_not: str = "") -> Measured:
    return Measured(world, "bfloat16", {"substrate": "nccl"}, why_not, [*rows])


def by_ranks(*tables: Measured) -> ByRanks:
    worlds = [each.world for each in tables]
    return ByRanks(Asked(worlds, ["all_gather"], "bfloat16", [1024], [], "nccl", 0), [*tables])


WRONG = Row("all_gather", 1024, "mine", state="wrong", reason="wrong data")
FOUND = by_ranks(
    table(2, row("nccl", 4), row("cuda", 1), row("copy", 0.5), row("mine", 2), row("cuda", 5, 4096)),
    table(4, row("nccl", 6), row("cuda", 3), row("copy", 0.5), row("copy to all", 1.5), WRONG),
    table(8, row("nccl", 9), row("cuda", 3.5), row("copy to all", 7), why_not=SHARE),
)


def test_each_number_of_ranks_has_a_line_with_time_ratios_and_growth() -> None:
    cells = [*scaling.cells(FOUND, "all_gather")]
    assert cells[:6] == [
        ("1K", "library's best", "2", "4.0", "1.00", "8.00", "1.00"),
        ("1K", "library's best", "4", "6.0", "1.00", "4.00", "1.50"),
        ("1K", "library's best", "8*", "9.0", "1.00", "1.29", "2.25"),
        ("1K", "cuda", "2", "1.0", "0.25", "2.00", "1.00"),
        ("1K", "cuda", "4", "3.0", "0.50", "2.00", "3.00"),
        ("1K", "cuda", "8*", "3.5", "0.39", "0.50", "3.50"),
    ]
    assert ("1K", "mine", "4", "wrong", "–", "–", "–") in cells


def test_only_numbers_of_ranks_that_do_not_compare_are_marked_and_the_reason_is_given() -> None:
    assert scaling.notes(FOUND) == [f"* Not comparable with other machines: {SHARE}."]
    assert [scaling.shown_ranks(FOUND, world) for world in (2, 4, 8)] == ["2", "4", "8*"]
    assert scaling.notes(by_ranks(*FOUND.tables[:2])) == []


def test_a_contender_has_a_line_at_every_size_so_that_it_keeps_its_colour() -> None:
    (small, first), (large, second) = scaling.lines(FOUND, "all_gather")
    assert (small, large) == (1024, 4096)
    assert [*first] == [*second] == ["library's best", "cuda", "copy", "mine", "copy to all"]
    assert first["cuda"] == [(2, 1 * 1e-6), (4, 3 * 1e-6), (8, 3.5 * 1e-6)]
    assert first["mine"] == [(2, 2 * 1e-6)]
    assert second["cuda"] == [(2, 5 * 1e-6)]
    assert second["copy"] == []


def shown(found: ByRanks) -> str:
    written = io.StringIO()
    scaling.show(Console(file=written, width=100), found)
    return written.getvalue()


def test_a_terminal_shows_every_table_and_then_how_times_grow() -> None:
    text = shown(FOUND)
    titles = [f"all_gather, {each}, bfloat16, substrate nccl" for each in ("2 ranks", "4 ranks", "8 ranks", "by ranks")]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert text.rstrip().endswith(scaling.notes(FOUND)[0])


def test_one_number_of_ranks_has_no_table_of_growth_and_no_mark() -> None:
    text = shown(by_ranks(FOUND.tables[2]))
    assert "8 ranks" in text
    assert "by ranks" not in text
    assert "*" not in text
