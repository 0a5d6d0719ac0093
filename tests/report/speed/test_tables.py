"""Measured collectives as a reader sees them: rows, notes and bars."""

from __future__ import annotations

from harness.report.speed import tables
from harness.studies.bench.collectives import Measured, Row

MEASURED = Measured(
    2,
    "bfloat16",
    {"substrate": "nccl", "gpus": ["<H>"]},
    "several ranks share a GPU",
    [
        Row("all_gather", 4096, "nccl", seconds=(4e-6, 4e-6), how="own choice", blocks=4, host=2e-5, workspace=None),
        Row("all_gather", 1024, "nccl", seconds=(2e-6, 2e-6)),
        Row("all_gather", 1024, "a:<b>", seconds=(1e-6, 1e-6), eager=True, workspace=2048),
        Row("all_gather", 1024, "c:Wrong", state="wrong", reason="wrong data", seconds=(1e-6,)),
        Row("all_gather", 1024, "d:No", state="refused", reason="too small"),
    ],
)


def test_rows_are_in_the_order_of_sizes_with_figures_and_dashes() -> None:
    assert [*tables.cells(MEASURED, "all_gather")] == [
        ("1K", "nccl", "2.0", "0.512", "1.00", "0 %", "–", "–", "–", ""),
        ("1K", "a:<b>", "1.0", "1.02", "0.50", "0 %", "–", "–", "2K", "eager"),
        ("1K", "c:Wrong", "wrong", *["–"] * 7),
        ("1K", "d:No", "–", *["–"] * 7),
        ("4K", "nccl", "4.0", "1.02", "1.00", "0 %", "4", "20.0", "–", "own choice"),
    ]


def test_notes_say_why_times_do_not_compare_and_why_a_contender_has_none() -> None:
    assert tables.notes(MEASURED) == [
        "Not comparable with other machines: several ranks share a GPU.",
        "c:Wrong, all_gather, wrong: wrong data",
        "d:No, all_gather, refused: too small",
    ]


def test_a_bar_is_as_long_as_its_share() -> None:
    assert (tables.bar(1.0), tables.bar(0.5), tables.bar(0.0)) == ("█" * 30, "█" * 15, "")
    assert tables.bar(1 / 240) == "▏"
    assert sum("█" in line for line in tables.plot(MEASURED)) == 3
