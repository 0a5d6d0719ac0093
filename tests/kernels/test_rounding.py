"""Rounding to bfloat16: the bits that torch gives, for every neighbourhood of every bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.tools.interpreter import Interpreter

LOWER_HALVES = {
    "exact": 0,
    "just above": 1,
    "below a tie": 0x7FFF,
    "tie": 0x8000,
    "above a tie": 0x8001,
    "last": 0xFFFF,
}
EVERY_UPPER_HALF = np.arange(1 << 16, dtype=np.int64) << 16


def words(lower: int) -> NDArray[np.int32]:
    """Every upper half of a float32 with this lower half: every sign and exponent, infinities and NaN among them."""
    return (EVERY_UPPER_HALF | lower).astype(np.uint32).view(np.int32)


def torch_rounds(float32: NDArray[np.int32]) -> torch.Tensor:
    return torch.from_numpy(float32).view(torch.float32).to(torch.bfloat16)


def differ(interpreter: Interpreter, float32: NDArray[np.int32]) -> int:
    """How many words are rounded to other bits than torch's. One NaN is as good as another."""
    found = torch.from_numpy(interpreter("round_to_bfloat16", float32)).view(torch.bfloat16)
    wanted = torch_rounds(float32)
    same = (found.view(torch.int16) == wanted.view(torch.int16)) | (found.isnan() & wanted.isnan())
    return int((~same).sum())


@pytest.mark.parametrize("lower", LOWER_HALVES.values(), ids=LOWER_HALVES)
def test_rounding_agrees_with_torch_around_every_bfloat16(lower: int, interpreter: Interpreter) -> None:
    assert differ(interpreter, words(lower)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_rounding_agrees_with_torch_for_random_bits(seed: int, interpreter: Interpreter) -> None:
    random = np.random.default_rng(seed).integers(-(1 << 31), 1 << 31, 4 << 16, dtype=np.int64)
    assert differ(interpreter, random.astype(np.int32)) == 0


def test_truncation_would_be_noticed() -> None:
    tie = words(0x8000)
    assert int((torch_rounds(tie).view(torch.int16) != torch.from_numpy((tie >> 16).astype(np.int16))).sum()) > 30000


@pytest.mark.parametrize(
    ("word", "rounded"),
    [
        (0x3F808000, 0x3F80),
        (0x3F818000, 0x3F82),
        (0x7F7FFFFF, 0x7F80),
        (0x7F7F7FFF, 0x7F7F),
        (0x7F800000, 0x7F80),
        (0xFF800000, 0xFF80),
        (0x80000000, 0x8000),
        (0x00008000, 0x0000),
        (0x00008001, 0x0001),
        (0x7F800001, 0x7FC0),
        (0xFFFFFFFF, 0x7FC0),
    ],
    ids=[
        "tie down to even",
        "tie up to even",
        "overflow",
        "largest",
        "infinity",
        "minus infinity",
        "minus zero",
        "tie of the smallest",
        "smallest",
        "NaN that truncation would lose",
        "NaN that adding would wrap",
    ],
)
def test_word_is_rounded_to_the_nearest_even(word: int, rounded: int, interpreter: Interpreter) -> None:
    offered = np.full(1 << 16, word, dtype=np.uint32).view(np.int32)
    found = interpreter("round_to_bfloat16", offered)
    assert int(found[0]) & 0xFFFF == rounded
