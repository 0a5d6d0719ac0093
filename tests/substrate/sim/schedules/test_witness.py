"""A witness writes accesses as the fewest spans that have the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

from harness.substrate.sim.schedules.witness import Span, merged, runs


@pytest.mark.parametrize(
    ("places", "spans"),
    [
        ([0, 4, 8], [(0, 12)]),
        ([8, 0, 4], [(0, 12)]),
        ([0, 8, 12], [(0, 4), (8, 16)]),
        ([4, 4], [(4, 8)]),
        ([0, 2], [(0, 6)]),
    ],
)
def test_elements_side_by_side_are_one_span(places: list[int], spans: list[Span]) -> None:
    assert runs(np.array(places, dtype=np.int64), 4) == spans


def test_spans_that_touch_are_one() -> None:
    assert [*merged([(8, 12), (0, 4), (4, 6), (20, 24), (1, 3)])] == [(0, 6), (8, 12), (20, 24)]


def test_no_spans_are_none() -> None:
    assert [*merged([])] == []
