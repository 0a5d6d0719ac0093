"""Draws from a strategy in short runs of Hypothesis, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
BATCH = 12
"""Examples of one Hypothesis run. From the tenth on, five of six examples are mutations of another with
the same layout; short runs, each with a seed of its own, keep layouts varied (and memory flat)."""
PATIENCE = 20
"""Batches in a row without a new value, after which a strategy is taken to be used up."""


def batch(strategy: st.SearchStrategy[T], body: Callable[[T], None], seed: int, number: int, shrink: bool) -> None:
    """Calls `body` with batch `number` of what a campaign with `seed` draws; always the same values.

    With `shrink`, what makes `body` raise is shrunk, and then raised as Hypothesis raises it.
    """

    @hypothesis.seed(seed * 1_000_003 + number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(strategy)
    def drawn(value: T) -> None:
        body(value)

    with without_constants():
        drawn()


@contextmanager
def without_constants() -> Iterator[None]:
    """Under it, the values of a seed do not depend on which modules are loaded.

    Hypothesis 6.131 and later prefer numbers that stand in the code of the modules at hand. A plug-in, or a test, that
    is loaded beside a campaign would so change what its seed draws. There is no setting for it.
    """
    internal: Any = None
    with suppress(ImportError):
        internal = import_module("hypothesis.internal.conjecture.providers")
    if not all(hasattr(internal, name) for name in _INTERNAL):  # before 6.131, or where they went elsewhere
        yield
        return
    known, cache = internal._get_local_constants, internal.CONSTANTS_CACHE
    nothing = internal.Constants()
    internal._get_local_constants, internal.CONSTANTS_CACHE = lambda: nothing, _CACHE
    try:
        yield
    finally:
        internal._get_local_constants, internal.CONSTANTS_CACHE = known, cache


_INTERNAL = ("_get_local_constants", "CONSTANTS_CACHE", "Constants")
_CACHE: dict[Any, Any] = {}


def sample(strategy: st.SearchStrategy[T], count: int, seed: int = 0) -> list[T]:
    """`count` values of a strategy as a campaign would draw them, always the same for the same seed."""
    drawn: list[T] = []
    number = 0
    while len(drawn) < count:
        batch(strategy, drawn.append, seed, number, shrink=False)
        number += 1
    return drawn[:count]


def distinct(strategy: st.SearchStrategy[H], seed: int = 0, batches: Iterator[int] | None = None) -> Iterator[H]:
    """Values of a strategy as a campaign would draw them, each once, until nothing new comes. All batches, or those of
    these numbers."""
    seen: set[int] = set()
    numbers, idle = batches or count(), 0
    while idle < PATIENCE:
        drawn: list[H] = []
        batch(strategy, drawn.append, seed, next(numbers), shrink=False)
        new = {hash(value): value for value in drawn if hash(value) not in seen}
        yield from new.values()
        seen |= new.keys()
        idle = 0 if new else idle + 1
