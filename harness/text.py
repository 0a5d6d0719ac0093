"""Words that follow a number."""

from __future__ import annotations


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 draw`, `2 draws`, `2.5 draws`. `plural` where it is not the noun and an s."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
