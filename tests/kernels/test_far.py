"""Offsets of 2^31 and more: what lies there is moved and summed where it lies."""

from __future__ import annotations

import pytest

from tests.tools.interpreter import Interpreter
from tests.tools.launches import launched

KINDS = ("all_gather", "all_to_all", "reduce_scatter")


@pytest.mark.parametrize("before", [(1 << 31) + 16, (1 << 31) + 3, (1 << 32) + 5])
@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_a_chunk_may_begin_past_2_to_the_31(kind: str, before: int, interpreter: Interpreter) -> None:
    assert interpreter("chunk", kind, [before, 1, 37])


@pytest.mark.parametrize("more", [0, 48, 21], ids=["whole blocks", "whole words", "with a rest"])
@pytest.mark.parametrize(("size", "count"), [(4, 1 << 30), (2, 1 << 31)], ids=["rank x count", "count"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_may_end_past_2_to_the_31(
    kind: str, size: int, count: int, more: int, interpreter: Interpreter
) -> None:
    assert interpreter("last_block", kind, size, count + more)


def test_every_grid_fits_whatever_the_size() -> None:
    """CUDA's first axis has 2^31 - 1 places, the others have 65,535."""
    kinds = (*KINDS, "broadcast", "all_reduce")
    asked = [
        (kind, dtype, count, 2) for kind in kinds for dtype in ("int8", "int32") for count in (1, 1 << 29, 1 << 40)
    ]
    for (_, dtype, count, _), launch in zip(asked, launched(*asked), strict=True):
        (programs,) = launch["grid"]
        width = 1 if dtype == "int8" else 4
        assert programs < 1 << 31
        assert 0 <= programs * launch["block"] - count * width < launch["block"]
