"""Text for people: numbers with their nouns, and nothing that a terminal would obey.

Invariant: what a file, a name or a rank says reaches a terminal as text. Every way to one goes through `visible`.
"""

from __future__ import annotations

import re

OBEYED = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 without tab and newline, DEL, C1, what turns the direction of writing, ends of lines, and halves of characters."""


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 draw`, `2 draws`, `2.5 draws`. `plural` where it is not the noun and an s."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def visible(text: str) -> str:
    r"""Text with every character that a terminal would obey written as an escape, such as `\x1b`."""
    return OBEYED.sub(lambda found: _escape(ord(found[0])), text)


def _escape(number: int) -> str:
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
