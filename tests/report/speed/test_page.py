"""The page of measured collectives: one that loads nothing, with all tables and plots."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from harness.report.speed.page import page
from harness.studies.bench.by_ranks import ByRanks
from harness.studies.bench.collectives import Measured, Row
from tests.report.speed.test_scaling import FOUND, SHARE, by_ranks
from tests.report.speed.test_tables import MEASURED

COMMAND = "symm bench collectives --collectives 'a:<b>'"


def parsed(found: ByRanks) -> ElementTree.Element:
    return ElementTree.fromstring(page(found, COMMAND).removeprefix("<!DOCTYPE html>"))


def texts(root: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(tag)]


def test_a_page_of_one_number_of_ranks_is_well_formed() -> None:
    root = parsed(by_ranks(MEASURED))
    assert len([*root.iter("polyline")]) == 2
    assert "a:<b>" in texts(root, "td")
    assert texts(root, "h1") == ["Collectives, 2 ranks, bfloat16"]
    assert texts(root, "h2") == ["all_gather", "Machine"]


def test_no_page_loads_anything() -> None:
    for found in (by_ranks(MEASURED), FOUND):
        assert not re.search(r"src=|href=.(?!#)|url\(|@import|https?:|<script|<link", page(found, COMMAND))


def test_a_page_of_nothing_is_a_page() -> None:
    parsed(by_ranks(Measured(2, "bfloat16", {"substrate": "sim"})))


def test_a_page_of_several_has_each_table_and_how_times_grow() -> None:
    root = parsed(FOUND)
    sections = ["all_gather, 2 ranks", "all_gather, 4 ranks", "all_gather, 8 ranks", "all_gather, by ranks"]
    assert texts(root, "h1") == ["Collectives, 2, 4 and 8 ranks, bfloat16"]
    assert texts(root, "h2") == [*sections, "Machine"]
    assert texts(root, "a")[1:] == sections
    assert "8*" in texts(root, "td")


def test_a_plot_for_each_size_has_a_line_for_each_contender_over_ranks() -> None:
    section = [*parsed(FOUND).iter("section")][-1]
    assert texts(section, "figcaption") == ["1K, by ranks", "4K, by ranks"]
    small, large = section.iter("svg")
    assert small.attrib["aria-label"] == "time of all_gather of 1K over ranks"
    assert [len(each.attrib["points"].split()) for each in small.iter("polyline")] == [3, 3, 2, 1, 3]
    assert {"2", "4", "8*", "0.5", "9.0", "copy to all"} <= {*texts(small, "text")}
    (cuda,) = large.iter("polyline")
    assert cuda.attrib["stroke"] == [*small.iter("polyline")][1].attrib["stroke"]


def test_more_ranks_are_further_right_and_longer_times_higher() -> None:
    small = next([*parsed(FOUND).iter("section")][-1].iter("svg"))
    best = next(small.iter("polyline")).attrib["points"].split()
    across, up = zip(*(map(float, each.split(",")) for each in best), strict=True)
    assert [*across] == sorted(across)
    assert [*up] == sorted(up, reverse=True)


def test_ranks_that_do_not_compare_are_named_at_the_top_and_where_they_are_marked() -> None:
    notices = [each for each in texts(parsed(FOUND), "p") if "Not comparable" in each]
    assert notices == [f"{whom} Not comparable with other machines: {SHARE}." for whom in ("8 ranks:", "*")]


def test_what_differs_between_numbers_of_ranks_is_named_with_them() -> None:
    few, many = (
        Measured(world, "bfloat16", {"torch": "2.11", "why": f"{world} ranks"}, "", [Row("all_gather", 1024, "torch")])
        for world in (2, 4)
    )
    machine = texts([*parsed(by_ranks(few, many)).iter("table")][-1], "td")
    assert machine == ["torch", "2.11", "why, 2 ranks", "2 ranks", "why, 4 ranks", "4 ranks"]


def test_text_of_a_plug_in_reaches_a_plot_without_control_characters() -> None:
    named = Measured(2, "bfloat16", {"substrate": "sim"}, "", [Row("all_gather", 1024, "a\x1b:b", seconds=(1.0,))])
    assert "\x1b" not in page(by_ranks(named), COMMAND)
