"""What a page says that `symm` prints is what it prints."""

from __future__ import annotations

from docs import shown


def test_the_layouts_of_the_page_are_as_symm_shows_them() -> None:
    page = shown.PAGE.read_text()
    assert len(shown.BLOCK.findall(page)) == 8
    assert shown.filled(page) == page


def test_a_page_that_is_behind_is_seen() -> None:
    page = "```\n$ symm show qwen3-32b-tp2\nother words\n```\n"
    assert shown.filled(page) != page
    assert "qwen3-32b-tp2: 2 ranks (sglang)" in shown.filled(page)
