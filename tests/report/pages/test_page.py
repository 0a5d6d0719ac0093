"""A page of a seed: well-formed, small, alone, with words for all that is drawn."""

from __future__ import annotations

import re
import time
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree

import msgspec
import pytest

from harness.report.pages import page
from harness.report.pages.account import NOT_RUN, Account, Chunk, Outcome
from tests.report.pages.conftest import SEEDS, Accounts

LARGEST = 300 << 10


def tree(account: Account) -> ElementTree.Element:
    """The page, which is well-formed as XML, too, so that its tags are balanced."""
    return ElementTree.fromstring(page.seed_page(account).removeprefix("<!DOCTYPE html>"))


every_rule = pytest.mark.parametrize("rule", SEEDS)


@every_rule
def test_a_page_loads_nothing_and_runs_nothing(accounts: Accounts, rule: str) -> None:
    text = page.seed_page(accounts[rule])
    assert not re.search(r"src=|@import|https?:|<script|<link|url\((?!#)", text)
    assert not re.search(r'href="(?!#)', text)


@every_rule
def test_a_page_has_one_heading_which_is_the_verdict(accounts: Accounts, rule: str) -> None:
    found = tree(accounts[rule])
    (heading,) = found.iter("h1")
    assert heading.text == accounts[rule].verdict.headline
    assert found.get("lang") == "en"


@every_rule
def test_every_figure_is_named_and_every_id_is_there_once(accounts: Accounts, rule: str) -> None:
    found = tree(accounts[rule])
    ids = Counter(each.get("id") for each in found.iter() if each.get("id"))
    assert set(ids.values()) == {1}
    for each in (*found.iter("figure"), *found.iter("section")):
        assert each.get("aria-label") or each.get("aria-labelledby") in ids
    for each in found.iter("svg"):
        assert each.get("aria-label")


@every_rule
def test_headings_skip_no_level(accounts: Accounts, rule: str) -> None:
    levels = [int(each.tag[1]) for each in tree(accounts[rule]).iter() if re.fullmatch("h[1-6]", each.tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


@every_rule
def test_what_scrolls_is_reached_by_keyboard(accounts: Accounts, rule: str) -> None:
    scrolls = [each for each in tree(accounts[rule]).iter() if each.get("class") == "scroll"]
    assert scrolls
    assert all(each.get("tabindex") == "0" and each.get("aria-label") for each in scrolls)


@every_rule
def test_a_page_is_small_and_drawn_at_once(accounts: Accounts, rule: str) -> None:
    page.seed_page(accounts[rule])  # the first compiles the templates
    began = time.process_time()
    assert len(page.seed_page(accounts[rule]).encode()) < LARGEST
    assert time.process_time() - began < 1


def test_text_of_a_seed_is_no_markup_and_has_no_controls(accounts: Accounts) -> None:
    hostile = msgspec.structs.replace(accounts["wrong-owner"], note="<script>alert(1)</script>\x1b[31m\u202e")
    text = page.seed_page(hostile)
    assert "<script" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\x1b[31m\u202e" in text


def test_a_page_without_a_run_says_so(accounts: Accounts) -> None:
    bare = msgspec.structs.replace(accounts["wrong-owner"], lanes=(), memory=None, outcomes=(), not_run="no ranks")
    found = tree(bare)
    assert "no ranks" in {each.text for each in found.iter("p")}


def test_a_window_that_is_missing_has_words_and_a_border_of_its_own(accounts: Accounts) -> None:
    wanted = [each for each in tree(accounts["wrong-owner"]).iter("div") if "wanted" in (each.get("class") or "")]
    assert {each.get("class") for each in wanted} == {"win wanted", "label l-wanted"}
    assert {each.text for each in wanted} - {None} == {"✗ no window of moe_ep[0,2] here: the call needs one"}


def test_a_chunk_of_which_nothing_is_known_is_not_called_wrong(accounts: Accounts) -> None:
    account = accounts["wrong-data"]
    output = msgspec.structs.replace(account.outputs[0], chunks=(Chunk(0, 4, "from rank 0", "unsure"),))
    (chunk,) = tree(msgspec.structs.replace(account, outputs=(output,))).iterfind(".//div[@class='unsure']")
    assert "".join(chunk.itertext()) == "? not knownfrom rank 00 to 3"


def test_a_system_that_refused_the_seed_is_not_drawn_as_a_failure(accounts: Accounts) -> None:
    refused = (Outcome("pool other", NOT_RUN, difference="needs a GPU"),)
    found = tree(msgspec.structs.replace(accounts["wrong-data"], outcomes=refused))
    (row,) = found.iterfind(".//section[@aria-labelledby='pools']//tbody/tr")
    assert [each.get("class") for each in row.iter("span")] == ["soft"]


def test_other_findings_are_said_before_any_fold_and_steps_are_marked(accounts: Accounts) -> None:
    """A fold is closed when the page opens."""
    found = accounts["wrong-data"]
    verdict = msgspec.structs.replace(found.verdict, also=(("leak", "A window is left."),))
    text = page.seed_page(msgspec.structs.replace(found, verdict=verdict, shows_at_end="leak shows here"))
    assert "<strong>leak</strong>. A window is left." in text.partition("<details")[0]
    marked = re.findall(r'<li class="[^"]*on"><span aria-hidden="true">(.)</span>', text)
    assert marked == ["✗", "✗"]


def test_canaries_in_the_size_of_a_buffer_are_explained_once(accounts: Accounts) -> None:
    text = page.seed_page(accounts["wrong-data"])
    assert text.count("canaries: 128 elements in front and 16 behind") == 1
