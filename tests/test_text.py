"""Words that follow a number."""

from __future__ import annotations

import pytest

from harness.text import counted


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


def test_an_irregular_plural_is_given() -> None:
    assert (counted(1, "registry", "registries"), counted(2, "registry", "registries")) == (
        "1 registry",
        "2 registries",
    )
