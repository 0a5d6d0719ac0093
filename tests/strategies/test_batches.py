"""Draws in batches: the same for a seed, others for another, each once, and short runs."""

from __future__ import annotations

import importlib
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import strategies as st

from harness.strategies.batches import BATCH, batch, distinct, sample


def test_values_come_once_and_end_with_the_strategy() -> None:
    assert sorted(distinct(st.integers(0, 5))) == [0, 1, 2, 3, 4, 5]


def test_another_seed_draws_others() -> None:
    first, second = (list(islice(distinct(st.integers(), seed), 20)) for seed in (0, 1))
    assert first != second


def test_a_sample_has_as_many_values_as_asked_for() -> None:
    assert len(sample(st.integers(), 2 * BATCH + 1)) == 2 * BATCH + 1


def test_the_same_seed_draws_the_same_values() -> None:
    assert sample(st.integers(), 30, seed=3) == sample(st.integers(), 30, seed=3)


def test_a_batch_is_drawn_again_by_its_number() -> None:
    first: list[int] = []
    again: list[int] = []
    batch(st.integers(), first.append, 1, 4, shrink=False)
    batch(st.integers(), again.append, 1, 4, shrink=False)
    assert first == again != []


def tried(shrink: bool) -> list[int]:
    """Values of a batch of which those of three digits and more fail."""
    values: list[int] = []

    def body(value: int) -> None:
        values.append(value)
        assert value < 100

    with pytest.raises(AssertionError):
        batch(st.integers(0, 10**9), body, 0, 0, shrink=shrink)
    return values


def test_what_makes_the_body_raise_is_shrunk_where_asked_for() -> None:
    assert tried(shrink=True)[-1] == 100


def test_what_makes_the_body_raise_is_left_as_drawn_elsewhere() -> None:
    assert len(tried(shrink=False)) <= BATCH + 1  # the batch, and the failure once more


def test_a_module_that_is_loaded_beside_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis prefers numbers that stand in the code of loaded modules."""
    before = sample(st.lists(st.integers(0, 10**9), min_size=8), 60)
    name = "full_of_constants"
    (tmp_path / f"{name}.py").write_text(f"NUMBERS = {[*range(123_456, 123_956)]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name)
    try:
        assert sample(st.lists(st.integers(0, 10**9), min_size=8), 60) == before
    finally:
        del sys.modules[name]
