"""Accesses that nothing orders come out in pairs, unless both take the same words whole."""

from __future__ import annotations

import pytest

from harness.oracle.rules.happens_before import Pair, unordered
from harness.trace.accesses import Accessed, How, Synced
from harness.trace.trace import Trace

WORD = 8


def made(number: int, how: How, word: int = 0, begin: int = 0) -> Accessed:
    return Accessed(number, how, owner=0, spans=((begin, begin + WORD),), kernel="kernel", word=word)


def pairs(*of_ranks: tuple[Accessed | Synced, ...]) -> list[tuple[int, int]]:
    """The numbers of the two accesses of each pair."""
    found: list[Pair] = [*unordered([Trace(rank, events) for rank, events in enumerate(of_ranks)])]
    return [(pair.first.event.number, pair.second.event.number) for pair in found]


@pytest.mark.parametrize(
    ("words", "expected"), [((8, 8), []), ((8, 0), [(1, 2)]), ((0, 8), [(1, 2)]), ((8, 4), [(1, 2)])]
)
def test_a_word_that_both_take_whole_is_no_race(words: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    first, second = words
    assert pairs((made(1, "atomically updates", first),), (made(2, "reads", second),)) == expected


def test_a_whole_word_orders_no_other_bytes() -> None:
    sends = made(1, "writes", begin=8), made(2, "atomically updates", WORD)
    looks = made(3, "reads", WORD), made(4, "reads", begin=8)
    assert pairs(sends, looks) == [(1, 4)]


@pytest.mark.parametrize("how", ["writes", "reads"])
def test_a_whole_word_hides_nothing_that_was_there_before(how: How) -> None:
    """The rank that stores over its own access is in order with it, and its peer is not."""
    assert pairs((made(1, how), made(2, "atomically updates", WORD)), (made(3, "atomically updates", WORD),)) == [
        (1, 3)
    ]


def test_every_rank_that_took_a_word_whole_is_remembered() -> None:
    first, second = ((made(number, "atomically updates", WORD),) for number in (1, 2))
    assert pairs(first, second, (made(3, "reads"),)) == [(1, 3), (2, 3)]


def test_what_a_release_and_an_acquire_order_may_be_plain() -> None:
    word, begin = (64,), 0
    sends = made(1, "writes", begin=begin), Synced(2, word, releases=True, acquires=False)
    assert pairs(sends, (Synced(3, word, releases=False, acquires=True), made(4, "reads", WORD, begin))) == []
