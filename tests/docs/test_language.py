"""The docs are short sentences in plain English, and what they point at exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import prose

LONGEST = 35
FORBIDDEN = re.compile(
    r"\b(anew|nobody|somebody|told|dear|mends?|mended|mislaid|orphaned|earlier day|slower day|is said|be said)\b",
    re.IGNORECASE,
)
WHAT = re.compile(r"^What\b.*\.$")
"""A clause with "what" as the subject of a statement; a question may begin so."""

every_page = pytest.mark.parametrize("path", prose.pages(), ids=lambda path: str(path.relative_to(prose.ROOT)))


@every_page
def test_no_sentence_is_longer_than_a_reader_can_hold(path: Path) -> None:
    long = {each: prose.count(each) for each in prose.sentences(path.read_text()) if prose.count(each) > LONGEST}
    assert not long


@every_page
def test_no_word_reads_as_translated(path: Path) -> None:
    found = {each for each in prose.sentences(path.read_text()) if FORBIDDEN.search(each) or WHAT.match(each)}
    assert not found


@every_page
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    for target in prose.links(path.read_text()):
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not anchor or anchor in prose.anchors(there.read_text()), target


@every_page
def test_every_file_that_is_named_exists(path: Path) -> None:
    for named in prose.paths(path.read_text()):
        places = (prose.ROOT / named, prose.HOUSE / named, path.parent / named)
        assert any(place.exists() for place in places), named


@every_page
def test_every_module_that_is_named_exists(path: Path) -> None:
    assert not {name for name in prose.dotted(path.read_text()) if not prose.is_there(name)}


def test_the_tree_of_rooms_is_the_house() -> None:
    (tree,) = re.findall(
        r"^harness/\n(.*?)^kernels/", (prose.ROOT / "docs" / "how-it-works.md").read_text(), re.M | re.S
    )
    rooms = {path.name for path in prose.HOUSE.iterdir() if (path / "__init__.py").exists() and not path.is_symlink()}
    assert set(re.findall(r"^  (\w+)/", tree, re.M)) == rooms


def test_a_long_sentence_is_seen_wherever_it_stands() -> None:
    long = "word " * 40 + "end."
    for text in (long, f"Short. {long} Short.", f"- {long}", f"A list:\n- one\n  {long}", f"# Head\n{long}"):
        assert any(prose.count(each) > LONGEST for each in prose.sentences(text)), text


def test_tables_code_and_headings_are_no_sentences() -> None:
    long = "word " * 40
    text = f"# {long}\n\n| {long} | b |\n\n```\n{long}\n```\n\n`{long}` is one word.\n"
    assert [prose.count(each) for each in prose.sentences(text)] == [4]


def test_two_sentences_are_counted_apart() -> None:
    assert [prose.count(each) for each in prose.sentences("One two. Three four (five.) Six seven eight.")] == [2, 3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "They begin anew.",
        "Nobody waits.",
        "It was told by rank 0.",
        "What a draw costs is measured.",
    ],
)
def test_a_translated_word_is_seen(text: str) -> None:
    assert FORBIDDEN.search(text) or WHAT.match(text)


def test_a_question_may_begin_with_what() -> None:
    assert not WHAT.match("What runs on a rank?")


@pytest.mark.parametrize("name", ["harness.world.watch", "harness.scenarios", "harness.system.context.RankContext"])
def test_a_name_that_exists_is_found(name: str) -> None:
    assert prose.is_there(name)


@pytest.mark.parametrize("name", ["harness.crew", "harness.system.context.NoSuchName", "harness.no.such.room"])
def test_a_name_that_is_gone_is_seen(name: str) -> None:
    assert not prose.is_there(name)


def test_paths_are_those_of_the_project() -> None:
    text = (
        "`harness/world/watch.py`, `world/gone.py`, `docs/`, `/tmp/x.py`, `mypackage/pools.py` and plain harness/a.py"
    )
    assert [*prose.paths(text)] == ["harness/world/watch.py", "world/gone.py", "docs/"]


def test_anchors_are_named_as_headings_are() -> None:
    assert prose.anchors("# The rules\n\n## Two, or more?\n") == {"the-rules", "two-or-more"}
