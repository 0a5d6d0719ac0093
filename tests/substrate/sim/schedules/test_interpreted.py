"""What the interpreter's operations tell a witness."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world.world import World
from tests.tools.looks import TIMES


@pytest.fixture(scope="module")
def rank() -> Iterator[World]:
    with World(1, "sim") as world:
        yield world


@pytest.mark.parametrize("by", ["load", "atomic operation"])
def test_a_word_that_is_read_again_is_polled_whatever_the_lanes_beside_it_hold(rank: World, by: str) -> None:
    assert rank.call("tests.tools.looks:polls", by) == [TIMES - 1]
