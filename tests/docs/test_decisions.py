"""Decisions are by room, dated, and listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import prose

FOLDER = prose.ROOT / "docs" / "decisions"
FILES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
DATED = re.compile(r"\*\d{4}-\d\d-\d\d(, changed \d{4}-\d\d-\d\d)?\*")
FORMER = "No longer"


def entries(text: str) -> list[tuple[str, str]]:
    """Heading and body of each entry."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    return [(head, body.strip()) for head, body in zip(parts[::2], parts[1::2], strict=True)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_decision_has_a_date_and_a_reason(path: Path) -> None:
    for head, body in entries(path.read_text()):
        first, _, reason = body.partition("\n")
        assert head == FORMER or DATED.fullmatch(first), head
        assert head == FORMER or reason.strip(), head


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_no_longer_holds_stands_last_and_is_dated(path: Path) -> None:
    heads = [head for head, _ in entries(path.read_text())]
    assert FORMER not in heads[:-1]
    for head, body in entries(path.read_text()):
        assert head != FORMER or all(re.search(r"\d{4}-\d\d-\d\d", item) for item in body.split("\n- "))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_decisions_is_in_the_index(path: Path) -> None:
    assert path.name in prose.links((FOLDER / "README.md").read_text())


def test_an_entry_without_a_date_is_seen() -> None:
    ((head, body),) = entries("# Room\n\n## It is so\nFor a reason.\n")
    assert head == "It is so"
    assert not DATED.fullmatch(body.partition("\n")[0])
