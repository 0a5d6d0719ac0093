"""The code that Triton makes of the kernels for H100: words of 16 bytes wherever addresses allow."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

from tests.tools.launches import THREADS, launched

KINDS, DTYPES, SIZES = ("all_gather", "all_to_all", "reduce_scatter"), ("bfloat16", "float32", "float8_e4m3fn"), (2, 8)
WIDTHS = dict(zip(DTYPES, (2, 4, 1), strict=True))
ASKED = [(kind, dtype, 1 << 20, size) for kind in KINDS for dtype in DTYPES for size in SIZES]
WORD, ADDRESS = 16, 8
"""Bytes."""

pytestmark = pytest.mark.skipif(
    find_spec("triton.backends.nvidia") is None, reason="this Triton has no compiler for NVIDIA's GPUs"
)


@cache
def launches() -> dict[tuple[str, str, int], dict[str, Any]]:
    """All of them from one process, which is most of the cost."""
    found = launched(*ASKED, ("planted", "bfloat16", 1 << 20, 2), compiled=True)
    return {(kind, dtype, size): each for (kind, dtype, _, size), each in zip(ASKED, found, strict=False)} | {
        ("planted", "bfloat16", 2): found[-1]
    }


def narrow(runs: list[list[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
    """The runs of code that move data, and none of it by words."""
    moving = ([access for access in run if access[1] != ADDRESS] for run in runs)
    return [run for run in moving if run and not any(width == WORD for _, width in run)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
class TestOfAKernel:
    def test_aligned_data_goes_by_words_alone(self, kind: str, dtype: str, size: int) -> None:
        launch = launches()[kind, dtype, size]
        moves = {"ld": 0, "st": 0}
        for run in launch["runs"]:
            if any(width == WORD for _, width in run):
                assert {width for _, width in run} <= {WORD, ADDRESS}
                for move, width in run:
                    moves[move] += width == WORD
        # each thread loads and stores its share of a block, once or, where the compiler unrolled a loop, more often
        share = launch["block"] // WORD // THREADS
        assert moves["ld"]
        assert moves["st"]
        assert moves["ld"] % share == moves["st"] % share == 0

    def test_the_rest_goes_by_elements_alone(self, kind: str, dtype: str, size: int) -> None:
        rest = narrow(launches()[kind, dtype, size]["runs"])
        assert {access[1] for run in rest for access in run} == {WIDTHS[dtype]}
        assert {access[0] for run in rest for access in run} == {"ld", "st"}


def test_a_kernel_that_has_no_words_would_be_noticed() -> None:
    runs = launches()["planted", "bfloat16", 2]["runs"]
    assert {width for run in runs for _, width in run} == {2, ADDRESS}
