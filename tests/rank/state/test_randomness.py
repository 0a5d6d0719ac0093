"""A key puts every generator where it was with that key before."""

from __future__ import annotations

import random

import numpy as np
import torch

from harness.rank.state import randomness


def drawn(key: int) -> tuple[float, float, float]:
    randomness.begin(key, torch.device("cpu"))
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_equal_keys_give_equal_numbers_and_others_do_not() -> None:
    first, other = drawn(1 << 61), drawn(7)
    assert drawn(1 << 61) == first
    assert all(one != two for one, two in zip(first, other, strict=True))
