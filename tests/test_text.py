"""Words that follow a number."""

from __future__ import annotations

import pytest

from harness.text import counted, ordinal, visible


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 draws"),
        (1, "1 draw"),
        (2, "2 draws"),
        (1000, "1000 draws"),
        (1.0, "1 draw"),
        (2.0, "2 draws"),
        (2.5, "2.5 draws"),
    ],
)
def test_one_is_singular_and_every_other_number_plural(number: float, shown: str) -> None:
    assert counted(number, "draw") == shown


def test_places_are_counted_from_one_in_words() -> None:
    places = [ordinal(index) for index in (0, 1, 2, 3, 10, 11, 12, 20, 21, 22, 110, 121)]
    assert places[:4] == ["first", "second", "third", "4th"]
    assert places[4:] == ["11th", "12th", "13th", "21st", "22nd", "23rd", "111th", "122nd"]


def test_an_irregular_plural_is_given() -> None:
    assert (counted(1, "registry", "registries"), counted(2, "registry", "registries")) == (
        "1 registry",
        "2 registries",
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\u202eb\u2066\u200f", "a\\u202eb\\u2066\\u200f"),
        ("\r\u2028\udcff", "\\x0d\\u2028\\udcff"),
        ("\u200b\ufeff\xad\U000e0001", "\\u200b\\ufeff\\xad\\U000e0001"),
        ("tab\t, line\n, über → 日本", "tab\t, line\n, über → 日本"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
