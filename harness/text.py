"""Text for people: numbers with their nouns, and nothing that a terminal would obey.

Invariant: what a file, a name or a rank says reaches a terminal as text. Every way to one goes through `visible`.
"""

from __future__ import annotations


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 draw`, `2 draws`, `2.5 draws`. `plural` where it is not the noun and an s."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def ordinal(index: int) -> str:
    """The place of what an index from 0 names, in words for people: `first`, `second`, `third`, `4th`, `22nd`."""
    place = index + 1
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}{ending}")


def visible(text: str) -> str:
    r"""Text with every character that a terminal would obey, or that nobody sees, written as an escape, such as `\x1b`.

    Those are controls, what turns the direction of writing, ends of lines but the newline, halves of characters, and
    spaces that are none (`str.isprintable`).
    """
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(ord(char)) for char in text)


def _escape(number: int) -> str:
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
